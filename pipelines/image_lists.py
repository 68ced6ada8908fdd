"""Which image files a data set holds and what their labels are, checked before a run spends hours on them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
# The effective user is the one who will open a file, but not every platform can check for it.
_EFFECTIVE_IDS = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True)
class ImageList:
    """Image files and their labels, in the list's own order.

    paths are relative to root, with "/" between folders; labels[i] is the class index of
    paths[i]. Bytes of a file name that are not UTF-8 are kept as surrogate escapes, as os.fsdecode does. Raises
    ValueError if the two differ in length.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, indices: Sequence[int]) -> ImageList:
        """Returns the images at these indices, in this order."""
        return ImageList(
            self.root, tuple(self.paths[index] for index in indices), tuple(self.labels[index] for index in indices)
        )


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


def file_fault(path: str) -> tuple[int, str]:
    """A file's size in bytes, and why it can't be read as an image; the reason is empty if none was found."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path object per file would double the time
    except OSError as error:
        return 0, (error.strerror or type(error).__name__).lower()
    except ValueError:  # a NUL in the name
        return 0, "not a possible file name"
    if not stat.S_ISREG(status.st_mode):
        return status.st_size, "not a regular file"
    if status.st_mode & _READABLE_BY_ALL != _READABLE_BY_ALL and not os.access(
        path, os.R_OK, effective_ids=_EFFECTIVE_IDS
    ):
        return status.st_size, "permission denied"
    return status.st_size, "" if status.st_size else EMPTY_FILE


def _check_chunk(root: str, paths: Sequence[str]) -> list[tuple[int, str]]:
    return [file_fault(f"{root}/{path}") for path in paths]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of inspecting every file of a list: sizes in bytes, in its order, and why files are unusable."""

    images: ImageList
    sizes: tuple[int, ...]
    faults: dict[int, str]


def check_files(image_list: ImageList, threads: int = 16) -> FileCheck:
    """Inspect every file without opening it.

    Several threads do so at the same time, because on a network disk each inspection waits for an answer. Raises
    ValueError for threads below 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    root = os.fspath(image_list.root)
    chunks = [
        image_list.paths[start : start + _FILES_PER_CHUNK] for start in range(0, len(image_list), _FILES_PER_CHUNK)
    ]
    sizes: list[int] = []
    faults: dict[int, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for checked in pool.map(_check_chunk, [root] * len(chunks), chunks):
            for size, reason in checked:
                if reason:
                    faults[len(sizes)] = reason
                sizes.append(size)
    return FileCheck(image_list, tuple(sizes), faults)
