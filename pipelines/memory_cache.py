"""Images' files kept in memory, once for all processes of a machine: epochs after the first need no disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil

from pipelines.errors import DataError
from pipelines.image_lists import Extents, ImageList, read_contents, spread
from pipelines.storage import Patience, Storage

# Reads wait for the disk, and are many at a time on a network's.
_THREADS = 16
_IMAGES_PER_CHUNK = 64
# The share of the memory that is free at the start that images may take.
MAX_SHARE = 0.8
# What the files of images are in that were files of their own.
MEMORY = "memory"
# Images that are read again to measure how fast they come from memory.
_SAMPLED = 1024


@dataclass(frozen=True, slots=True)
class Brought:
    """What keeping files in memory took and brought: their number and bytes, and the rates of reading in bytes/s.

    seconds is how long it took to fill the memory, source_bytes_per_second how fast the files came meanwhile;
    memory_bytes_per_second is how fast one thread reads them since.
    """

    images: int
    bytes: int
    seconds: float
    source_bytes_per_second: float
    memory_bytes_per_second: float


class MemoryCache:
    """The files of some lists' images in memory, for as long as this object is not closed.

    splits are the same lists, whose images are read from there, also by other processes of this user: the file has no
    name, and is gone when this process and those that read it have ended, however they end. bad has the images that are
    left out, by split. advance is called with the number of images that were read. Raises DataError where the files are
    more than MAX_SHARE of the free memory, of which limit_bytes is the most that this process may use; StorageError
    where they can't be read.
    """

    def __init__(
        self,
        splits: Mapping[str, ImageList],
        bad: Mapping[str, frozenset[int]],
        patience: Patience,
        limit_bytes: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        free = psutil.virtual_memory().available
        self._room = int(MAX_SHARE * min(free, free if limit_bytes is None else limit_bytes))
        self._patience, self._advance = patience, advance
        self._descriptor = os.memfd_create("images", os.MFD_CLOEXEC)
        self._lock, self._filled = threading.Lock(), 0
        began = time.monotonic()
        try:
            self.splits = {split: self._kept(images, bad.get(split, frozenset())) for split, images in splits.items()}
        except BaseException:
            self.close()
            raise
        seconds = max(time.monotonic() - began, 1e-9)
        images = sum(map(len, self.splits.values()))
        self.brought = Brought(images, self._filled, seconds, self._filled / seconds, self._read_rate())

    def _kept(self, images: ImageList, bad: frozenset[int]) -> ImageList:
        count = len(images)
        offsets, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
        storage = Storage(images, self._patience, bad)

        def keep(begin: int) -> None:
            chunk = [index for index in range(begin, min(begin + _IMAGES_PER_CHUNK, count)) if index not in bad]
            for index, found in zip(chunk, read_contents(images, chunk), strict=True):
                content = storage.content(index) if isinstance(found, OSError) else found
                offsets[index], sizes[index] = self._reserved(len(content)), len(content)
                done = 0
                while done < len(content):
                    done += os.pwrite(self._descriptor, content.data[done:], int(offsets[index]) + done)
            self._advance(len(chunk))

        pool = ThreadPoolExecutor(_THREADS)
        try:
            for _ in pool.map(keep, range(0, count, _IMAGES_PER_CHUNK)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        storage.patience.over()
        place = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        # A file in memory for each shard: what is shuffled together doesn't change.
        numbers, format_name, files = np.zeros(count, np.uint32), MEMORY, 1
        if images.extents is not None:
            numbers, format_name, files = images.extents.numbers, images.extents.format, len(images.extents.files)
        extents = Extents(format_name, (place,) * files, ((self._filled, 0),) * files, numbers, offsets, sizes)
        return ImageList(images.root, images.paths, images.labels, extents)

    def _reserved(self, size: int) -> int:
        """The place of the next bytes. Raises DataError if there is no room for them."""
        with self._lock:
            place, self._filled = self._filled, self._filled + size
            if self._filled > self._room:
                raise DataError(
                    f"--cache ram: the images' files don't fit in memory, of which {self._room / 1e9:,.1f} GB could be"
                    " used",
                    "Leave --cache off: the operating system keeps what fits in memory by itself, and gives it up.",
                )
            return place

    def _read_rate(self) -> float:
        """The bytes per second of one thread that reads images all over the lists."""
        total, began = 0, time.monotonic()
        for images in self.splits.values():
            for index in spread(len(images), _SAMPLED):
                total += len(images.content(index))
        return total / max(time.monotonic() - began, 1e-9)

    def close(self) -> None:
        """Give the memory back, once no other process reads from it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
