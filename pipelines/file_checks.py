"""What the file system says about images before they are read: sizes, and why some can't be used."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
import numpy.typing as npt

from pipelines.columns import Numbers
from pipelines.image_lists import CUT_SHARD, Extents, ImageList, read_contents
from pipelines.misread import ENDS_OF_MISREAD, fault_of_pixels, may_be_misread, misread_stream

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
    if image_list.extents is not None:
        return _check_extents(image_list, image_list.extents)
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


def _check_extents(images: ImageList, extents: Extents) -> FileCheck:
    """The sizes of images in shards, and why some can't be read: their shard, or its end."""
    ends_of_files: list[int] = []
    faults: dict[int, str] = {}
    for number in range(len(extents.files)):
        status, reason = _look(extents.path(images.root, number))
        ends_of_files.append(0 if status is None else status.st_size)
        if reason:
            reason = "the shard is empty" if reason == EMPTY_FILE else f"the shard: {reason}"
            faults.update(dict.fromkeys(np.flatnonzero(extents.numbers == number).tolist(), reason))
    cut = np.flatnonzero(extents.offsets + extents.sizes > np.array(ends_of_files, np.int64)[extents.numbers])
    faults = {**dict.fromkeys(cut.tolist(), CUT_SHARD), **faults}
    faults = {**dict.fromkeys(np.flatnonzero(extents.sizes == 0).tolist(), EMPTY_FILE), **faults}
    last_letters = images.paths.characters[images.paths.ends - 1]
    for index in np.flatnonzero(np.isin(last_letters, [*map(ord, ENDS_OF_MISREAD)])).tolist():
        if index not in faults and may_be_misread(images.paths[index]):
            content = read_contents(images, (index,))[0]
            reason = (
                (content.strerror or "") if isinstance(content, OSError) else misread_stream(BytesIO(content.tobytes()))
            )
            if reason:
                faults[index] = reason
    return FileCheck(images, Numbers(np.array(extents.sizes)), faults, np.zeros((len(images), 2), np.uint64))
