"""Finds a split's shards and lists the images in them, from an index beside them where there is one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.notes import Note
from models.words import count_of
from pipelines.columns import Numbers, Texts
from pipelines.errors import DataError
from pipelines.image_lists import Extents, ImageList, first_ten, shown
from pipelines.packed.caffe import LMDB
from pipelines.packed.manifest import check_finished
from pipelines.packed.members import NO_LABEL, Member, ShardError, ShardFormat
from pipelines.packed.recordio import RECORDIO
from pipelines.packed.tfrecord import TFRECORD
from pipelines.packed.webdataset import WEBDATASET
from pipelines.stored_lists import load_list, save_list

# Those that `pack` writes, by name, and all that are read.
FORMATS = {one.name: one for one in (WEBDATASET, TFRECORD, RECORDIO)}
_READ: tuple[ShardFormat, ...] = (*FORMATS.values(), LMDB)
# The folder in a data set's in which the lists of its shards' images are kept.
INDEX = "pplcnet-index"
# What splits are called in shards' names, besides their own names.
_ALIASES = {"val": ("val", "validation")}
# TensorFlow's scripts give files no ending.
_TENSORFLOW = re.compile(r"-\d{5}-of-\d{5}$")
_THREADS = 16


@dataclass(frozen=True, slots=True)
class Shards:
    """A split's shards of one format; files are relative to root, sorted by name."""

    root: Path
    split: str
    format: ShardFormat
    files: tuple[str, ...]


def find_shards(root: Path, split: str) -> Shards | None:
    """The shards of a split: files in a folder of its name or, without one, those with it as a word (train-000.tar).

    LMDB's databases are folders of such a name. None if there are none. Raises DataError for shards of several formats.
    """
    names = _ALIASES.get(split, (split,))
    for name in names:
        if (root / name).is_dir():
            found = [(f"{name}/{file}", kind) for file in _files(root / name) if (kind := _format_of(file)) is not None]
            return _of_one_format(root, split, found) if found else None
    word = re.compile(rf"(?:^|[-_.])(?:{'|'.join(names)})(?:[-_.]|$)")
    places = [*_files(root), *(str(path.relative_to(root)) for path in sorted(root.glob(f"*/{LMDB.endings[0]}")))]
    found = [
        (file, kind)
        for file in places
        if (kind := _format_of(file)) is not None and word.search(Path(file.partition("/")[0]).stem)
    ]
    return _of_one_format(root, split, found) if found else None


def _files(folder: Path) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    return []


def _format_of(file: str) -> ShardFormat | None:
    by_ending = (one for one in _READ if file.lower().endswith(one.endings))
    return next(by_ending, TFRECORD if _TENSORFLOW.search(file) else None)


def _of_one_format(root: Path, split: str, found: Sequence[tuple[str, ShardFormat]]) -> Shards:
    kinds = sorted({kind.name for _, kind in found})
    if len(kinds) > 1:
        raise DataError(
            f"the shards of {split} in {shown(root)} have several formats: {', '.join(kinds)}",
            "Keep each format in a folder of its own, and name one of them with --data.",
        )
    return Shards(root, split, found[0][1], tuple(file for file, _ in found))


def list_shards(shards: Shards, first_label: int, *, with_labels: bool) -> tuple[ImageList, tuple[Note, ...]]:
    """The images of shards in their order, and what the user should know; labels count from first_label there.

    The list is kept in INDEX, and read again from there while the shards have the same names, sizes and times. Raises
    DataError for shards that can't be read or don't follow their format, and for images without a label, which have
    the label 0 unless with_labels.
    """
    check_finished(shards.root)
    index = shards.root / INDEX / shards.split
    stamps = _stamps(shards)
    images, notes = _stored(index, shards, stamps), []
    if images is None:
        images = _listed(shards, stamps)
        if not _keep(index, images):
            notes.append(
                Note(
                    f"{shards.split}: the list of the {count_of(len(images), 'image')} in"
                    f" {count_of(len(shards.files), 'shard')} can't be kept in {index}, and is made at each start",
                    "Make the data set's folder writable once: run_bench.py verify writes the list, too.",
                )
            )
    if not len(images):
        raise DataError(
            f"the {count_of(len(shards.files), 'shard')} of {shards.split} in {shown(shards.root)} hold no image",
            "Pack the images again: run_bench.py pack.",
        )
    return _labelled(images, shards, first_label, with_labels=with_labels), tuple(notes)


Stamps = tuple[tuple[int, int], ...]


def _stamps(shards: Shards) -> Stamps:
    """See `Extents.stamps`."""
    try:
        found = [(shards.root / file).stat() for file in shards.files]
        return tuple((status.st_size, status.st_mtime_ns) for status in found)
    except OSError as error:
        raise DataError(
            f"a shard of {shards.split} can't be read: {error.filename}: {error.strerror}",
            "Make it readable, or remove it.",
        ) from error


def _stored(index: Path, shards: Shards, stamps: Stamps) -> ImageList | None:
    """The list that was kept for these shards; None if there is none, or it is that of others."""
    if not index.is_dir():
        return None
    try:
        images = load_list(index, shards.root)
    except DataError:
        return None
    extents = images.extents
    fits = extents is not None and (extents.files, extents.stamps) == (shards.files, stamps)
    return images if fits else None


def _keep(index: Path, images: ImageList) -> bool:
    """Write the list beside the shards. Returns whether it could be written."""
    new: Path | None = None
    try:
        index.parent.mkdir(exist_ok=True)
        # Of this process alone, also where other nodes have the same folder.
        new = Path(tempfile.mkdtemp(prefix=f".{index.name}-", dir=index.parent))
        save_list(new, images)
        new.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        if index.exists():
            shutil.rmtree(index)
        new.rename(index)
    except OSError:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        # Another process may have written the same list meanwhile.
        return index.is_dir()
    return True


@dataclass(frozen=True, slots=True)
class _Scanned:
    """The columns of one shard's images, or why it can't be used."""

    names: Texts
    labels: Numbers
    places: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    divided: tuple[int, ...] = ()
    error: ShardError | None = None


def _scan(shards: Shards, file: str) -> _Scanned:
    members: list[Member] = []
    try:
        members.extend(shards.format.scan(shards.root / file))
    except ShardError as error:
        return _Scanned(Texts.of(()), Numbers(()), error=error)
    except OSError as error:
        found = ShardError((error.strerror or type(error).__name__).lower(), "Make the shard readable.")
        return _Scanned(Texts.of(()), Numbers(()), error=found)
    return _Scanned(
        Texts.of(f"{file}/{member.name}" for member in members),
        Numbers(member.label for member in members),
        (tuple(member.offset for member in members), tuple(member.size for member in members)),
        tuple(place for place, member in enumerate(members) if member.divided),
    )


def _listed(shards: Shards, stamps: Stamps) -> ImageList:
    with ThreadPoolExecutor(min(_THREADS, len(shards.files))) as pool:
        scanned = list(pool.map(lambda file: _scan(shards, file), shards.files))
    unusable = [(file, one.error) for file, one in zip(shards.files, scanned, strict=True) if one.error is not None]
    if unusable:
        lines = [f"{shown(file)}: {error.reason}" for file, error in unusable]
        raise DataError(
            f"{len(unusable):,} of {count_of(len(scanned), 'shard')} of {shards.split} in {shown(shards.root)} can't be"
            f" used:\n{first_ten(lines)}",
            unusable[0][1].cure,
        )
    counts = [len(one.names) for one in scanned]
    begins = np.cumsum([0, *counts])
    extents = Extents(
        format=shards.format.name,
        files=shards.files,
        stamps=stamps,
        numbers=np.repeat(np.arange(len(scanned), dtype=np.uint32), counts),
        offsets=np.concatenate([np.array(one.places[0], np.int64) for one in scanned]),
        sizes=np.concatenate([np.array(one.places[1], np.int64) for one in scanned]),
        divided=frozenset(
            int(begin) + place for begin, one in zip(begins, scanned, strict=False) for place in one.divided
        ),
    )
    return ImageList(
        shards.root,
        Texts.joined([one.names for one in scanned]),
        np.concatenate([one.labels.array for one in scanned]),
        extents,
    )


def _labelled(images: ImageList, shards: Shards, first_label: int, *, with_labels: bool) -> ImageList:
    labels = images.labels.array
    without = np.flatnonzero(labels == NO_LABEL)
    if len(without) and with_labels:
        raise DataError(
            f"{len(without):,} of {count_of(len(images), 'image')} of {shards.split} have no label:\n"
            + first_ten([shown(path) for path in images.paths.take(without)]),
            "Pack them again with their labels (run_bench.py pack); in a WebDataset, name.cls beside name.jpg has it.",
        )
    below = np.flatnonzero((labels < first_label) & (labels != NO_LABEL))
    if len(below):
        pairs = zip(images.paths.take(below), labels[below].tolist(), strict=True)
        raise DataError(
            f"{len(below):,} of {count_of(len(images), 'image')} of {shards.split} have a label below {first_label}:\n"
            + first_ten([f"{shown(path)}: label {label}" for path, label in pairs]),
            "first_label in dataset.toml says where labels begin to count.",
        )
    if not first_label and not len(without):
        return images
    return ImageList(images.root, images.paths, np.maximum(labels - first_label, 0), images.extents)
