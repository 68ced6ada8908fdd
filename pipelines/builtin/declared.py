"""What is known about a built-in data set without making it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.augmentation import Augmentation


@dataclass(frozen=True, slots=True)
class BuiltinSet:
    """A built-in data set, as a plan needs it.

    folder makes the set's folder if necessary and returns it; it raises DataError if that fails. images are the numbers
    of images by split. origin says where the classes are from, as `pipelines.classes.Classes` does.
    """

    folder: Callable[[], Path]
    images: Mapping[str, int]
    num_classes: int
    origin: str
    augmentation: Augmentation = field(default_factory=Augmentation)
