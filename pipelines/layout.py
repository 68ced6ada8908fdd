"""Where a data set's folder has its images and labels: lists, class folders, shards, or a flat val/ of ImageNet's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from models.notes import Note
from pipelines.class_folders import class_names, flat_images, scan_class_folders
from pipelines.classes import Classes, Wanted, are_numbers, classes_of_folders, classes_of_lists
from pipelines.columns import Numbers
from pipelines.errors import DataError
from pipelines.image_lists import ImageList, shown
from pipelines.imagenet.numbering import IMAGENET_CLASSES, are_wnids, label_of_wnid
from pipelines.imagenet.validation import KAGGLE_FILE, KIT_FILE, VALIDATION_IMAGES, find_validation_labels
from pipelines.list_files import ListFile, read_list
from pipelines.list_labels import (
    SORTED,
    check_against_folders,
    check_lists_agree,
    check_numbering,
    check_range,
    check_wnid_folders,
    folder_labels,
    number_folders_note,
)
from pipelines.packed.shards import Shards, find_shards, list_shards

TRAIN_SPLIT, VAL_SPLIT = "train", "val"
SPLITS = (TRAIN_SPLIT, VAL_SPLIT)
LISTED, FOLDERS, FLAT, ABSENT = "a list", "class folders", "images without class folders", "absent"
PACKED = "shards"
# What has a label for each image, rather than for each folder.
_WITH_LABELS = (LISTED, PACKED)


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists, and the folder that their paths are relative to, where they are not in the data set's folder."""

    train_list: str | None = None
    val_list: str | None = None
    image_root: str | None = None

    def of(self, split: str) -> str | None:
        """The list of a split; None where it is in the data set's folder, if there is one."""
        return {TRAIN_SPLIT: self.train_list, VAL_SPLIT: self.val_list}[split]


@dataclass(frozen=True, slots=True)
class Opened:
    """The splits of a data set, its classes, and what a user should know about how it was read."""

    classes: Classes
    splits: Mapping[str, ImageList]
    notes: tuple[str, ...]


class Layout:
    """A data set's folder, of which the named splits are needed; None: those that are there.

    wanted is the number of classes if it is known before; evaluated: it is that of weights that are only evaluated.
    with_labels: whether images without labels are of no use. If they are, they have the label 0 and a note. first_label
    is where labels in shards begin to count.
    """

    def __init__(
        self,
        folder: Path,
        lists: Lists,
        splits: tuple[str, ...] | None,
        *,
        evaluated: bool,
        with_labels: bool = True,
        first_label: int = 0,
    ) -> None:
        self._folder, self._root = folder, folder if lists.image_root is None else Path(lists.image_root)
        self._evaluated, self._with_labels, self._first_label = evaluated, with_labels, first_label
        self._shards: dict[str, Shards] = {}
        own = {split: folder / f"{split}_list.txt" for split in SPLITS}
        self._lists = {split: Path(named) if (named := lists.of(split)) else own[split] for split in SPLITS}
        # The training images may say what the validation's labels are; nothing else is looked at without need.
        self._kinds = {
            split: self._kind(split, given=lists.of(split) is not None)
            if splits is None or split in (*splits, TRAIN_SPLIT)
            else ABSENT
            for split in SPLITS
        }
        self._required = splits or ()
        self._needed = splits or tuple(split for split in SPLITS if self._kinds[split] != ABSENT)
        self._notes: list[str] = []
        self._flat: ImageList | None = None

    def _kind(self, split: str, *, given: bool) -> str:
        folder = self._folder / split
        if given or self._lists[split].exists():
            return LISTED
        if folder.is_dir() and class_names(folder):
            return FOLDERS
        has_images = folder.is_dir() and bool(flat_images(folder)[0])
        if not has_images and (shards := find_shards(self._folder, split)) is not None:
            self._shards[split] = shards
            return PACKED
        # Images directly in train/ have no labels, which the scan for class folders reports.
        if split == TRAIN_SPLIT and folder.is_dir():
            return FOLDERS
        return FLAT if has_images else ABSENT

    def open(self, wanted: Wanted | None, choices: str) -> Opened:
        """Read the needed splits. Raises DataError if one is missing, or its labels can't be what they should be."""
        for split in self._required:
            if self._kinds[split] == ABSENT:
                self._refuse_absent(split, choices)
        if not self._needed:
            self._refuse_absent(TRAIN_SPLIT, choices)
        files = {split: self._read(split) for split in SPLITS if self._reads_list(split)}
        numberings = {split: check_numbering(file) for split, file in files.items()}
        if VAL_SPLIT in self._needed and self._kinds[VAL_SPLIT] == FLAT:
            self._read_flat()
        beside_imagenet = self._flat is not None or SORTED in numberings.values()
        names = self._class_folder()
        if names is not None:
            found = classes_of_folders(
                class_names(names), shown(names), wanted, evaluated=self._evaluated, beside_imagenet=beside_imagenet
            )
        else:
            labels = [file.images.labels for file in files.values()] + ([self._flat.labels] if self._flat else [])
            found = self._of_lists(labels, wanted, imagenet=beside_imagenet)
        for split, file in files.items():
            if names is not None:
                _check_beside_folders(file, found, shown(names))
            check_range(file, found.count, found.origin)
            if names is None and numberings[split] is None:
                self._check_beside_unread_folders(file, wanted)
            if names is None:
                found = found.noted(check_wnid_folders(file, found.count, numberings[split]), number_folders_note(file))
        if len(files) == len(SPLITS):
            check_lists_agree(files[TRAIN_SPLIT], files[VAL_SPLIT])
        splits = {split: self._images(split, files, found) for split in self._needed}
        there = {split: images for split, images in splits.items() if images is not None}
        if not there:
            raise DataError(f"nothing in {shown(self._folder)} can be read: {'; '.join(self._notes)}", choices)
        return Opened(found, there, tuple(self._notes))

    def _refuse_absent(self, split: str, choices: str) -> None:
        if split == TRAIN_SPLIT:
            raise DataError(
                f"{shown(self._folder)} holds neither train_list.txt nor a folder train nor shards", choices
            )
        raise DataError(
            f"{shown(self._folder)} has no validation images, neither val_list.txt nor images in a folder val, so a run"
            " can't end with a top-1",
            "Add val_list.txt or a val/ folder, or measure with --throughput-only.",
        )

    def _read(self, split: str) -> ListFile:
        """The split's list, or the images in its shards, each of which counts as a line."""
        if self._kinds[split] == LISTED:
            return read_list(self._lists[split], self._root)
        images, notes = list_shards(self._shards[split], self._first_label, with_labels=self._with_labels)
        self._notes.extend(notes)
        return ListFile(self._folder / split, images, range(1, len(images) + 1))

    def _reads_list(self, split: str) -> bool:
        if self._kinds[split] not in _WITH_LABELS:
            return False
        # Without images of its own to read, the training list says which label each of val's folders has.
        tells = split == TRAIN_SPLIT and VAL_SPLIT in self._needed and self._kinds[VAL_SPLIT] == FOLDERS
        return split in self._needed or tells

    def _class_folder(self) -> Path | None:
        """The folder whose sub-folders are the classes; None if lists have the labels."""
        train, val = self._kinds[TRAIN_SPLIT], self._kinds[VAL_SPLIT]
        val_folders = VAL_SPLIT in self._needed and val == FOLDERS
        if train == FOLDERS and TRAIN_SPLIT in self._needed:
            return self._folder / TRAIN_SPLIT
        if val_folders and train == FOLDERS and class_names(self._folder / TRAIN_SPLIT):
            return self._folder / TRAIN_SPLIT
        return self._folder / VAL_SPLIT if val_folders and train not in _WITH_LABELS else None

    def _check_beside_unread_folders(self, file: ListFile, wanted: Wanted | None) -> None:
        """Check an evaluation's list against train/, though its images aren't read: its folders may be the weights'.

        They are if there is one for each of the weights' outputs; DataError is raised if the list contradicts these.
        """
        folder = self._folder / TRAIN_SPLIT
        if not self._evaluated or wanted is None or self._kinds[TRAIN_SPLIT] != FOLDERS:
            return
        labels: Mapping[str, int] = {}
        with suppress(DataError):  # an evaluation needs no training images
            names = class_names(folder)
            if len(names) == wanted.count:
                labels = classes_of_folders(names, shown(folder), wanted, evaluated=True).labels
        check_against_folders(file, labels, shown(folder))

    def _read_flat(self) -> None:
        """Find the labels of the images that lie directly in val/."""
        folder = self._folder / VAL_SPLIT
        names, passed = flat_images(folder)
        self._note(passed.describe(VAL_SPLIT))
        found = find_validation_labels(self._folder)
        if found is None:
            return
        self._flat = found.list_images(names, self._folder, VAL_SPLIT)
        few = "" if len(names) == VALIDATION_IMAGES else f" of {VALIDATION_IMAGES:,}"
        self._note(f"val: {len(names):,}{few} images in one folder, with the labels in {found.file.name}")

    def _of_lists(self, labels: list[Numbers], wanted: Wanted | None, *, imagenet: bool) -> Classes:
        if not labels:  # only images without labels
            count = wanted.count if wanted is not None else IMAGENET_CLASSES
            return Classes(count, {}, f"{count:,}, as no label is known")
        return classes_of_lists(labels, wanted, imagenet=imagenet)

    def _images(self, split: str, files: Mapping[str, ListFile], found: Classes) -> ImageList | None:
        """The images of a split; None for one that isn't required, and whose labels aren't known."""
        if split in files:
            return files[split].images
        folder, kind = self._folder / split, self._kinds[split]
        if kind == FLAT:
            if self._flat is not None:
                if self._flat.labels.largest() >= found.count:
                    raise DataError(
                        f"the labels of {shown(folder)} are ImageNet's, 0 to 999, but there are {found.count:,} classes"
                        f" ({found.origin})",
                        f"To use ImageNet's labels: --classes {IMAGENET_CLASSES}",
                    )
                return self._flat
            names, _ = flat_images(folder)
            paths = tuple(f"{split}/{name}" for name in names)
            return self._without_labels(
                split,
                f"{shown(folder)} holds images and no class folders, and there are no labels for them: neither"
                f" val_list.txt, nor Kaggle's {KAGGLE_FILE} or the development kit's {KIT_FILE} beside it or up to"
                " three folders above",
                ImageList(self._folder, paths, (0,) * len(paths)),
            )
        labels: Mapping[str, int] = found.labels
        if not labels:  # the training list has them
            names_here = class_names(folder)
            learned = _learned(files[TRAIN_SPLIT], names_here, found.count)
            if learned is None:
                images, _ = scan_class_folders(folder, self._folder, dict.fromkeys(names_here, 0))
                why = f"the training list doesn't say which label each of the class folders in {shown(folder)} has"
                return self._without_labels(split, why, images)
            labels = learned
        images, passed = scan_class_folders(folder, self._folder, labels, all_filled=split == TRAIN_SPLIT)
        self._note(passed.describe(split))
        return images

    def _without_labels(self, split: str, why: str, images: ImageList) -> ImageList | None:
        if self._with_labels:
            if split in self._required:
                raise DataError(why, f"List the images in {split}_list.txt (lines `path label`).")
            self._note(
                Note(f"{split} is left out: {why}", f"List its images in {split}_list.txt (lines `path label`).")
            )
            return None
        self._note(
            Note(
                f"the labels of {split} are not checked: {why}",
                f"List its images in {split}_list.txt (lines `path label`).",
            )
        )
        return images

    def _note(self, text: str) -> None:
        if text:
            self._notes.append(text)


def _check_beside_folders(file: ListFile, found: Classes, where: str) -> None:
    """Check a list beside class folders. Raises DataError if it contradicts them, or could mean other numbers."""
    if check_against_folders(file, found.labels, where) or not found.numbered_folders:
        return
    numbers = {int(name): label for name, label in found.labels.items()}
    if all(number == label for number, label in numbers.items()):
        return
    labels = file.images.labels.counts().keys()
    if labels <= numbers.keys():
        raise DataError(
            f"the class folders in {where} are numbers, of which folder {min(numbers)} is label 0, and the labels of"
            f" {shown(file.file)} may be the folders' numbers or their labels: all of them are folders' numbers",
            f"If they are the folders' numbers: --classes {max(numbers) + 1}. Otherwise list the training images, too"
            " (train_list.txt).",
        )


def _learned(train: ListFile, names: tuple[str, ...], count: int) -> dict[str, int] | None:
    """The label of each class folder, as the training list has it; None if it doesn't say."""
    known = folder_labels(train)
    if known is not None and all(name in known for name in names):
        return {name: known[name] for name in names}
    if count == IMAGENET_CLASSES and are_wnids(names) and all(name in label_of_wnid() for name in names):
        return {name: label_of_wnid()[name] for name in names}
    if known is None and are_numbers(names) and len({int(name) for name in names}) == len(names):
        labels = {name: int(name) for name in names}
        return labels if max(labels.values()) < count and 0 in labels.values() else None
    return None
