"""Images requested from the disk before they are used, so that decoding does not wait for it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

# Files on their way from the disk: the number that DALI's own reader keeps in flight by default; more is no faster.
IMAGES_AHEAD = 64

Item = TypeVar("Item")
Found = TypeVar("Found")


def read_ahead(
    batches: Iterable[Item], request: Callable[[Item], Found], batch_size: int, threads: int = 1
) -> Generator[tuple[Item, Future[Found]]]:
    """The same batches, each with what request returned for it, yielded after those that follow were requested.

    Batches are requested IMAGES_AHEAD images in advance, at least one batch, in threads, as it may wait for the disk.
    """
    ahead = -(-IMAGES_AHEAD // batch_size)
    coming: deque[tuple[Item, Future[Found]]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
    try:
        for batch in batches:
            coming.append((batch, executor.submit(request, batch)))
            if len(coming) > ahead:
                yield coming.popleft()
        yield from coming
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def request_files(paths: Iterable[str]) -> None:
    """Ask the kernel to read files: their pages are then in the page cache, or on the way there, when they are read.

    A missing file is left for its reader to report.
    """
    for path in paths:
        with suppress(OSError, ValueError):
            # O_NONBLOCK, as opening a pipe would wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
