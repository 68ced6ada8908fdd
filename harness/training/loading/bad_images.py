"""The images that a run can't use: reported by the rank that finds them, shared with all; too many end the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from harness.artifacts.bad_image import BadImage, BadImageRule
from pipelines.image_lists import ImageList
from pipelines.sampling import Position

if TYPE_CHECKING:  # what needs neither Paddle nor DALI is tested without them
    from harness.training.ranks import Ranks
    from pipelines.bad_image_probe import Fault


@dataclass(slots=True)
class BadImages:
    """The bad images that a rank knows of: those that all ranks know, and those it has found and not shared yet.

    rule says how many there may be, on all ranks together. record is called once for each image that all ranks know.
    """

    rule: BadImageRule
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
        self.rule.enforce([*self.known.values(), *self.unshared])

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
        self.rule.enforce(self.known.values())

    def of(self, split: str) -> frozenset[int]:
        """Indices of a split's bad images that all ranks know."""
        return frozenset(index for name, index in self.known if name == split)
