"""A batch, and the protocol of what yields batches, for code that needs neither Paddle nor DALI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's batch, on its device.

    images: [batch, 3, size, size] or channels last, normalised; labels: [batch], int64. The first valid_images entries
    count; the rest repeats one image to fill the batch and must not be counted.
    """

    images: Any
    labels: Any
    valid_images: int


class Source(Protocol):
    """Anything that yields batches without end."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...
