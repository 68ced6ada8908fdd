"""Where batches come from: DALI's output handed to Paddle without a copy, or batches kept in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Protocol

from nvidia.dali.pipeline import Pipeline
from paddle.utils import dlpack

from pipelines.errors import DataError
from pipelines.graphs import read_back

# An operator that reads or decodes, and no trouble of the GPU's, such as memory.
DATA_FAULT = re.compile(
    r"\A(?!.*(CUDA (allocation|runtime|driver|error)|out of memory)).*fn\.(readers|decoders)\.", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's batch, on its device.

    images: [batch, 3, size, size] or channels last, normalised; labels: [batch], int64. The first `real` entries are
    images of their own; the rest repeats one to fill the batch and must not be counted.
    """

    images: Any
    labels: Any
    real: int


class Source(Protocol):
    """Anything that yields batches for as long as it is asked."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...


class DaliSource:
    """Endless batches from a DALI pipeline.

    real_counts says how many entries of each batch are real, over and over: one number for training, one per step for a
    padded evaluation. Raises DataError when DALI can't read or decode a batch; it may go on behind that batch.
    """

    def __init__(self, pipeline: Pipeline, real_counts: Sequence[int]) -> None:
        self._pipeline = pipeline
        self._real = cycle(real_counts)
        self._first: dict[str, Any] | None = None
        pipeline.build()

    def __iter__(self) -> DaliSource:
        return self

    def __next__(self) -> Batch:
        try:
            images, labels = self._pipeline.run()
        except RuntimeError as error:
            if not DATA_FAULT.search(str(error)):
                raise
            raise DataError(
                f"DALI could not decode a batch: {_what_happened(str(error))}",
                "Repair the file, or take it out of the list. DALI doesn't name a file that it can't read as an image.",
            ) from error
        # Dense views of DALI's own buffers; they live for as long as the Paddle tensors do.
        batch = Batch(dlpack.from_dlpack(images.as_tensor()), dlpack.from_dlpack(labels.as_tensor()), next(self._real))
        if self._first is None:
            shape, dtype = batch.images.shape, str(batch.images.dtype)
            self._first = {"batch_size": shape[0], "image_size": shape[2], "dtype": dtype.rpartition(".")[2]}
        return batch

    def settings(self) -> dict[str, Any]:
        """What the pipeline says of itself, and what its first batch was like (once there was one)."""
        return {**read_back(self._pipeline), **(self._first or {})}

    def state(self) -> bytes:
        """Where the pipeline stands, random states included: the `state` of an equal graph that goes on from here."""
        saved: bytes = self._pipeline.checkpoint()
        return saved


class CachedSource:
    """The same few batches over and over: what training does when data costs nothing.

    The first `count` batches of source are kept where they are.
    """

    def __init__(self, source: Source, count: int) -> None:
        self._batches = cycle([next(source) for _ in range(count)])

    def __iter__(self) -> CachedSource:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)


def _what_happened(text: str) -> str:
    """The cause in DALI's report, without the graph's traceback around it."""
    cause = text.partition("encountered:")[2] or text
    lines = [line.strip() for line in cause.splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("Current pipeline object"))
