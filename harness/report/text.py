"""Words for a terminal, whatever is in a name."""

from __future__ import annotations

from rich.text import Text


def printable(text: str, kept: str = "") -> str:
    """The text, with what a terminal can't show or would obey spelled out; line ends and tabs too, unless kept."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def plain_text(text: str) -> Text:
    """The words as they are: no markup in them, and spelled out what a terminal can't show or would obey."""
    return Text(printable(text))
