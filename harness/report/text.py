"""Makes text safe for a terminal, whatever is in a name."""

from __future__ import annotations

import shlex

from rich.text import Text

ENTRY = "run_bench.py"
# What a run prints: text for people, notes and errors alone, or events for a program.
TEXT, QUIET, EVENTS = "text", "quiet", "events"


def printable(text: str, kept: str = "") -> str:
    """Returns the text with control characters escaped, line ends and tabs included, except those in `kept`."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def plain_text(text: str) -> Text:
    """Returns the text as it is, without markup, and with control characters escaped."""
    return Text(printable(text))


def command_line(*words: str) -> str:
    """Returns the command line that runs this tool with these words, quoted for a shell."""
    return shlex.join(["python", ENTRY, *words])
