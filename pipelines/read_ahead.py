"""Files asked for before they are read, so that decoding does not wait for the disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

# Files on their way from the disk: what DALI's own reader keeps in flight at its default, and more is no faster.
IMAGES_AHEAD = 64

Item = TypeVar("Item")


def read_ahead(batches: Iterable[Item], paths: Callable[[Item], Iterable[str]], batch_size: int) -> Iterator[Item]:
    """The same batches, each yielded once the kernel was asked to read the files of those that follow it.

    The files' pages are then in the page cache, or on the way there, when they are read; a file that isn't there is
    left for its reader to find. Batches are taken as early as IMAGES_AHEAD images take, one batch at least.
    """
    ahead = -(-IMAGES_AHEAD // batch_size)
    coming: deque[Item] = deque()
    # To open a file may wait for the disk as well.
    executor = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    try:
        for batch in batches:
            executor.submit(_ask_for, tuple(paths(batch)))
            coming.append(batch)
            if len(coming) > ahead:
                yield coming.popleft()
        yield from coming
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _ask_for(paths: Iterable[str]) -> None:
    for path in paths:
        with suppress(OSError, ValueError):
            # A pipe has no pages, and would be waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
