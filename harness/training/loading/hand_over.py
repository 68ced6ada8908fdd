"""Moves DALI's batches from the host to the device's memory, while the batch before is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from paddle import device

from harness.machine.device_kinds import device_kind
from pipelines.batch import Batch, HostSource, RankSource
from pipelines.source import SourceState


class HandOver:
    """The batches of a source, each copied to Paddle's current device on a stream apart from the training's.

    The copy of the next batch begins before a batch is returned. `Batch.arrive` makes the training's stream wait for
    the copy; the host never does. A batch keeps DALI's buffers, as the copy may still read them. saves_state: the
    source's state may be asked for.
    """

    def __init__(self, source: HostSource, *, saves_state: bool) -> None:
        self._source, self._saves_state = source, saves_state
        self._stream = device.Stream()
        self._ahead: Batch | None = None
        self._before = SourceState()

    def __iter__(self) -> HandOver:
        return self

    def __next__(self) -> Batch:
        batch = self._ahead if self._ahead is not None else self._send()
        self._before = self._source.state(with_dali=self._saves_state)
        self._ahead = self._send()
        return batch

    def _send(self) -> Batch:
        """Returns the next batch, whose copy has begun."""
        on_host = next(self._source)
        arrived = device.Event()
        with device.stream_guard(self._stream):
            images, labels = (self._copied(tensor) for tensor in (on_host.images, on_host.labels))
            arrived.record(self._stream)

        def arrive() -> None:
            device.current_stream().wait_event(arrived)

        return Batch(images, labels, on_host.valid_images, arrive, on_host)

    def _copied(self, tensor: Any) -> Any:
        return tensor._copy_to(self._stream.device, False)

    def leave_out(self, bad: Iterable[int]) -> None:
        """Continue without these images, too; the batch that was sent ahead is made again."""
        if self._source.leave_out(bad, since=None if self._ahead is None else self._before.position):
            self._ahead = None

    def settings(self) -> dict[str, Any]:
        """The settings that the pipeline reports; see `DaliSource.settings`."""
        return self._source.settings()

    def state(self) -> SourceState:
        """Where the batch that is returned next comes from; see `DaliSource.state`."""
        return self._source.state() if self._ahead is None else self._before

    def close(self) -> None:
        """Wait for the copy that is under way, and let go of the source; see `DaliSource.close`."""
        self._stream.synchronize()
        self._ahead = None
        self._source.close()


def on_device(source: HostSource, name: str, decoder: str, *, saves_state: bool) -> RankSource:
    """A source whose batches, which this decoder made, are on the device of this kind, or on the way to it."""
    return HandOver(source, saves_state=saves_state) if device_kind(name).hands_over(decoder) else source
