"""The size of a network's images: height and width, and how a size is written where it is given and stored."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A size as options, records and tables hold it: the side of a square in pixels, or height x width as in "80x160". A
# square is always a number, so that records and files with other sizes and older ones are read and compared alike.
PlainSize = int | str

_WRITTEN = re.compile(r"(-?[0-9]+)(?:[xX]([0-9]+))?")


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Height and width in pixels."""

    height: int
    width: int

    @classmethod
    def of(cls, written: PlainSize) -> ImageSize:
        """The size that is written as a side or as height x width. Raises ValueError for anything else."""
        found = _WRITTEN.fullmatch(str(written))
        if found is None:
            raise ValueError(f"{written!r} is not a size in pixels")
        height = int(found[1])
        return cls(height, height if found[2] is None else int(found[2]))

    @property
    def plain(self) -> PlainSize:
        """The size as it is stored: 224 for a square, else a text such as "80x160"."""
        return self.height if self.height == self.width else self.in_full

    @property
    def in_full(self) -> str:
        """Both sides, of a square, too, as PaddleClas's tables have them: "224x224"."""
        return f"{self.height}x{self.width}"

    def of_images(self, channels: int, layout: str = "nchw") -> tuple[int, int, int]:
        """The shape of an image of this size with channels, in a layout: channels first (nchw) or last (nhwc)."""
        return (channels, self.height, self.width) if layout == "nchw" else (self.height, self.width, channels)
