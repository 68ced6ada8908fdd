"""An image that a run leaves out, as its row in the table of bad images has it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that is left out: its split and index there, its path below the data set's folder, and why.

    rank and epoch (from 1) say who met it when; None for one that was found before the first step.
    """

    split: str
    index: int
    path: str
    label: int
    reason: str
    rank: int | None = None
    epoch: int | None = None


def bad_image_row(image: BadImage) -> dict[str, Any]:
    """A bad image's row in its table."""
    row = asdict(image)
    del row["index"]
    return row
