"""How many images a run leaves out, of how many, and whether that is more than it may."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT

if TYPE_CHECKING:
    from harness.plan.plan import RunPlan

# The defaults of --max-bad-images and --max-bad-share. A top-1 of a set that lost more is not compared with published
# ones, whatever the options are.
MAX_BAD_IMAGES, MAX_BAD_SHARE = 100, 0.01
SPLIT_WORDS = {VAL_SPLIT: "validation", TRAIN_SPLIT: "training"}


def split_sizes(plan: RunPlan) -> dict[str, int]:
    """The number of images in each split that a run reads."""
    sizes = {VAL_SPLIT: plan.data.val_images, TRAIN_SPLIT: plan.data.train_images}
    return {split: size for split, size in sizes.items() if split in plan.kind.splits}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The number of images that are left out of each split, and the number of all of its images.

    Splits without such images may be missing in counts.
    """

    counts: Mapping[str, int]
    sizes: Mapping[str, int]

    @property
    def total(self) -> int:
        """The images left out of all splits together."""
        return sum(self.counts.values())

    @property
    def parts(self) -> list[str]:
        """Each split that lost images, such as "45 of 50 validation images"."""
        return [
            f"{count:,} of {size:,} {SPLIT_WORDS[split]} images"
            for split, size in self.sizes.items()
            if (count := self.counts.get(split, 0))
        ]

    @property
    def whole_splits(self) -> list[str]:
        """The splits that lost all of their images."""
        return [split for split, size in self.sizes.items() if 0 < size <= self.counts.get(split, 0)]

    @property
    def max_share(self) -> float:
        """The largest share that a split lost."""
        return max((self.counts.get(split, 0) / size for split, size in self.sizes.items() if size), default=0.0)


@dataclass(frozen=True, slots=True)
class Limit:
    """How many images may be left out: of all splits together, and as a share of each split."""

    max_images: int = MAX_BAD_IMAGES
    max_share: float = MAX_BAD_SHARE

    def exceeded(self, left_out: LeftOut) -> list[tuple[str, str]]:
        """The options that don't allow that many: each as it is, and with a value that would allow them."""
        found = []
        if left_out.total > self.max_images:
            found.append((f"--max-bad-images {self.max_images}", f"--max-bad-images {left_out.total}"))
        if left_out.max_share > self.max_share:
            found.append((f"--max-bad-share {self.max_share:g}", f"--max-bad-share {_rounded_up(left_out.max_share)}"))
        return found


def _rounded_up(share: float) -> str:
    """A share above 0 with two digits, not below it."""
    digits = 1 - math.floor(math.log10(share))
    rounded = math.ceil(share * 10**digits) / 10**digits
    # The division may have rounded down.
    return f"{min(1.0, rounded if rounded >= share else rounded + 10**-digits):.{digits}f}".rstrip("0").rstrip(".")
