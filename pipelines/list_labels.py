"""What the labels in lists mean: checked against the folders that images lie in, and against ImageNet's numberings."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from models.notes import Note
from pipelines.errors import DataError
from pipelines.image_lists import ImageList, first_ten, shown
from pipelines.imagenet.numbering import (
    EXAMPLE,
    IMAGENET_CLASSES,
    are_wnids,
    kit_number_of_label,
    known_label,
    validation_image_number,
)
from pipelines.list_files import ListFile

# How a list numbers ImageNet's classes: by sorted WordNet IDs from 0 or from 1, or as the development kit does (from
# 1), or that minus 1; or its labels are the numbers of the images.
SORTED, SORTED_FROM_1, KIT, KIT_FROM_0, RUNNING = "sorted", "sorted from 1", "kit", "kit from 0", "running"
# Images looked at to recognise a numbering. The step between them must not be one between the known images.
_MAX_LOOKED_AT = 60_000


def _sampled(images: ImageList) -> range:
    step = max(1, len(images) // _MAX_LOOKED_AT)
    return range(0, len(images), step if step % 2 and step % 5 else step + 1 if (step + 1) % 5 else step + 3)


def numbering_of(images: ImageList) -> str | None:
    """How a list numbers ImageNet's classes, from the images whose class is known; None if it can't be told."""
    votes = dict.fromkeys((SORTED, KIT, KIT_FROM_0, SORTED_FROM_1), 0)
    known = running = numbered = 0
    for index in _sampled(images) if len(images) > _MAX_LOOKED_AT else range(len(images)):
        path, label = images.paths[index], images.labels[index]
        if (number := validation_image_number(path)) is not None:
            numbered += 1
            running += number == label
        true = known_label(path)
        if true is None:
            continue
        known += 1
        kit = kit_number_of_label()[true]
        votes[SORTED] += label == true
        votes[KIT] += label == kit
        votes[KIT_FROM_0] += label == kit - 1
        votes[SORTED_FROM_1] += label == true + 1
    if numbered > 1 and running == numbered:
        return RUNNING
    best = max(votes, key=lambda name: votes[name])
    return best if known and 2 * votes[best] > known else None


def check_numbering(file: ListFile) -> str | None:
    """Returns the numbering that a list was recognised by. Raises DataError for one that no model's outputs have."""
    numbering = numbering_of(file.images)
    if numbering in (None, SORTED):
        return numbering
    cure = _convert(file)
    if numbering == RUNNING:
        cure = (
            "Make a list from Kaggle's LOC_val_solution.csv, or the kit's ILSVRC2012_validation_ground_truth.txt:"
            " python run_bench.py import-labels FILE NEW_LIST"
        )
    what = {
        KIT: "the numbers of ImageNet's development kit (1 to 1000)",
        KIT_FROM_0: "the numbers of ImageNet's development kit minus 1",
        SORTED_FROM_1: "ImageNet's classes counted from 1",
        RUNNING: "the numbers of the images, not those of classes",
    }[numbering or ""]
    raise DataError(
        f"the labels of {shown(file.file)} are {what}{_example(file, numbering)}. Weights and class folders count"
        f" ImageNet's classes from 0 in the order of sorted WordNet IDs ({EXAMPLE})",
        cure,
    )


def _example(file: ListFile, numbering: str | None) -> str:
    for index, (path, label) in enumerate(zip(file.images.paths, file.images.labels, strict=True)):
        if (true := known_label(path)) is not None and true != label and numbering != RUNNING:
            return f": {file.where(index)} gives {shown(path)} the label {label}, where {true} is right"
    return ""


def _convert(file: ListFile) -> str:
    if file.images.extents is not None:
        return "If they only begin at another number: first_label = 1 in dataset.toml. Otherwise pack the images again."
    new = file.file.with_name(f"{file.file.stem}.converted{file.file.suffix}")
    command = f"python run_bench.py import-labels {shlex.quote(str(file.file))} {shlex.quote(str(new))}"
    option = "--val-list" if "val" in file.file.name else "--train-list"
    return f"Convert it: {command}, and use the result by {option} {shlex.quote(str(new))} or in place of the list."


def folder_labels(file: ListFile) -> dict[str, int] | None:
    """The label of each folder in which a list's images lie, by the folder's name; None if folders aren't classes.

    They are classes if there are several, and each has images of one label only. Shards are no folders.
    """
    folders, labels = file.folders, file.images.labels.array
    extents = file.images.extents
    if extents is not None and not {posixpath.basename(name) for name in extents.files}.isdisjoint(folders.names):
        return None
    of_folder = np.zeros(len(folders.names), np.int64)
    of_folder[folders.numbers] = labels
    if not np.array_equal(of_folder[folders.numbers], labels):
        return None
    found = dict(zip(folders.names, of_folder.tolist(), strict=True))
    # Labels that no two folders share: otherwise folders may be anything, such as one for each day.
    return found if len(found) > 1 and len(set(found.values())) == len(found) else None


def check_range(file: ListFile, count: int, origin: str) -> None:
    """Raise DataError if a label has no output among those of a model with count classes."""
    labels = file.images.labels
    lowest, highest = labels.smallest(), labels.largest()
    if highest < count:
        return
    outside = np.flatnonzero(labels.array >= count).tolist()
    # One label alone says nothing about where a list begins to count.
    if 0 < lowest < count == highest:
        cure = (
            f"The labels run from {lowest} to {count} and none is 0, so they probably count from 1: subtract 1"
            " from each label, in all lists of the data set."
        )
    else:
        cure = f"Labels count from 0, so that {count:,} classes allow 0..{count - 1} ({origin})."
        if "weights" not in origin:
            cure += f" If the list is right: --classes {highest + 1}"
    raise DataError(
        f"{len(outside):,} of {len(labels):,} lines of {shown(file.file)} have a label outside 0..{count - 1}:\n"
        + first_ten(
            [f"{file.where(index)}: label {labels[index]} of {shown(file.images.paths[index])}" for index in outside]
        ),
        cure,
    )


def check_against_folders(file: ListFile, labels: Mapping[str, int], where: str) -> bool:
    """Whether a list's images lie in class folders whose labels are known from `where`.

    Raises DataError if the list gives them other labels.
    """
    if not labels:
        return False
    # -1 where a folder isn't known.
    of_folder = np.array([labels.get(name, -1) for name in file.folders.names])
    meant = of_folder[file.folders.numbers]
    inside = bool((of_folder >= 0).any())
    wrong = [
        f"{file.where(index)}: {shown(file.images.paths[index])} has label {file.images.labels[index]};"
        f" folder {shown(file.folders.names[file.folders.numbers[index]])} is {meant[index]}"
        for index in np.flatnonzero((meant >= 0) & (meant != file.images.labels.array)).tolist()
    ]
    if wrong:
        raise DataError(
            f"{len(wrong):,} labels of {shown(file.file)} contradict the folders that the images lie in, as {where}"
            " numbers them:\n" + first_ten(wrong),
            "Correct the list, or list both splits (train_list.txt and val_list.txt) with the same numbering.",
        )
    return inside


def check_lists_agree(first: ListFile, second: ListFile) -> None:
    """Raise DataError if two lists give a class folder of the same name different labels."""
    one, other = folder_labels(first), folder_labels(second)
    if one is None or other is None:
        return
    wrong = [
        f"{shown(name)}: {one[name]} in {first.file.name}, {other[name]} in {second.file.name}"
        for name in one
        if name in other and one[name] != other[name]
    ]
    if wrong:
        raise DataError(
            f"{shown(first.file)} and {shown(second.file)} give {len(wrong):,} class folders different labels:\n"
            + first_ten(wrong),
            "Correct one of the lists: a class has the same label in both.",
        )


def check_wnid_folders(file: ListFile, count: int, numbering: str | None) -> str:
    """Returns a note if a list numbers the folders of WordNet IDs in an order of its own; "" otherwise.

    Raises DataError if the model has ImageNet's 1000 classes and the list's labels are others.
    """
    found = folder_labels(file)
    if found is None or not are_wnids(found) or numbering == SORTED or any(known_label(f"{n}/") is None for n in found):
        return ""
    if count == IMAGENET_CLASSES:
        name, label = next((name, label) for name, label in found.items() if label != known_label(f"{name}/"))
        raise DataError(
            f"the labels of {shown(file.file)} are not ImageNet's, whose 1000 classes the model has: {shown(name)} has"
            f" label {label} there, and is {known_label(f'{name}/')} of ImageNet's",
            _convert(file),
        )
    if _in_order(found):
        return ""
    return Note(
        f"{file.file.name} numbers the WordNet IDs in an order of its own: weights trained elsewhere expect another",
        "run_bench.py import-labels writes lists with ImageNet's own labels.",
    )


def number_folders_note(file: ListFile) -> str:
    """Returns a note if a list gives folders whose names are numbers other labels than these numbers suggest."""
    found = folder_labels(file)
    if found is None or not all(name.isascii() and name.isdigit() for name in found):
        return ""
    numbers = {name: int(name) for name in found}
    if all(numbers[name] == label for name, label in found.items()) or _in_order(found, numbers):
        return ""
    name = next(name for name, label in found.items() if label != numbers[name])
    order = ", as if the numbers were sorted as text" if _in_order(found) else ""
    return Note(
        f"{file.file.name} gives folder {shown(name)} the label {found[name]}{order}: weights must count likewise",
        "Give weights that were trained with these lists, or lists that the weights were trained with.",
    )


def _in_order(found: Mapping[str, int], keys: Mapping[str, int] | None = None) -> bool:
    """Whether labels are in the order of names, or of keys."""
    ordered: Sequence[str] = sorted(found, key=lambda name: (keys[name] if keys else 0, name))
    labels = [found[name] for name in ordered]
    return labels == sorted(labels)
