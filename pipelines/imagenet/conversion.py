"""Converts lists of ImageNet's images that number its classes in another way to the labels that models have."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import DataError
from pipelines.image_lists import ImageList, first_ten, shown
from pipelines.imagenet.numbering import EXAMPLE, IMAGENET_CLASSES, known_label, label_of_kit_number
from pipelines.list_files import read_rows
from pipelines.list_labels import KIT, KIT_FROM_0, SORTED, SORTED_FROM_1, numbering_of

_SOURCES = "Correct the list, or give Kaggle's LOC_val_solution.csv or the development kit's file instead."


def converted_list(file: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The paths of a list as they are written, and their labels from 0 in the order of sorted WordNet IDs.

    Raises DataError for a list that has these labels already, and one whose labels can't be understood.
    """
    rows = read_rows(file)
    paths, labels = tuple(rows.paths), tuple(rows.labels)
    numbering = numbering_of(ImageList(file.parent, paths, labels))
    if numbering == SORTED:
        raise DataError(
            f"the labels of {shown(file)} count from 0 in the order of sorted WordNet IDs already ({EXAMPLE})",
            "Use it as it is.",
        )
    kit = label_of_kit_number()
    tables = {
        KIT: kit,
        KIT_FROM_0: {number - 1: label for number, label in kit.items()},
        SORTED_FROM_1: {label + 1: label for label in range(IMAGENET_CLASSES)},
    }
    known = [known_label(path) for path in paths]
    table = tables.get(numbering or "")
    new = known if table is None else [table.get(label) for label in labels]
    wrong = [
        f"{file.name}:{line}: label {label} of {shown(path)}"
        for line, path, label, made, true in zip(rows.lines, paths, labels, new, known, strict=True)
        if made is None or (true is not None and true != made)
    ]
    if wrong:
        what = "that no class of ImageNet's is known for" if table is None else "that contradict the others' numbering"
        raise DataError(
            f"{shown(file)} has {len(wrong):,} of {len(paths):,} lines {what}:\n" + first_ten(wrong), _SOURCES
        )
    return paths, tuple(label for label in new if label is not None)
