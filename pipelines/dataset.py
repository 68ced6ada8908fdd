"""What --data names: a folder or a built-in set, both opened in the same way."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pipelines.augmentation import Augmentation
from pipelines.builtin import BUILTIN
from pipelines.classes import Classes, wanted_classes
from pipelines.errors import DataError
from pipelines.image_lists import ImageList, shown
from pipelines.imagenet.numbering import IMAGENET_CLASSES, known_label, validation_image_number
from pipelines.imagenet.validation import VALIDATION_IMAGES
from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT, Layout, Lists
from pipelines.settings_file import SETTINGS_FILE, read_settings

# ILSVRC2012, the classification task of 2012 (Russakovsky et al., arXiv:1409.0575, table 2).
IMAGENET_TRAIN_IMAGES = 1_281_167
IMAGENET_VAL_IMAGES = VALIDATION_IMAGES
# Images spread over a list whose names are compared with their labels.
NAMES_LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set ready to read: the images of each split that was opened, by the split's name.

    builtin: the set came with the harness, so that its top-1 is never shown as ImageNet's. notes are what a user should
    know about how it was read. Raises ValueError for a split without images, and for a label for which the model would
    have no output.
    """

    name: str
    root: Path
    classes: Classes
    splits: Mapping[str, ImageList]
    augmentation: Augmentation
    builtin: bool
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, images in self.splits.items():
            if not images:
                raise ValueError(f"{self.name}: {split} holds 0 images; at least 1 is needed")
            lowest, highest = images.labels.smallest(), images.labels.largest()
            if not 0 <= lowest <= highest < self.num_classes:
                raise ValueError(
                    f"{self.name}: {split} has labels {lowest}..{highest}; "
                    f"{self.num_classes} classes allow 0..{self.num_classes - 1}"
                )

    @property
    def num_classes(self) -> int:
        """The model's number of outputs."""
        return self.classes.count

    @property
    def train(self) -> ImageList:
        """The training images. Raises KeyError if they were not opened."""
        return self.splits[TRAIN_SPLIT]

    @property
    def val(self) -> ImageList | None:
        """The validation images; None if there are none, or they were not opened."""
        return self.splits.get(VAL_SPLIT)


def open_dataset(
    data: str | Path,
    num_classes: int | None = None,
    *,
    outputs: int | None = None,
    splits: tuple[str, ...] | None = None,
    lists: Lists = Lists(),  # noqa: B008 - it is frozen
    with_labels: bool = True,
) -> Dataset:
    """Open the built-in set or the folder that data names; files are listed but not yet inspected (see check_files).

    A text that is a built-in set's name means that set, whatever folders there are; "./digits", or a Path, means the
    folder. A folder holds, for each split, train_list.txt or val_list.txt, or class folders below train or val, or
    shards (see `pipelines.packed.shards`); lists names lists elsewhere. dataset.toml in it may set name, num_classes,
    first_label and [augmentation]; the argument num_classes takes precedence. outputs are those of weights that are
    only evaluated. splits are those that must be there, and nothing else is read; None: those that are there.
    `pipelines.classes` says how classes are decided. with_labels: whether images whose labels aren't known are of no
    use. Raises DataError if the set can't be used in this way.
    """
    if num_classes is not None and num_classes < 1:
        raise DataError(f"{num_classes} classes asked for; at least 1 is needed", "--classes N takes a whole number.")
    builtin = isinstance(data, str) and data in BUILTIN
    if builtin and lists != Lists():
        raise DataError(
            f"{data!r} is a built-in set, which has its own lists",
            "Name the folder of your images with --data or --image-root.",
        )
    folder = BUILTIN[str(data)].folder() if builtin else Path(data)
    choices = f"--data takes a folder in ImageNet's layout or a built-in set: {', '.join(sorted(BUILTIN))}."
    _check_folder(folder, choices)
    if lists.image_root is not None:
        _check_folder(
            Path(lists.image_root), "--image-root takes the folder that the paths in the lists are relative to."
        )
    settings = read_settings(folder / SETTINGS_FILE)
    wanted = wanted_classes(num_classes, settings.num_classes, outputs)
    layout = Layout(
        folder,
        lists,
        splits,
        evaluated=outputs is not None,
        with_labels=with_labels,
        first_label=settings.first_label,
    )
    opened = layout.open(wanted, choices)
    plain = str(data) if builtin else os.path.basename(os.path.abspath(folder))  # noqa: PTH100, PTH119
    return Dataset(
        name=settings.name or plain or str(folder),
        root=folder,
        classes=opened.classes,
        splits=opened.splits,
        augmentation=settings.augmentation,
        builtin=builtin,
        notes=(*opened.classes.notes, *opened.notes),
    )


def _check_folder(folder: Path, cure: str) -> None:
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"no such folder: {shown(folder)}", cure) from None
    except (OSError, ValueError) as error:  # ValueError for a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"the folder {shown(folder)} cannot be opened: {reason}", cure) from error
    if not stat.S_ISDIR(mode):
        raise DataError(f"not a folder: {shown(folder)}", cure)


def fingerprint(dataset: Dataset) -> str:
    """A digest of the lists: files, order and labels. The place and the content of the files are not part of it."""
    digest = hashlib.sha256()
    for split, images in dataset.splits.items():
        digest.update(f"\0\0{split}\0{len(images)}\0".encode())
        for part in chain(images.paths.with_separator(b"\0"), images.labels.with_separator(b",")):
            digest.update(part)
    return digest.hexdigest()


def is_imagenet(dataset: Dataset) -> bool:
    """Whether the splits that were opened have ILSVRC2012's exact counts, and names that go with their labels.

    Only then may the set's top-1 be compared with published ones.
    """
    counts = {TRAIN_SPLIT: IMAGENET_TRAIN_IMAGES, VAL_SPLIT: IMAGENET_VAL_IMAGES}
    return dataset.num_classes == IMAGENET_CLASSES and all(
        len(images) == counts[split] and _has_imagenet_s_names(images) for split, images in dataset.splits.items()
    )


def _has_imagenet_s_names(images: ImageList) -> bool:
    """Whether the folder or the name of each image that is looked at says its label, or is one of validation's."""
    for index in range(0, len(images), max(1, len(images) // NAMES_LOOKED_AT)):
        label = known_label(images.paths[index])
        if label is None and validation_image_number(images.paths[index]) is None:
            return False
        if label is not None and label != images.labels[index]:
            return False
    return True
