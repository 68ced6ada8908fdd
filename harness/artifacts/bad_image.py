"""An image that a run skips, as a row of the table of bad images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that is skipped: its split, its index there, its path relative to the data set's folder, and the reason.

    rank and epoch (from 1) are where it was found; None for an image that was found before the first step.
    """

    split: str
    index: int
    path: str
    label: int
    reason: str
    rank: int | None = None
    epoch: int | None = None


def bad_image_row(image: BadImage) -> dict[str, Any]:
    """Returns the row of a bad image in its table."""
    row = asdict(image)
    del row["index"]
    return row
