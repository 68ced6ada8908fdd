"""A batch, and anything that yields batches; neither needs Paddle or DALI to be named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's batch, on its device.

    images: [batch, 3, size, size] or channels last, normalised; labels: [batch], int64. The first `real` entries are
    images of their own; the rest repeats one to fill the batch and must not be counted.
    """

    images: Any
    labels: Any
    valid_images: int


class Source(Protocol):
    """Anything that yields batches for as long as it is asked."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...
