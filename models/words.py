"""Words around numbers."""

from __future__ import annotations


def count_of(number: int, noun: str) -> str:
    """Returns a number with its noun, which is given in the singular: "1 image", "1,347 images", "2 classes"."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("entry"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith(('class', 'batch')) else 's'}"
