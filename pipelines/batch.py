"""A batch, and the protocol of what yields batches, for code that needs neither Paddle nor DALI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pipelines.sampling import Position
    from pipelines.source import SourceState


def _is_there() -> None:
    """Do nothing: the batch is on its device."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's batch, on its device or on the way to it.

    images: [batch, 3, size, size] or channels last, normalised; labels: [batch], int64. The first valid_images entries
    count; the rest repeats one image to fill the batch and must not be counted. Call arrive before the device works on
    the batch: it makes the device wait for the batch's copy, where there is one. on_host is what the copy reads.
    """

    images: Any
    labels: Any
    valid_images: int
    arrive: Callable[[], None] = _is_there
    on_host: Any = None


class Source(Protocol):
    """Anything that yields batches without end."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...


class RankSource(Source, Protocol):
    """A source of a rank's images, on its device or on the way to it."""

    def leave_out(self, bad: Iterable[int]) -> object:
        """Continue without these images, too."""

    def settings(self) -> dict[str, Any]:
        """The settings in force, by PipelineSettings' names."""
        ...

    def state(self) -> SourceState:
        """Where an equal source continues."""
        ...

    def close(self) -> None:
        """Let go of what makes the batches."""


class HostSource(RankSource, Protocol):
    """A source whose batches are on the host; see `pipelines.source.DaliSource`."""

    def leave_out(self, bad: Iterable[int], since: Position | None = None) -> bool:
        """Continue without these images, too, from a position on; returns whether any of them is new."""
        ...

    def state(self, *, with_dali: bool = True) -> SourceState:
        """Where an equal source continues; without DALI's part, which takes a while, only the position."""
        ...
