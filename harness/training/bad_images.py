"""The images that a run can't use: reported by the rank that finds them, shared with all; too many end the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from harness.artifacts.bad_image import BadImage
from harness.plan.options import FAIL
from pipelines.errors import DataError
from pipelines.image_lists import ImageList, shown
from pipelines.sampling import Position

if TYPE_CHECKING:  # what needs neither Paddle nor DALI is tested without them
    from harness.training.ranks import Ranks
    from pipelines.bad_image_probe import Fault


@dataclass(slots=True)
class BadImages:
    """The bad images that a rank knows of: those that all ranks know, and those it has found and not shared yet.

    policy "fail" ends the run at the first one, "skip" at more than max_images on all ranks together. record is called
    once for each image that all ranks know.
    """

    policy: str
    max_images: int
    ranks: Ranks
    known: dict[tuple[str, int], BadImage] = field(default_factory=dict)
    record: Callable[[BadImage], None] = lambda _: None
    unshared: list[BadImage] = field(default_factory=list)

    def report(self, split: str, images: ImageList, faults: Sequence[Fault], position: Position) -> None:
        """Note the faults that a source found. Raises DataError when there are more than the run allows."""
        found = [
            BadImage(split, f.index, images.paths[f.index], images.labels[f.index], f.reason,
                     self.ranks.rank, position.epoch + 1)
            for f in faults
        ]  # fmt: skip
        self.unshared += [image for image in found if (image.split, image.index) not in self.known]
        enforce_limit(self.policy, self.max_images, [*self.known.values(), *self.unshared])

    def share(self) -> None:
        """Share bad images with the other ranks; every rank calls this at the same moment.

        Raises DataError, on every rank, when there are more than the run allows.
        """
        texts = self.ranks.exchange(json.dumps([asdict(image) for image in self.unshared]))
        self.unshared.clear()
        for text in texts:
            for values in json.loads(text):
                image = BadImage(**values)
                if (image.split, image.index) not in self.known:
                    self.known[image.split, image.index] = image
                    self.record(image)
        enforce_limit(self.policy, self.max_images, self.known.values())

    def of(self, split: str) -> frozenset[int]:
        """Indices of a split's bad images that all ranks know."""
        return frozenset(index for name, index in self.known if name == split)


def enforce_limit(policy: str, max_images: int, bad: Iterable[BadImage]) -> None:
    """Raise DataError when there are more bad images than a run allows: none with "fail", max_images with "skip"."""
    images = list(bad)
    named = "\n".join(f"  {shown(image.path)}: {image.reason}" for image in reversed(images[-10:]))
    if policy == FAIL and images:
        raise DataError(
            f"{len(images):,} of the images can't be used, and --bad-images is fail:\n{named}",
            "Repair them, remove them from the list, or leave them out of the run with --bad-images skip.",
        )
    if len(images) > max_images:
        raise DataError(
            f"more than {max_images} images can't be used, {len(images):,} so far; the last ones:\n{named}",
            "List all of them with run_bench.py verify, or allow more with --max-bad-images.",
        )
