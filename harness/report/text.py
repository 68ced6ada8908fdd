"""Words for a terminal, whatever is in a name."""

from __future__ import annotations

import shlex

from rich.text import Text

ENTRY = "run_bench.py"


def printable(text: str, kept: str = "") -> str:
    """The text, with what a terminal can't show or would obey spelled out; line ends and tabs too, unless kept."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def plain_text(text: str) -> Text:
    """The words as they are: no markup in them, and spelled out what a terminal can't show or would obey."""
    return Text(printable(text))


def command_line(*words: str) -> str:
    """What a person types to run this tool with these words, quoted for a shell."""
    return shlex.join(["python", ENTRY, *words])
