"""What the user should know although nothing is wrong enough to stop for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Note(str):
    """A sentence for the user. cure says what to do about it, or which option decides it; docs/warnings.md has both."""

    cure: str

    def __new__(cls, text: str, cure: str = "") -> Self:
        """Make a note of a text."""
        note = super().__new__(cls, text)
        note.cure = cure
        return note
