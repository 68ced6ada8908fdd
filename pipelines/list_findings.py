"""What is wrong with the lists of a data set: images and classes that only one split has, or that both have."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from models.notes import Note
from models.words import count_of
from pipelines.columns import Places, Texts
from pipelines.dataset import Dataset
from pipelines.file_checks import FileCheck
from pipelines.image_lists import shown
from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT

LEAK, TWO_LABELS, TWICE = _ORDER = "leak", "two_labels", "twice"
_LABELS_NAMED = 10
# A label is rare if it has at most one of this number of images.
_RARE = 100


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
    TWO_LABELS: Kind(
        "image is listed with two labels: keep the right one",
        "images are listed with two labels: keep the right one of each",
        True,
    ),
    TWICE: Kind(
        "image is a repetition in its list: it counts as often as it is listed",
        "images are repetitions in their list: they count as often as they are listed",
        False,
    ),
}


@dataclass(frozen=True, slots=True)
class _Same:
    """An image of a split, by index, that was listed before: at another index of that split, or of the training's.

    linked: it has another name there, so that both are links to one file, or lie in folders of which one is a link.
    """

    split: str
    index: int
    other_split: str
    other: int
    linked: bool


@dataclass(frozen=True, slots=True)
class _Repeats:
    """Images as `_Same` has them: their indices [repeats] in a split, and others [repeats], where each was before."""

    split: str
    indices: Places
    other_split: str
    others: Places
    linked: bool

    @classmethod
    def of(cls, split: str, other_split: str, pairs: Iterable[tuple[int, int]], *, linked: bool) -> _Repeats:
        """Those of pairs of an image and the one before it."""
        both = np.fromiter(chain.from_iterable(pairs), np.int64).reshape(-1, 2)
        return cls(split, both[:, 0], other_split, both[:, 1], linked)

    def at(self, place: int) -> _Same:
        """The image at one of the places."""
        return _Same(self.split, int(self.indices[place]), self.other_split, int(self.others[place]), self.linked)


def find_repeats(dataset: Dataset, checks: Mapping[str, FileCheck]) -> dict[str, dict[int, list[Finding]]]:
    """Images that a list repeats, and those in both lists, by split and index; known by their paths and by their files.

    checks are the splits' inspections. Copies of a file are other files: contents are not compared.
    """
    found: dict[str, dict[int, list[Finding]]] = {split: {} for split in dataset.splits}
    for repeats in (*_same_paths(dataset), *_same_files(dataset, checks)):
        for same in map(repeats.at, range(len(repeats.indices))):
            found[same.split].setdefault(same.index, []).extend(_findings(dataset, same))
    return found


def _findings(dataset: Dataset, same: _Same) -> Iterator[Finding]:
    images, others = dataset.splits[same.split], dataset.splits[same.other_split]
    leak = same.split != same.other_split
    what = "the same file as" if same.linked else "also"
    where = f"image {same.other + 1:,} of {'the training' if leak else 'its'} list"
    name = f", {shown(others.paths[same.other])}" if same.linked else ""
    label, there = images.labels[same.index], others.labels[same.other]
    if leak or label == there:
        yield Finding(same.index, LEAK if leak else TWICE, f"{what} {where}{name}")
    if label != there:
        yield Finding(same.index, TWO_LABELS, f"label {label} here, {there} as {where}{name}")


def repeat_notes(dataset: Dataset) -> list[str]:
    """Images that are in both splits, or in one several times, in words; only the paths are compared."""
    return _notes(dataset, _same_paths(dataset))


def link_notes(dataset: Dataset, checks: Mapping[str, FileCheck]) -> list[str]:
    """Images that are in both splits, or in one several times, as one file under several names, in words."""
    return _notes(dataset, _same_files(dataset, checks))


def _notes(dataset: Dataset, repeated: Iterable[_Repeats]) -> list[str]:
    """One note for each kind of finding and split, with an example where the paths alone don't show it."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], _Same] = {}
    for repeats in repeated:
        labels = dataset.splits[repeats.split].labels.array[repeats.indices]
        differ = labels != dataset.splits[repeats.other_split].labels.array[repeats.others]
        leak = repeats.split != repeats.other_split
        for kind, of_kind in ((LEAK if leak else TWICE, leak | ~differ), (TWO_LABELS, differ)):
            if of_kind.any():
                key, same = (kind, repeats.split), repeats.at(int(of_kind.argmax()))
                counts[key] += int(of_kind.sum())
                first[key] = min(first.get(key, same), same, key=lambda one: one.index)
    return [
        Note(
            f"{'' if kind == LEAK else f'{split}: '}{KINDS_OF_LISTS[kind].describe(count)}"
            f"{_example(dataset, first[kind, split], kind)}",
            "run_bench.py verify lists each of them.",
        )
        for (kind, split), count in sorted(counts.items(), key=lambda item: (_ORDER.index(item[0][0]), item[0][1]))
    ]


def _example(dataset: Dataset, same: _Same, kind: str) -> str:
    if not same.linked and kind != TWO_LABELS:
        return ""
    reason = next(finding.reason for finding in _findings(dataset, same) if finding.kind == kind)
    return f" ({shown(dataset.splits[same.split].paths[same.index])}: {reason})"


def _plain(path: bytes) -> bytes:
    return posixpath.normpath(path) if b"./" in path or b"//" in path else path


def _same_paths(dataset: Dataset) -> Iterator[_Repeats]:
    """Images whose path was listed before; only those with a hash that another has are compared."""
    hashes = {split: _hashes(images.paths) for split, images in dataset.splits.items()}
    trained: Places | None = None
    for split, images in dataset.splits.items():
        ordered = np.sort(hashes[split])
        again = _places_of(hashes[split], ordered[1:][ordered[1:] == ordered[:-1]])
        own = _found_in(_first_places(images.paths, again), images.paths, again)
        yield _Repeats.of(split, split, (pair for pair in own if pair[0] != pair[1]), linked=False)
        if split == TRAIN_SPLIT:
            trained = ordered
        elif trained is not None:
            shared = ordered[_are_in(trained, ordered)]
            known = _first_places(dataset.train.paths, _places_of(hashes[TRAIN_SPLIT], shared))
            both = _found_in(known, images.paths, _places_of(hashes[split], shared))
            yield _Repeats.of(split, TRAIN_SPLIT, both, linked=False)


def _hashes(paths: Texts) -> Places:
    """A number for each path, which equal paths share."""
    encoded = paths.encoded()
    if paths.may_contain(b"./") or paths.may_contain(b"//"):
        encoded = map(_plain, encoded)
    return np.fromiter(map(hash, encoded), np.int64, len(paths))


def _are_in(ordered: Places, values: Places) -> npt.NDArray[np.bool_]:
    """Whether each of the values is among others, which are in order."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    there: npt.NDArray[np.bool_] = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return there


def _places_of(hashes: Places, ordered: Places) -> Places:
    """The places of hashes that are among others, which are in order."""
    return np.flatnonzero(_are_in(ordered, hashes))


def _first_places(paths: Texts, places: Places) -> dict[bytes, int]:
    """The first of the places at which each path is."""
    first: dict[bytes, int] = {}
    for place, path in zip(places.tolist(), paths.take(places).encoded(), strict=True):
        first.setdefault(_plain(path), place)
    return first


def _found_in(known: Mapping[bytes, int], paths: Texts, places: Places) -> Iterator[tuple[int, int]]:
    """Those of the places whose path is known, each with the path's known place."""
    for place, path in zip(places.tolist(), paths.take(places).encoded(), strict=True):
        if (plain := _plain(path)) in known:
            yield place, known[plain]


def _same_files(dataset: Dataset, checks: Mapping[str, FileCheck]) -> Iterator[_Repeats]:
    """Images whose file was listed before under another path."""
    for split, check in checks.items():
        pairs = [(split, _repeated(check.files))]
        if split != TRAIN_SPLIT and TRAIN_SPLIT in checks:
            train = checks[TRAIN_SPLIT].files
            again, count = _repeated(np.concatenate((train, check.files))), len(train)
            pairs.append((TRAIN_SPLIT, [(index - count, first) for index, first in again if first < count <= index]))
        for other_split, found in pairs:
            both = (dataset.splits[split].paths, dataset.splits[other_split].paths)
            here, there = (column.take([pair[place] for pair in found]).encoded() for place, column in enumerate(both))
            names = zip(map(_plain, here), map(_plain, there), strict=True)
            linked = (pair for pair, (name, other) in zip(found, names, strict=True) if name != other)
            yield _Repeats.of(split, other_split, linked, linked=True)


def _repeated(files: npt.NDArray[np.uint64]) -> list[tuple[int, int]]:
    """The rows of files (see `FileCheck`) that repeat an earlier one, each with the first such row, in order."""
    inodes = np.sort(files[:, 1])
    inodes = inodes[inodes != 0]  # some network file systems have none
    if not (inodes[1:] == inodes[:-1]).any():  # nearly always: a tenth of the time
        return []
    order = np.lexsort((files[:, 1], files[:, 0]))
    rows = files[order]
    begins = np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1)))
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))]
    again = ~begins & (rows[:, 1] != 0)
    return sorted(zip(order[again].tolist(), first[again].tolist(), strict=True))


def label_notes(dataset: Dataset) -> list[Note]:
    """Classes of which a split that was opened has no image, in words."""
    counts = {split: images.labels.counts() for split, images in dataset.splits.items()}
    present = {split: of_split.keys() for split, of_split in counts.items()}
    trained = present.get(TRAIN_SPLIT)
    # Classes without a folder have a note of their own (see `pipelines.classes`); a training needs all.
    of_model = range(dataset.num_classes)
    in_folders = sorted(dataset.classes.labels.values()) or of_model
    notes = []
    for split, labels in present.items():
        # Validation may have only a few of the classes, but a class without training images can't be learnt.
        expected = of_model if split == TRAIN_SPLIT else in_folders if trained is None else sorted(trained)
        absent = [label for label in expected if label not in labels]
        if absent:
            whose = "the model's" if len(expected) == dataset.num_classes else "the folders'"
            whose = whose if split == TRAIN_SPLIT or trained is None else "training's"
            have = "has" if len(absent) == 1 else "have"
            notes.append(
                Note(
                    f"{split}: {len(absent):,} of {whose} {count_of(len(expected), 'class')} {have} no image:"
                    f" {_listed(absent)}",
                    "Add images of them, or number the classes that there are (--classes, or the lists' labels).",
                )
            )
    if trained is not None and (only := sorted(present.get(VAL_SPLIT, {}.keys()) - trained)):
        are, they = ("is", "it") if len(only) == 1 else ("are", "they")
        count = count_of(len(only), "class")
        notes.append(
            Note(
                f"val: {count} {are} in no training image, so {they} can't be learnt: {_listed(only)}",
                "Add training images of them, or take them out of the validation list.",
            )
        )
    if note := _far_label(dataset.num_classes, counts.values()):
        notes.append(note)
    return notes


def _far_label(num_classes: int, of_splits: Iterable[Mapping[int, int]]) -> Note | None:
    """A note about a rare label far above all others, which alone gives the model most of its classes; else None."""
    counts: Counter[int] = Counter()
    for of_split in of_splits:
        counts.update(of_split)
    below, largest = ([-1, *sorted(counts)])[-2:]
    rare = counts[largest] <= max(1, counts.total() // _RARE)
    if largest + 1 != num_classes or 2 * (below + 1) >= largest or below < 0 or not rare:
        return None
    return Note(
        f"label {largest} alone, of {count_of(counts[largest], 'image')}, makes it {num_classes:,} classes: the"
        f" next smaller label is {below}. If it is an error, correct it",
        "Correct that label in the list, or give --classes.",
    )


def _listed(labels: Sequence[int]) -> str:
    return ", ".join([*map(str, labels[:_LABELS_NAMED]), *(["..."] if len(labels) > _LABELS_NAMED else [])])
