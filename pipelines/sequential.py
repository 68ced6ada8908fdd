"""Windows of images in shards, read from the disk from start to end before they are used in another order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipelines.image_lists import ImageList, close_spans

# Bytes that are read at once: the kernel makes the largest requests of it that the disk takes.
CHUNK_BYTES = 4 << 20
# What lies between images of a window is read, too, up to here: a larger request costs a disk less than another one.
# Where ranks take turns in a window, it is what the others need.
MAX_GAP_BYTES = 1 << 20

Item = TypeVar("Item")


def in_sequence(
    images: ImageList, batches: Iterable[Item], indices_of: Callable[[Item], Sequence[int]], window: int
) -> Iterator[Item]:
    """The same batches, each yielded after the window of images that it is in was read into the page cache.

    A window is read while the one before it is used. Files that can't be read are left to those who use them.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="in-sequence")
    coming: deque[tuple[list[Item], Future[None]]] = deque()

    def ready() -> Iterator[Item]:
        block, read = coming.popleft()
        read.result()
        yield from block

    try:
        for block in _blocks(batches, indices_of, window):
            indices = np.concatenate([np.asarray(indices_of(batch), np.int64) for batch in block])
            coming.append((block, executor.submit(read_in_sequence, images, indices)))
            if len(coming) > 1:
                yield from ready()
        while coming:
            yield from ready()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _blocks(batches: Iterable[Item], indices_of: Callable[[Item], Sequence[int]], window: int) -> Iterator[list[Item]]:
    """The batches in lists of a window's images at least."""
    block: list[Item] = []
    filled = 0
    for batch in batches:
        block.append(batch)
        filled += len(indices_of(batch))
        if filled >= window:
            yield block
            block, filled = [], 0
    if block:
        yield block


def read_in_sequence(images: ImageList, indices: npt.NDArray[np.int64]) -> None:
    """Read the images at these indices of a list in shards, in the order in which they lie there, and forget them."""
    extents = images.extents
    if extents is None:
        return
    scratch = bytearray(CHUNK_BYTES)
    for span in close_spans(extents, indices, MAX_GAP_BYTES):
        with suppress(OSError, ValueError):
            descriptor = os.open(extents.path(images.root, span.number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                for place in range(span.begin, span.end, CHUNK_BYTES):
                    os.preadv(descriptor, [memoryview(scratch)[: span.end - place]], place)
            finally:
                os.close(descriptor)
