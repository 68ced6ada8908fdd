"""Which image files a data set holds and what their labels are, checked before a run spends hours on them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.columns import Numbers, Texts
from pipelines.misread import ENDS_OF_MISREAD, fault_of_pixels

# More classes would need a head of billions of weights; such a number is a typing error.
MAX_CLASSES = 1_000_000

# Enough to see the pattern of a fault without filling the terminal.
FAULTS_NAMED = 10

# More than a file name can have (255 bytes), but bounded: a binary file given as a list may be one line of many
# megabytes.
_SHOWN_CHARACTERS = 300

# Large enough that the cost of passing a chunk to a thread is negligible, small enough to keep 16 threads busy.
_FILES_PER_CHUNK = 512

# The only reason of file_fault that is about a file's content.
EMPTY_FILE = "0 bytes"

# Most images are readable by all, which saves a second request to the disk for each of them.
_READABLE_BY_ALL = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_KIND_AND_READABLE = stat.S_IFMT(0xFFFF) | _READABLE_BY_ALL
_REGULAR_AND_READABLE = stat.S_IFREG | _READABLE_BY_ALL
# The effective user is the one who will open a file, but not every platform can check for it.
_EFFECTIVE_IDS = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """Where images lie within larger files: files are relative to the list's root, "/" between folders.

    Image i is the sizes[i] bytes of files[numbers[i]] from offsets[i] on. Arrays are [images].
    """

    files: tuple[str, ...]
    numbers: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def take(self, places: npt.NDArray[Any]) -> Extents:
        """Those of the images at these places, in this order."""
        return Extents(self.files, self.numbers[places], self.offsets[places], self.sizes[places])


@dataclass(frozen=True, slots=True, init=False)
class ImageList:
    """Images and their labels, in the list's own order.

    paths are relative to root, with "/" between folders; labels[i] is the class index of
    paths[i]. Bytes of a file name that are not UTF-8 are kept as surrogate escapes, as os.fsdecode does. extents says
    where in shards the images lie, whose paths are then a shard's and a member's name in it; None for files of their
    own. Raises ValueError if the columns differ in length.
    """

    root: Path
    paths: Texts
    labels: Numbers
    extents: Extents | None

    def __init__(self, root: Path, paths: Iterable[str], labels: Iterable[int], extents: Extents | None = None) -> None:
        for name, value in (
            ("root", root), ("paths", Texts.of(paths)), ("extents", extents),
            ("labels", labels if isinstance(labels, Numbers) else Numbers(labels)),
        ):  # fmt: skip
            object.__setattr__(self, name, value)
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths, but {len(self.labels)} labels")
        if extents is not None and len(extents.numbers) != len(self.paths):
            raise ValueError(f"{len(self.paths)} paths, but {len(extents.numbers)} places")

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, indices: Sequence[int]) -> ImageList:
        """Returns the images at these indices, in this order."""
        places = np.asarray(indices, dtype=np.int64)
        extents = None if self.extents is None else self.extents.take(places)
        return ImageList(self.root, self.paths.take(places), self.labels.take(places), extents)


def shown(name: str | os.PathLike[str]) -> str:
    """The file name or line, quoted for a message; control characters are escaped, so that it stays on one line."""
    text = os.fspath(name)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]!r}..."
    return repr(text)


def first_ten(faults: Sequence[str]) -> str:
    """One indented line per fault, at most ten, then the number of further ones."""
    lines = [f"  {fault}" for fault in faults[:FAULTS_NAMED]]
    if len(faults) > FAULTS_NAMED:
        lines.append(f"  and {len(faults) - FAULTS_NAMED:,} more")
    return "\n".join(lines)


def file_fault(path: str) -> str:
    """Why a file can't be read as an image, whatever its content; empty if no reason was found."""
    return _look(path)[1]


def _look(path: str) -> tuple[os.stat_result | None, str]:
    """What the file system says about a file, None if nothing; and the reason of `file_fault`."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path object per file would double the time
    except OSError as error:
        return None, (error.strerror or type(error).__name__).lower()
    except ValueError:  # a NUL in the name
        return None, "not a possible file name"
    if status.st_mode & _KIND_AND_READABLE != _REGULAR_AND_READABLE:
        if not stat.S_ISREG(status.st_mode):
            return status, "not a regular file"
        if not os.access(path, os.R_OK, effective_ids=_EFFECTIVE_IDS):
            return status, "permission denied"
    return status, "" if status.st_size else EMPTY_FILE


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of inspecting every file of a list: sizes in bytes, in its order, and why files are unusable.

    files [images, 2] has each file's device and inode, by which one file is known under several names; zeros for an
    unusable one.
    """

    images: ImageList
    sizes: Numbers
    faults: dict[int, str]
    files: npt.NDArray[np.uint64]


def check_files(image_list: ImageList, threads: int = 16) -> FileCheck:
    """Inspect every file without opening it, apart from those of formats that may be misread (see `misread`).

    Several threads do so at the same time, because on a network disk each inspection waits for an answer. Raises
    ValueError for threads below 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    check = FileCheck(
        image_list, Numbers(np.zeros(len(image_list), np.int64)), {}, np.zeros((len(image_list), 2), np.uint64)
    )
    with ThreadPoolExecutor(threads) as pool:
        for faults in pool.map(partial(_check_chunk, check), range(0, len(image_list), _FILES_PER_CHUNK)):
            check.faults.update(faults)
    return check


def _check_chunk(check: FileCheck, start: int) -> dict[int, str]:
    """Note sizes, devices and inodes of the files of a chunk that begins at an index. Returns its faults by index."""
    root = os.fspath(check.images.root)
    part = slice(start, start + _FILES_PER_CHUNK)
    paths = check.images.paths[part]
    sizes, devices, inodes = [0] * len(paths), [0] * len(paths), [0] * len(paths)
    faults: dict[int, str] = {}
    for index, name in enumerate(paths):
        path = f"{root}/{name}"
        status, reason = _look(path)
        if status is not None:
            sizes[index] = status.st_size
        if not reason and name.endswith(ENDS_OF_MISREAD):
            reason = fault_of_pixels(path)
        if reason or status is None:
            faults[start + index] = reason
        else:
            devices[index], inodes[index] = status.st_dev, status.st_ino
    check.sizes.array[part] = sizes
    check.files[part] = np.array((devices, inodes), dtype=np.uint64).T
    return faults
