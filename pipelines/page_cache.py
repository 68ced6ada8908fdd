"""The share of a data set in the page cache: reading from memory and from a disk are two different benchmarks."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WARM_SHARE = 0.95
COLD_SHARE = 0.05
# Files that are looked at.
SAMPLES = 256


@dataclass(frozen=True, slots=True)
class DataState:
    """How much of a data set was in the page cache at one moment.

    share is the part of its pages in the page cache (None: unknown); state is "warm" from 95 % on, "cold" up to 5 %,
    "partly" in between, or "unknown". bytes is the data set's size, memory_bytes the size to which the page cache could
    grow. Raises ValueError for a share outside 0..1 and a state that doesn't follow from the share.
    """

    share: float | None
    state: str
    bytes: int
    memory_bytes: int

    def __post_init__(self) -> None:
        if self.share is not None and not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share is {self.share}; it must lie in 0..1")
        if self.state != _state(self.share):
            raise ValueError(f"state is {self.state!r}, but a share of {self.share} is {_state(self.share)!r}")

    @property
    def larger_than_memory(self) -> bool:
        """Whether a second epoch can't be read from memory alone.

        MLPerf Storage demands more, five times the memory, so that hardly any read comes from memory (Submission
        Guidelines v2.0, section 6.6).
        """
        return self.bytes > self.memory_bytes


def data_state(share: float | None, data_bytes: int, memory_bytes: int) -> DataState:
    """The state of a data set of data_bytes, of which this share is resident."""
    return DataState(share, _state(share), data_bytes, memory_bytes)


def _state(share: float | None) -> str:
    if share is None:
        return "unknown"
    if share >= WARM_SHARE:
        return "warm"
    return "cold" if share <= COLD_SHARE else "partly"


def read_into_memory(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Read the files, so that they are in the page cache if it has room; files that can't be read are ignored."""
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:  # noqa: PTH123
            while file.read(1 << 20):
                pass


def resident_share(paths: Sequence[str | os.PathLike[str]], samples: int = SAMPLES) -> float | None:
    """The share of the files' pages in the page cache, 0..1; nothing is read, so nothing changes.

    At most `samples` files are inspected, spread evenly over the list, and weighted by their numbers of pages. Returns
    None if the share is unknown: on systems other than Linux, and if none of the files may be inspected. Since 5.2
    Linux reports every page as resident to a user who neither owns a file nor may write to it (can_do_mincore in
    mm/mincore.c), so such files are left out, as are unreadable and empty ones. Raises ValueError for samples below 1.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; it must be at least 1")
    mincore = _mincore()
    if mincore is None:
        return None
    taken = min(samples, len(paths))
    resident = pages = 0
    for index in (position * len(paths) // taken for position in range(taken)):
        counted = _pages(os.fspath(paths[index]), mincore)
        if counted is not None:
            resident += counted[0]
            pages += counted[1]
    return resident / pages if pages else None


def _mincore() -> Callable[..., Any] | None:
    """mincore(2) of the C library, or None. That of macOS describes the process and not the page cache."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        mincore.restype = ctypes.c_int
    except (OSError, AttributeError):
        return None
    else:
        return mincore


def _pages(path: str, mincore: Callable[..., Any]) -> tuple[int, int] | None:
    """(resident pages, pages) of a file, or None if they can't be determined."""
    try:
        # Checked before opening, as opening a pipe would wait for its other end.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return None
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not status.st_size or not _may_know(path, status):
                return None
            with mmap.mmap(file, status.st_size, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
                return _count(mapping, mincore)
        finally:
            os.close(file)
    except (OSError, ValueError, ctypes.ArgumentError):
        return None


def _may_know(path: str, status: os.stat_result) -> bool:
    """Whether mincore reports the truth about the file to this process."""
    if status.st_uid == os.geteuid():
        return True
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _count(mapping: mmap.mmap, mincore: Callable[..., Any]) -> tuple[int, int] | None:
    pages = -(-len(mapping) // mmap.PAGESIZE)
    flags = np.zeros(pages, dtype=np.uint8)
    address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    if mincore(address, len(mapping), flags.ctypes.data) != 0:
        return None
    # Only the lowest bit is defined.
    return int(np.count_nonzero(flags & 1)), pages
