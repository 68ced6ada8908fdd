"""The numberings of ILSVRC2012's 1000 classes: by sorted WordNet ID, as everybody uses, and the development kit's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

IMAGENET_CLASSES = 1000
# The label of each of the 50,000 validation images is known from the kit; only some are kept here.
VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})(?:_n\d{8})?")
WNID = re.compile(r"n\d{8}")
_WNID_IN_A_NAME = re.compile(r"^(n\d{8})_|_(n\d{8})$")
_HERE = Path(__file__).parent

# The tench: with it, messages show how the two numberings differ.
EXAMPLE = "the tench, n01440764, is 0 by sorted WordNet IDs, and 449 in the development kit"


@cache
def _table() -> dict[str, int]:
    """The development kit's number of each WordNet ID, in the order of sorted WordNet IDs."""
    return {words[0]: int(words[1]) for words in _lines("classes.txt")}


@cache
def wnids() -> tuple[str, ...]:
    """The WordNet IDs of the 1000 classes in sorted order: a class's position is its label."""
    return tuple(_table())


@cache
def label_of_wnid() -> dict[str, int]:
    """The label of each of the 1000 WordNet IDs."""
    return {wnid: label for label, wnid in enumerate(wnids())}


@cache
def kit_number_of_label() -> tuple[int, ...]:
    """The development kit's number (1 to 1000) of each label."""
    return tuple(_table().values())


@cache
def label_of_kit_number() -> dict[int, int]:
    """The label of each of the development kit's numbers."""
    return {number: label for label, number in enumerate(kit_number_of_label())}


@cache
def known_validation_labels() -> dict[int, int]:
    """The labels of some validation images, by the number in their names."""
    return {int(words[0]): int(words[1]) for words in _lines("validation_labels.txt")}


def _lines(name: str) -> Iterable[list[str]]:
    text = (_HERE / name).read_text(encoding="ascii")
    return (line.split() for line in text.splitlines() if not line.startswith("#"))


def are_wnids(names: Iterable[str]) -> bool:
    """Whether all names are WordNet IDs, and there is one."""
    names = list(names)
    return bool(names) and all(WNID.fullmatch(name) for name in names)


def validation_image_number(path: str) -> int | None:
    """The number in the name of one of ILSVRC2012's validation images; None for another file."""
    name = path.rpartition("/")[2]
    found = VALIDATION_IMAGE.match(name)
    return int(found[1]) if found else None


def known_label(path: str) -> int | None:
    """The label that a path's folder or file name says or is known for, by sorted WordNet IDs; None if it says none."""
    folder, _, name = path.rpartition("/")
    wnid = folder.rpartition("/")[2]
    if wnid in label_of_wnid():
        return label_of_wnid()[wnid]
    number = validation_image_number(name)
    if number is not None and number in known_validation_labels():
        return known_validation_labels()[number]
    found = _WNID_IN_A_NAME.search(name.partition(".")[0])
    return label_of_wnid().get(found[1] or found[2]) if found else None
