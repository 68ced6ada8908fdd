"""Which classes a data set has, and which label each of its class folders has: decided here, and explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from models.notes import Note
from models.words import count_of
from pipelines.columns import Numbers
from pipelines.errors import DataError
from pipelines.image_lists import shown
from pipelines.imagenet.numbering import IMAGENET_CLASSES, are_wnids, label_of_wnid

_MAX_DIGITS = 18
FROM_OPTION, FROM_SETTINGS, FROM_WEIGHTS = "--classes", "dataset.toml", "the weights' outputs"
_LIST_LABELS = "Write val_list.txt with lines `path label`, whose labels are the weights' outputs (from 0)."


@dataclass(frozen=True, slots=True)
class Classes:
    """A model's number of outputs, and what they stand for.

    labels are those of class folders by name; empty where lists alone have the labels. origin says in words where the
    classes are from, and notes what a user should know about them. imagenet: labels are ILSVRC2012's own.
    """

    count: int
    labels: Mapping[str, int]
    origin: str
    notes: tuple[str, ...] = ()
    imagenet: bool = False

    def noted(self, *notes: str) -> Classes:
        """The same with further notes; empty ones are left out."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))

    @property
    def numbered_folders(self) -> bool:
        """Whether the classes are folders whose names are numbers."""
        return are_numbers(tuple(self.labels))

    def pretrained_note(self) -> str:
        """Returns a note for a run that begins with weights; "" if folders sorted as text have the same labels."""
        if not self.numbered_folders:
            return ""
        orders = zip(sorted(self.labels), sorted(self.labels, key=lambda name: self.labels[name]), strict=True)
        other = next((name for name, own in orders if name != own), None)
        if other is None:
            return ""
        return Note(
            f"class folders are numbers and in their order: for weights that were trained on folders sorted as text,"
            f" folder {other!r} is class {sorted(self.labels).index(other)}, here it is {self.labels[other]}",
            "Name the folders with leading zeros, or give lists with the labels that the weights know.",
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A number of classes that is known before the data is: from --classes, dataset.toml or an evaluation's weights."""

    count: int
    source: str


def wanted_classes(asked: int | None, in_settings: int | None, outputs: int | None) -> Wanted | None:
    """The number of classes that is asked for, None if the data decides.

    outputs are those of the weights that are evaluated, None in other runs. Raises DataError if two of them differ.
    """
    given = [
        Wanted(count, source)
        for count, source in ((asked, FROM_OPTION), (in_settings, FROM_SETTINGS))
        if count is not None
    ]
    if outputs is None:
        return given[0] if given else None
    if given and given[0].count != outputs:
        cure = (
            "Omit --classes: an evaluation has as many classes as the weights have outputs."
            if given[0].source == FROM_OPTION
            else "Evaluate weights that were trained on these classes."
        )
        raise DataError(
            f"{given[0].source} says {count_of(given[0].count, 'class')}, but the weights have"
            f" {count_of(outputs, 'output')}",
            cure,
        )
    return given[0] if given else Wanted(outputs, FROM_WEIGHTS)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all names are whole numbers in decimal digits, and there is one."""
    return bool(names) and all(name.isascii() and name.isdigit() and len(name) <= _MAX_DIGITS for name in names)


def classes_of_folders(
    names: Sequence[str], where: str, wanted: Wanted | None, *, evaluated: bool = False, beside_imagenet: bool = False
) -> Classes:
    """The classes of folders with these names, in the folder that `where` names.

    Numbers 0 to n - 1 are their own labels; so are other numbers, if more classes than the largest are wanted;
    otherwise numbers are sorted as numbers. WordNet IDs have ImageNet's labels if 1000 classes are wanted, or if a list
    beside them has ImageNet's labels (beside_imagenet). All other names are sorted. evaluated: weights decide which
    label a class has, so that an order that only the weights' training knew is refused. Raises DataError if the classes
    can't be as wanted.
    """
    if beside_imagenet and not are_wnids(names) and not are_numbers(names):
        raise DataError(
            f"the class folders in {where} have names of their own, so it isn't known which of ImageNet's labels, which"
            " the list beside them has, each of them means",
            "List both splits (train_list.txt and val_list.txt), or name the folders by their WordNet IDs.",
        )
    if are_numbers(names):
        # Each number is its own label then, or it isn't known what it means.
        given = wanted or (
            Wanted(IMAGENET_CLASSES, "ImageNet's labels in the list beside") if beside_imagenet else None
        )
        found = _numbers(names, where, given, evaluated=evaluated or beside_imagenet)
    elif are_wnids(names):
        found = _wnids(names, where, wanted, evaluated=evaluated, beside_imagenet=beside_imagenet)
    else:
        found = _sorted_names(names, where, wanted, evaluated=evaluated)
    absent = found.count - len(names)
    if not absent:
        return found
    return found.noted(
        Note(
            f"{absent:,} of the model's {found.count:,} classes have no folder in {where}",
            "--classes sets the number of classes.",
        )
    )


def _origin(count: int, how: str, wanted: Wanted | None) -> str:
    if wanted is None:
        return f"{count:,}, from folder names{how and ', '}{how}"
    return f"{count:,}, from {wanted.source}; labels from folder names{how and ', '}{how}"


def _refuse_fewer(names: Sequence[str], where: str, wanted: Wanted | None) -> None:
    if wanted is not None and wanted.count < len(names):
        raise DataError(
            f"{where} holds {count_of(len(names), 'class folder')}, more than the"
            f" {count_of(wanted.count, 'class')} asked for ({wanted.source})",
            _LIST_LABELS if wanted.source == FROM_WEIGHTS else f"To train on all of them: --classes {len(names)}",
        )


def _refuse_unknown_order(names: Sequence[str], where: str, wanted: Wanted, why: str) -> None:
    raise DataError(
        f"{where} holds {count_of(len(names), 'class folder')}, and the weights have"
        f" {count_of(wanted.count, 'output')}: {why}",
        f"{_LIST_LABELS} Or add a folder train with all the class folders that the weights were trained on.",
    )


def _numbers(names: Sequence[str], where: str, wanted: Wanted | None, *, evaluated: bool) -> Classes:
    numbers: dict[int, str] = {}
    for name in names:
        if (other := numbers.setdefault(int(name), name)) != name:
            raise DataError(
                f"{where} holds two class folders of the same number: {shown(other)} and {shown(name)}",
                "Move the images of one of them into the other, and remove it.",
            )
    _refuse_fewer(names, where, wanted)
    ordered, largest = sorted(numbers), max(numbers)
    from_0_without_gaps = largest == len(numbers) - 1
    own = from_0_without_gaps or (wanted is not None and wanted.count > largest)
    if evaluated and wanted is not None and not from_0_without_gaps:
        if own and 1 in numbers and 0 not in numbers:
            why = "it isn't known whether folder '1' is label 1, or label 0 with another folder missing"
            _refuse_unknown_order(names, where, wanted, why)
        if not own and wanted.count != len(names):
            _refuse_unknown_order(names, where, wanted, "it isn't known which output each of these numbers means")
    count = wanted.count if wanted is not None else len(names)
    if own:
        labels = {name: number for number, name in numbers.items()}
        how = "as numbers"
        note = ""
    else:
        labels = {numbers[number]: label for label, number in enumerate(ordered)}
        how = "sorted as numbers"
        note = Note(
            f"the class folders in {where} are numbers from {ordered[0]} to {largest}, sorted as numbers: label 0 is"
            f" folder {shown(numbers[ordered[0]])}, label {len(names) - 1} is folder {shown(numbers[largest])}. With"
            f" --classes {largest + 1} each number is its own label",
            "--classes decides whether numbers are labels.",
        )
    return Classes(count, labels, _origin(count, how, wanted)).noted(note)


def _wnids(
    names: Sequence[str], where: str, wanted: Wanted | None, *, evaluated: bool, beside_imagenet: bool
) -> Classes:
    known = all(name in label_of_wnid() for name in names)
    if known and (beside_imagenet or (wanted is not None and wanted.count == IMAGENET_CLASSES)):
        count = wanted.count if wanted is not None else IMAGENET_CLASSES
        if count < IMAGENET_CLASSES:
            raise DataError(
                f"{count_of(count, 'class')} were asked for ({wanted.source if wanted else ''}), but a list beside the"
                f" class folders in {where} has ImageNet's labels, 0 to 999",
                f"To train with ImageNet's labels: --classes {IMAGENET_CLASSES}",
            )
        labels = {name: label_of_wnid()[name] for name in names}
        return Classes(count, labels, _origin(count, "as ImageNet's classes", wanted), imagenet=True)
    if beside_imagenet:
        raise DataError(
            f"not all class folders in {where} are among ImageNet's 1000 classes, but the list beside them has"
            " ImageNet's labels",
            "List both splits (train_list.txt and val_list.txt) with the same labels.",
        )
    found = _sorted_names(names, where, wanted, evaluated=evaluated)
    if not known or len(names) == IMAGENET_CLASSES:
        return found
    return found.noted(
        Note(
            f"the labels of the WordNet IDs in {where} are 0 to {len(names) - 1} in sorted order, not ImageNet's own;"
            f" with --classes {IMAGENET_CLASSES} they are ImageNet's, which weights of 1000 outputs need",
            f"--classes {IMAGENET_CLASSES} gives them ImageNet's labels.",
        )
    )


def _sorted_names(names: Sequence[str], where: str, wanted: Wanted | None, *, evaluated: bool) -> Classes:
    _refuse_fewer(names, where, wanted)
    if evaluated and wanted is not None and wanted.count != len(names):
        _refuse_unknown_order(names, where, wanted, "it isn't known which output each of these folders means")
    count = wanted.count if wanted is not None else len(names)
    labels = {name: label for label, name in enumerate(sorted(names))}
    return Classes(count, labels, _origin(count, "", wanted))


def classes_of_lists(labels: Sequence[Numbers], wanted: Wanted | None, *, imagenet: bool) -> Classes:
    """The classes of lists that have these labels; imagenet: they were recognised as ImageNet's."""
    highest = max(of_one.largest() for of_one in labels)
    how = "as ImageNet's classes" if imagenet else ""
    if wanted is not None:
        return Classes(wanted.count, {}, f"{wanted.count:,}, from {wanted.source}{how and '; '}{how}", (), imagenet)
    # A subset of ImageNet's images has ImageNet's labels.
    count = max(highest + 1, IMAGENET_CLASSES if imagenet else 0)
    found = Classes(count, {}, f"{count:,}, from the largest label in the lists{how and ', '}{how}", (), imagenet)
    lowest = min(of_one.smallest() for of_one in labels)
    if lowest == 1:
        return found.noted(
            Note(
                f"labels in the lists run from 1 to {highest} and none is 0, so they probably count from 1: class 0 has"
                " no images. To remove it, subtract 1 from each label in all lists",
                "Subtract 1 from each label.",
            )
        )
    if count == IMAGENET_CLASSES:
        return found
    return found.noted(
        Note(
            f"the largest label in the lists is {highest}, so the model has {count_of(count, 'output')}; --classes sets"
            " another number",
            "--classes sets another number.",
        )
    )
