"""Folders whose sub-folders are classes: which these are, which images they hold, and what is passed over there."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.notes import Note
from models.words import count_of
from pipelines.columns import Numbers, Texts
from pipelines.errors import DataError
from pipelines.image_lists import ImageList, first_ten, shown

# What DALI's decoders read and people keep images in; tests decode one of each. Compared in lower case: ImageNet's own
# files end in .JPEG.
IMAGE_EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".jp2", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip

# What file systems, storage and operating systems put into folders; hidden folders are passed over, too.
NO_CLASSES = frozenset(
    (
        "lost+found", "@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "recycler",
        "system volume information", "__pycache__", "@tmp", "aquota.user", "aquota.group",
    )
)  # fmt: skip
_KINDS_NAMED = 5
_FOLDERS_NAMED = 3


@dataclass(slots=True)
class PassedOver:
    """What a split's folder holds besides images: the files by their endings, and the folders by their names."""

    files: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)

    def describe(self, split: str) -> str:
        """Returns a sentence such as "passed over in train: 3 files (2 .txt, 1 .gif)"; "" if there is nothing."""
        parts = []
        if self.files:
            parts.append(f"{count_of(self.files.total(), 'file')} ({_most(self.files, _KINDS_NAMED)})")
        if self.folders:
            names = Counter({shown(name): count for name, count in self.folders.items()})
            parts.append(f"{count_of(self.folders.total(), 'folder')} ({_most(names, _FOLDERS_NAMED)})")
        if not parts:
            return ""
        return Note(
            f"passed over in {split}: {', '.join(parts)}", "Give images that lack it the ending of their format (.jpg)."
        )


def _most(counts: Counter[str], limit: int) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {name}" for name, count in ordered[:limit]]
    return ", ".join([*named, *(["..."] if len(counts) > limit else [])])


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")


def _is_class(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in NO_CLASSES


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of a folder's class folders, sorted as text. Raises DataError if the folder can't be read."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for entry in entries if _is_class(entry.name) and entry.is_dir()))
    except OSError as error:
        raise DataError(f"the folder {shown(folder)} cannot be read: {error.strerror}") from error


def flat_images(folder: Path) -> tuple[list[str], PassedOver]:
    """The names of the images directly in a folder, sorted. Raises DataError if the folder can't be read."""
    passed = PassedOver()
    try:
        return _images(folder, passed), passed
    except OSError as error:
        raise DataError(f"the folder {shown(folder)} cannot be read: {error.strerror}") from error


def scan_class_folders(
    folder: Path, root: Path, labels: Mapping[str, int], *, all_filled: bool = False
) -> tuple[ImageList, PassedOver]:
    """List the images below folder, where each sub-folder is a class with the label that labels has for its name.

    Classes are in the order of their labels and files are sorted by name. Files that are no images, hidden ones, and
    folders that are no classes are passed over, and counted. A class may be absent or empty, unless all_filled. Paths
    are relative to root; folder must be below it. Raises DataError for an unreadable folder, one without class folders
    or images, an empty class if all_filled, and a class that is not in labels.
    """
    prefix = folder.relative_to(root).as_posix()
    passed = PassedOver()
    found = class_names(folder)
    try:
        _pass_over(passed, folder, (name for name in os.listdir(folder) if name not in set(found)))  # noqa: PTH208
        files = {
            name: Texts.of([f"{prefix}/{name}/{file}" for file in _images(folder / name, passed)]) for name in found
        }
    except OSError as error:
        raise DataError(f"the folder {shown(folder)} cannot be read: {error.strerror}") from error

    if not found:
        raise DataError(
            f"the folder {shown(folder)} holds no class folders",
            f"Sort its images into one folder per class, or list them in {folder.name}_list.txt (lines `path label`).",
        )
    unknown = _unknown(found, labels)
    if unknown:
        raise DataError(
            f"{len(unknown):,} of {len(found):,} class folders in {shown(folder)} are not classes of the training"
            " set:\n" + first_ten(unknown),
            f"The training set has {len(labels):,} classes; rename or remove these folders.",
        )
    if not any(files.values()):
        raise DataError(
            f"none of the {len(found):,} class folders in {shown(folder)} holds an image",
            f"Images end in {', '.join(IMAGE_EXTENSIONS)} and lie directly in their class's folder.",
        )
    empty = [shown(name) for name in found if not files[name]] if all_filled else []
    if empty:
        raise DataError(
            f"{len(empty):,} of {len(found):,} class folders in {shown(folder)} hold no image:\n" + first_ten(empty),
            "Each folder there counts as a class of the model: fill these, or remove them.",
        )
    ordered = sorted(found, key=lambda name: labels[name])
    classes = np.array([labels[name] for name in ordered], np.int32)
    counts = [len(files[name]) for name in ordered]
    return ImageList(root, Texts.joined([files[name] for name in ordered]), Numbers(np.repeat(classes, counts))), passed


def _unknown(names: Iterable[str], labels: Mapping[str, int]) -> list[str]:
    """The names that labels lacks, quoted; with the one that it has in their place if both look alike."""
    known = {unicodedata.normalize("NFC", name): name for name in labels}
    lines = []
    for name in names:
        if name not in labels:
            twin = known.get(unicodedata.normalize("NFC", name))
            # Escaped, as the two can't be told apart otherwise.
            alike = f"{name!a}, where training has {twin!a}: only the accents are stored in another way"
            lines.append(shown(name) if twin is None else alike)
    return lines


def _images(folder: Path, passed: PassedOver) -> list[str]:
    # Names stay plain strings: a Path object per file would take minutes for ImageNet.
    names = os.listdir(folder)  # noqa: PTH208
    images = sorted(name for name in names if is_image(name))
    if len(images) < len(names):
        _pass_over(passed, folder, (name for name in names if not is_image(name)))
    return images


def _pass_over(passed: PassedOver, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if os.path.isdir(folder / name):  # noqa: PTH112 - it doesn't raise for a folder that can't be accessed
            passed.folders[name] += 1
        else:
            stem, dot, ending = name.rpartition(".")
            passed.files[f".{ending.lower()}" if stem and dot else "hidden" if dot else "without an ending"] += 1
