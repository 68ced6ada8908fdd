"""How a graph gets the files of a batch: DALI reads files of their own by name, images in shards are read for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pipelines.bad_image_probe import file_name
from pipelines.dali_graphs import Contents
from pipelines.image_lists import read_contents
from pipelines.jpeg_data import Copy, EndMarkers, close_all
from pipelines.read_ahead import read_ahead, request_files
from pipelines.sequential import in_sequence
from pipelines.storage import Storage

# Threads that read images from shards; a batch is one thread's work.
READERS = 4

Item = TypeVar("Item")
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a graph gets for a batch: names or contents of files, each [length].

    completed has the images that lacked only their end marker. The caller closes it when DALI has read the batch.
    """

    arrays: list[Bytes]
    completed: AbstractSet[int] = frozenset()
    _copies: Sequence[Copy] = field(default=())

    def close(self) -> None:
        """Let go of what was kept in memory for the batch."""
        close_all(self._copies)


class Reading(Protocol):
    """Requests and hands out the files of batches, of which indices_of says the images."""

    def ahead(
        self, batches: Iterable[Item], indices_of: Callable[[Item], Sequence[int]], batch_size: int
    ) -> Generator[tuple[Item, Future[Any]]]:
        """The same batches, each with what `take` needs, after those that follow it were requested."""

    def take(self, indices: Sequence[int], requested: Future[Any]) -> Taken:
        """What the graph gets for a batch of these images."""

    def feed(self, following: Callable[[], Any]) -> Callable[[], Any]:
        """What the graph is made with, from the function that DALI calls for each batch."""


def reading_of(storage: Storage, end_markers: EndMarkers, window: int = 0) -> Reading:
    """The way in which the storage's images are read; window is that of `sampling.ShardShuffle`, 0 without one."""
    if storage.images.extents is None:
        return _ByName(storage, end_markers)
    return _ByContent(storage, end_markers, window)


class _ByName:
    """Files of their own: DALI reads them in its own threads, after the kernel was asked to."""

    def __init__(self, storage: Storage, end_markers: EndMarkers) -> None:
        self._images, self._end_markers = storage.images, end_markers

    def ahead(
        self, batches: Iterable[Item], indices_of: Callable[[Item], Sequence[int]], batch_size: int
    ) -> Generator[tuple[Item, Future[None]]]:
        return read_ahead(batches, lambda batch: request_files(self._paths(indices_of(batch))), batch_size)

    def take(self, indices: Sequence[int], requested: Future[None]) -> Taken:  # noqa: ARG002
        paths = self._paths(indices)
        copies: Mapping[str, Copy] = self._end_markers.copies(paths)
        names = [file_name(copies[path].path if path in copies else path) for path in paths]
        completed = {index for index, path in zip(indices, paths, strict=True) if path in copies}
        return Taken(names, completed, tuple(copies.values()))

    def _paths(self, indices: Sequence[int]) -> list[str]:
        return [self._images.file(index) for index in indices]

    def feed(self, following: Callable[[], Any]) -> Callable[[], Any]:
        return following


class _ByContent:
    """Images in shards: read here, in threads, as DALI reads only whole files."""

    def __init__(self, storage: Storage, end_markers: EndMarkers, window: int) -> None:
        self._storage, self._images, self._end_markers = storage, storage.images, end_markers
        self._window = window

    def ahead(
        self, batches: Iterable[Item], indices_of: Callable[[Item], Sequence[int]], batch_size: int
    ) -> Generator[tuple[Item, Future[list[Bytes | OSError]]]]:
        if self._window:
            batches = in_sequence(self._images, batches, indices_of, self._window)
        return read_ahead(batches, lambda batch: read_contents(self._images, indices_of(batch)), batch_size, READERS)

    def take(self, indices: Sequence[int], requested: Future[list[Bytes | OSError]]) -> Taken:
        """Contents that could not be read are waited for. Raises StorageError when that takes too long."""
        contents: list[Bytes] = []
        completed: set[int] = set()
        for index, found in zip(indices, requested.result(), strict=True):
            content = self._storage.content(index) if isinstance(found, OSError) else found
            ended = self._end_markers.completed(content)
            if ended is not None:
                completed.add(index)
            contents.append(content if ended is None else np.frombuffer(ended, np.uint8))
        return Taken(contents, completed)

    def feed(self, following: Callable[[], Any]) -> Callable[[], Any]:
        return Contents(following)
