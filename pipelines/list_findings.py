"""What is wrong with the lists of a data set: images and classes that only one split has, or that both have."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.dataset import Dataset
from pipelines.image_lists import ImageList
from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT

LEAK, TWICE = "leak", "twice"
_LABELS_NAMED = 10


@dataclass(frozen=True, slots=True)
class Kind:
    """What is wrong with images and what to do, for one image and for several; bad: whether the data set is unusable.

    Both texts follow a count.
    """

    one: str
    several: str
    bad: bool

    def describe(self, count: int) -> str:
        """Returns the sentence about that many images, such as "2 images are missing: restore them"."""
        return f"{count:,} {self.one if count == 1 else self.several}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with the image at an index of its list; kind is a key of `pipelines.verification.KINDS`."""

    index: int
    kind: str
    reason: str


KINDS_OF_LISTS = {
    LEAK: Kind(
        "validation image is also in the training list: remove it from one of them",
        "validation images are also in the training list: remove them from one of the lists",
        True,
    ),
    TWICE: Kind(
        "image is a repetition in its list: it counts as often as it is listed",
        "images are repetitions in their list: they count as often as they are listed",
        False,
    ),
}


def find_repeats(images: ImageList, others: ImageList | None = None) -> dict[int, list[Finding]]:
    """Images that the list repeats, and those that others lists, too, by index; only the paths are compared."""
    elsewhere = {_plain(path): index for index, path in enumerate(others.paths)} if others is not None else {}
    first: dict[str, int] = {}
    found: dict[int, list[Finding]] = {}
    for index, path in enumerate(images.paths):
        plain = _plain(path)
        before = first.setdefault(plain, index)
        if before != index:
            label = images.labels[before]
            under = "" if label == images.labels[index] else f", there with label {label}"
            found.setdefault(index, []).append(Finding(index, TWICE, f"also image {before + 1:,} of its list{under}"))
        if plain in elsewhere:
            reason = f"also image {elsewhere[plain] + 1:,} of the training list"
            found.setdefault(index, []).append(Finding(index, LEAK, reason))
    return found


def _plain(path: str) -> str:
    return posixpath.normpath(path) if "./" in path or "//" in path else path


def repeat_notes(dataset: Dataset) -> list[str]:
    """Images that are in both splits, or in one several times, in words; only the paths are compared."""
    train, val = (dataset.splits.get(split) for split in (TRAIN_SPLIT, VAL_SPLIT))
    notes = []
    if train is not None and val is not None:
        both = len({_plain(path) for path in train.paths} & {_plain(path) for path in val.paths})
        if both:
            notes.append(KINDS_OF_LISTS[LEAK].describe(both))
    for split, images in dataset.splits.items():
        repeated = len(images) - len({_plain(path) for path in images.paths})
        if repeated:
            notes.append(f"{split}: {KINDS_OF_LISTS[TWICE].describe(repeated)}")
    return notes


def label_notes(dataset: Dataset) -> list[str]:
    """Classes of which a split that was opened has no image, in words."""
    present = {split: set(images.labels) for split, images in dataset.splits.items()}
    notes = []
    for split, labels in present.items():
        # Validation may have only a few of the classes, but a class without training images can't be learnt.
        expected = range(dataset.num_classes) if split == TRAIN_SPLIT else sorted(present.get(TRAIN_SPLIT, ()))
        absent = [label for label in expected if label not in labels]
        if absent:
            of = f"the model's {dataset.num_classes:,}" if split == TRAIN_SPLIT else f"training's {len(expected):,}"
            have = "has" if len(absent) == 1 else "have"
            notes.append(f"{split}: {len(absent):,} of {of} classes {have} no image: {_listed(absent)}")
    if TRAIN_SPLIT in present and (only := sorted(present.get(VAL_SPLIT, set()) - present[TRAIN_SPLIT])):
        notes.append(f"val: {len(only):,} classes are in no training image, so they can't be learnt: {_listed(only)}")
    return notes


def _listed(labels: Sequence[int]) -> str:
    return ", ".join([*map(str, labels[:_LABELS_NAMED]), *(["..."] if len(labels) > _LABELS_NAMED else [])])
