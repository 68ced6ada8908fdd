"""Files requested from the disk before they are read, so that decoding does not wait for it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

# Files on their way from the disk: the number that DALI's own reader keeps in flight by default; more is no faster.
IMAGES_AHEAD = 64

Item = TypeVar("Item")


def read_ahead(batches: Iterable[Item], paths: Callable[[Item], Iterable[str]], batch_size: int) -> Generator[Item]:
    """The same batches, each yielded after the kernel was asked to read the files of those that follow it.

    The files' pages are then in the page cache, or on the way there, when the files are read; a missing file is left
    for its reader to report. Batches are taken IMAGES_AHEAD images in advance, at least one batch.
    """
    ahead = -(-IMAGES_AHEAD // batch_size)
    coming: deque[Item] = deque()
    # In a thread, as opening a file may wait for the disk, too.
    executor = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    try:
        for batch in batches:
            executor.submit(_request, tuple(paths(batch)))
            coming.append(batch)
            if len(coming) > ahead:
                yield coming.popleft()
        yield from coming
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _request(paths: Iterable[str]) -> None:
    for path in paths:
        with suppress(OSError, ValueError):
            # O_NONBLOCK, as opening a pipe would wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
