"""Where batches come from: DALI's output passed to Paddle without a copy, or batches kept in memory."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali.pipeline import Pipeline
from paddle.utils import dlpack

from models.image_size import ImageSize
from pipelines.bad_image_probe import (
    DATA_FAULT,
    READ_FAULT,
    Fault,
    decoder_error,
    find_faults,
    reading_failure,
)
from pipelines.batch import Batch, Source
from pipelines.dali_graphs import Feed
from pipelines.graph_settings import read_settings
from pipelines.image_lists import ImageList
from pipelines.jpeg_data import EndMarkers
from pipelines.reading import Taken, reading_of
from pipelines.sampling import BEGINNING, Draw, Order, Position
from pipelines.settings import DALI_LOADER, PipelineSettings
from pipelines.storage import Storage

MAX_SEED = 2**31 - 1
IMAGE_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class SourceState:
    """Where a source stands: the next batch's position, the images it leaves out, and DALI's own state.

    dali is the state of a pipeline built by DaliSource; None if there is none, such as at the start.
    """

    position: Position = BEGINNING
    bad: frozenset[int] = frozenset()
    dali: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A batch that DALI has begun, and what it reads for it: its files or their names, and its labels [batch, 1]."""

    draw: Draw
    taken: Taken
    labels: npt.NDArray[np.int64]


def _indices(draw: Draw) -> list[int]:
    indices: list[int] = draw.indices.tolist()
    return indices


class ListSource(ABC):
    """What sources of a list's images share: which images they leave out, and what their first batch was like."""

    _position: Position
    _bad: frozenset[int]
    _first: dict[str, Any] | None = None

    @abstractmethod
    def _build(self, position: Position) -> None:
        """Make the batches from a position on, without the images that are left out."""

    def leave_out(self, bad: Iterable[int], since: Position | None = None) -> bool:
        """Continue without these images, too; batches that were begun are dropped and made again.

        since is the position from which batches are made again, by default that of the next one. Returns whether any
        of the images is new.
        """
        all_bad = self._bad.union(bad)
        if all_bad == self._bad:
            return False
        self._bad = all_bad
        self._build(self._position if since is None else since)
        return True

    def _note_first(self, images: Any) -> None:
        """Note size, type and layout of the first batch's images."""
        if self._first is None:
            shape, dtype = images.shape, str(images.dtype)
            last = shape[3] == IMAGE_CHANNELS
            self._first = {
                "batch_size": shape[0],
                "image_size": ImageSize(*(shape[1:3] if last else shape[2:4])).plain,
                "dtype": dtype.rpartition(".")[2],
                "layout": "nhwc" if last else "nchw",
            }


class DaliSource(ListSource):
    """Endless batches of a list's images, in the sequence of an order, from a DALI pipeline.

    graph(feed, seed, state) makes the pipeline. When DALI can't decode a batch, on_faults is called with the images
    that are at fault, and the batch is made again without them; an error that on_faults raises ends the source. Each
    pipeline's seed follows from the source's seed and the position at which it is built, so that the sequence is always
    the same. When files can't be read, the source waits for their storage, and makes the batch that an undisturbed
    source would have made. Raises StorageError when that takes too long, and DecoderError when a batch fails twice
    although each of its images can be decoded.
    """

    def __init__(
        self,
        images: ImageList,
        order: Order,
        graph: Callable[[Feed, int, bytes | None], Pipeline],
        settings: PipelineSettings,
        on_faults: Callable[[Sequence[Fault], Position], None],
        *,
        seed: Sequence[int] = (0,),
        start: SourceState | None = None,
        storage: Storage | None = None,
        end_markers: EndMarkers | None = None,
    ) -> None:
        self._images, self._order, self._graph, self._settings = images, order, graph, settings
        self._on_faults, self._seed = on_faults, tuple(seed)
        self._labels = images.labels.array
        start = start or SourceState()
        self._bad = start.bad
        self._storage = storage or Storage(images, bad=self._bad)
        self._end_markers = end_markers or EndMarkers()
        self._reading = reading_of(self._storage, self._end_markers, settings.shuffle_window)
        self._drawn: deque[_Drawn] = deque()
        self._build(start.position, start.dali)

    def _build(self, position: Position, state: bytes | None = None) -> None:
        self._position = position
        # The random state until the pipeline has returned a batch.
        self._built_state: bytes | None = state
        self._returned = False
        # The pipeline before reads its copies until it is gone.
        before, self._drawn = self._drawn, deque()
        self._to_draw = self._reading.ahead(self._draws(position), _indices, self._settings.batch_size)
        seed = np.random.SeedSequence([*self._seed, position.epoch, position.step]).generate_state(1)[0]
        self._pipeline = self._graph(self._reading.feed(self._feed), int(seed) % MAX_SEED, state)
        with warnings.catch_warnings():
            # The source itself keeps the feed's position, see `state`.
            warnings.filterwarnings("ignore", message="Checkpointing enabled in a pipeline with external source")
            self._pipeline.build()
        for batch in before:
            batch.taken.close()

    def _feed(self) -> tuple[list[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]:
        """Files and labels of the next batch that DALI begins, some batches ahead of the one that it returns."""
        draw, requested = next(self._to_draw)
        taken = self._reading.take(_indices(draw), requested)
        drawn = _Drawn(draw, taken, self._labels[draw.indices, np.newaxis].astype(np.int64))
        self._drawn.append(drawn)
        return taken.arrays, drawn.labels

    def _draws(self, position: Position) -> Iterator[Draw]:
        while True:
            draw = self._order.draw(position, self._bad)
            yield draw
            position = draw.next

    def __iter__(self) -> DaliSource:
        return self

    def __next__(self) -> Batch:
        failed = False
        while True:
            try:
                images, labels = self._pipeline.run()
                break
            except RuntimeError as error:
                if not DATA_FAULT.search(str(error)):
                    raise
                state, bad = self._random_state(), self._bad
                explained = self._explain(str(error))
                if failed and not explained:
                    raise decoder_error(str(error), self._settings) from error
                failed = not explained
                # Random numbers follow from the images that are left, whatever else happened on the way.
                self._build(self._position, state if self._bad == bad else None)
        self._storage.patience.over()
        self._returned = True
        drawn = self._drawn.popleft()
        drawn.taken.close()
        draw = drawn.draw
        self._position = draw.next
        # Dense views of DALI's own buffers; they live for as long as the Paddle tensors do.
        batch = Batch(dlpack.from_dlpack(images.as_tensor()), dlpack.from_dlpack(labels.as_tensor()), draw.valid_images)
        self._note_first(batch.images)
        return batch

    def _explain(self, report: str) -> bool:
        """Find out why a batch failed with DALI's report, and wait while files can't be read.

        Returns whether the failure is explained: by its images, which are left out or replaced, or by their storage.
        """
        patience = self._storage.patience
        waits = patience.waits
        found = find_faults(self._storage, np.unique(self._drawn[0].draw.indices).tolist())
        # The first of them alone, as copies of the later ones are read in their place.
        explained = bool(found.unended) and self._end_markers.report(self._images.paths[found.unended[0]])
        if found.faults:
            explained = True
            self._on_faults(found.faults, self._position)
            self._bad = self._bad.union(fault.index for fault in found.faults)
        elif READ_FAULT.search(report) and patience.waits == waits:
            self._storage.wait(reading_failure(report))
        return explained or patience.waits > waits

    def _random_state(self) -> bytes | None:
        """DALI's random state after the last batch that it returned, also after one that failed; None if it has none.

        The checkpoint of a pipeline belongs to the batch that was returned last, however far it has read ahead.
        """
        if not self._returned:
            return self._built_state
        return self._pipeline.checkpoint() if getattr(self._pipeline, "_enable_checkpointing", False) else None

    def settings(self) -> dict[str, Any]:
        """The settings that the pipeline reports, and those of its first batch (once there was one)."""
        return {"loader": DALI_LOADER, "workers": None, **read_settings(self._pipeline), **(self._first or {})}

    def state(self, *, with_dali: bool = True) -> SourceState:
        """The source's position and the random state of crops and flips: `start` for a source that continues here.

        The random state takes 0.2 ms or more; without it the position is the next batch's all the same.
        """
        return SourceState(self._position, self._bad, self._pipeline.checkpoint() if with_dali else None)

    def close(self) -> None:
        """Let go of the pipeline, its threads and its memory. The source can't be used any more."""
        self._to_draw.close()
        # The pipeline refers to this source, so that it would otherwise stay until Python looks for cycles.
        del self._pipeline
        for batch in self._drawn:
            batch.taken.close()


class CachedSource:
    """The same few batches again and again: shows what training does when data costs nothing.

    The first `count` batches of source are kept on their device.
    """

    def __init__(self, source: Source, count: int) -> None:
        self._batches = cycle([next(source) for _ in range(count)])

    def __iter__(self) -> CachedSource:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)
