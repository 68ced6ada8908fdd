"""The one step loop: any source of batches, any consumer, with the same clock and the same records."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.errors import InvariantError
from harness.launch import watchdog
from harness.machine.clock import Clock
from pipelines.batch import Batch, Source

if TYPE_CHECKING:
    from harness.training.ranks import Ranks

FloatArray = npt.NDArray[np.float64]

# Ranks exchange their records about once in this time, which bounds what a killed run loses and how late a loop ends.
EXCHANGE_SECONDS = 1.0
# Steps the host may run ahead of the device. A batch stays referenced until its step is over: DALI would otherwise
# reuse its memory while kernels still read it.
STEPS_IN_FLIGHT = 2

IMAGES, REQUEST, GOT, ARRIVED, FORWARD, BACKWARD, END, LOSS, RECORDING, BAD, AWAY = range(11)
COLUMNS = AWAY + 1
# Marks of every batch: when it was asked for, when the source gave it, when it was on its device, and its end.
MARKS = 4
# Split marks that a consumer may set in a batch: after the forward pass and after the backward pass.
SPLITS = 2

# consume(batch, mark_split) takes a batch, calls mark_split after its forward and its backward pass or not at all, and
# returns the batch's mean loss (a number, or a scalar tensor of float32 that is read later) or None.
Consumer = Callable[[Batch, Callable[[], None]], Any]


@dataclass(frozen=True, slots=True)
class GlobalStep:
    """One step of all ranks.

    index counts from 0 within the segment. end_seconds is when the slowest rank ended the step, since the segment's
    start; step_seconds is the time since the end of the previous step. It has five parts, measured on the rank that got
    its batch last, for which the others wait: recording_seconds, exchange_seconds (everything else between two steps,
    such as the exchange of records between ranks), data_wait_seconds, copy_seconds (waiting for the batch's copy to the
    device) and compute_seconds. compute_seconds consists of the forward, backward and optimizer seconds, which are NaN
    for a consumer that sets no split marks. slowest_rank is the rank that computed longest, rank_skew_seconds how much
    longer than the fastest. images counts the valid images of all ranks; loss is their mean (NaN for a consumer without
    a loss), nonfinite_rank the first rank whose loss is not finite. storage_wait_seconds: see the table
    """

    index: int
    images: int
    end_seconds: float
    step_seconds: float
    data_wait_seconds: float
    copy_seconds: float
    compute_seconds: float
    forward_seconds: float
    backward_seconds: float
    optimizer_seconds: float
    recording_seconds: float
    exchange_seconds: float
    slowest_rank: int
    rank_skew_seconds: float
    loss: float
    nonfinite_rank: int | None = None
    storage_wait_seconds: float = 0.0

    def __post_init__(self) -> None:
        parts = (
            self.data_wait_seconds,
            self.copy_seconds,
            self.compute_seconds,
            self.recording_seconds,
            self.exchange_seconds,
        )
        if min(parts) < 0.0 or abs(sum(parts) - self.step_seconds) > 1e-6:
            raise InvariantError(
                f"step {self.index}: parts of {', '.join(f'{part:.6f}' for part in parts)} s don't add up to the"
                f" step's {self.step_seconds:.6f} s"
            )

    @property
    def fps(self) -> float:
        """Images per second, global; NaN for a step too short for the clock."""
        return self.images / self.step_seconds if self.step_seconds else float("nan")


def pause(seconds: float) -> GlobalStep:
    """A period of this length in which the ranks made no step."""
    unknown = float("nan")
    return GlobalStep(0, 0, seconds, seconds, 0.0, 0.0, 0.0, unknown, unknown, unknown, 0.0, seconds, 0, 0.0, unknown)


class BadNews(Protocol):
    """What the loop needs to know of bad images, see `harness.training.loading.bad_images`."""

    unshared: list[Any]

    def share(self) -> None:
        """Share them with the other ranks; every rank calls this at the same moment."""


def never(_: GlobalStep) -> bool:
    """Return False: for a loop that ends after a number of steps."""
    return False


def _nothing() -> None:
    """Do nothing at the edge of a burst."""


class _Records:
    """The records of steps that are still to be emitted, and the seconds that emitting took; see `run_steps`."""

    def __init__(self, emit: Callable[[GlobalStep], None], clock: Clock) -> None:
        self._emit, self._clock = emit, clock
        self.waiting: deque[GlobalStep] = deque()
        self._seconds = 0.0

    def add(self, step: GlobalStep) -> None:
        """Emit a step, later if the device can work meanwhile."""
        if self._clock.runs_ahead:
            self.waiting.append(step)
        else:
            self._emit(step)

    def emit_waiting(self, count: int) -> None:
        """Emit this number of the steps that wait for it, or all if they are fewer."""
        began = self._clock.host_seconds()
        for _ in range(min(count, len(self.waiting))):
            self._emit(self.waiting.popleft())
        self.count_since(began)

    def count_since(self, began: float) -> None:
        """Count the time since the host's second `began` as recording."""
        self._seconds += self._clock.host_seconds() - began

    def take_seconds(self) -> float:
        """Returns the seconds counted since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def run_steps(
    source: Source,
    consume: Consumer,
    clock: Clock,
    ranks: Ranks,
    emit: Callable[[GlobalStep], None],
    done: Callable[[GlobalStep], bool] = never,
    max_steps: int | None = None,
    bad: BadNews | None = None,
    batches: int = 1,
    at_edge: Callable[[], None] = _nothing,
    away_seconds: Callable[[], float] = float,
) -> None:
    """Take batches from source and pass them to consume until done returns True, or for max_steps.

    batches is the number of batches of a step on each rank. emit and done are called with every global step in order;
    when done is True on any rank, all ranks end. Both are called in bursts of steps that last about EXCHANGE_SECONDS
    (the number of steps that would have taken that long before, at most twice the last burst's), so a loop may make a
    few more steps after the one that ends it: these are emitted too. Where the host runs ahead of the device, a burst's
    steps are emitted while the next burst's are queued, so that the device works meanwhile.

    bad holds the images that this rank's source couldn't use; when any rank has some, all ranks share theirs. at_edge
    is called as the loop begins, and after each burst as soon as the device has finished it. away_seconds returns the
    source's waits for storage in all.
    """
    ranks.barrier()
    watchdog.progress()
    clock.start()
    at_edge()
    index, end_before, burst = 0, 0.0, 1
    records = _Records(emit, clock)
    in_flight: deque[tuple[Any, Batch]] = deque()
    finished = False
    while not finished and (max_steps is None or index < max_steps):
        if max_steps is not None:
            burst = min(burst, max_steps - index)
        table = _run_burst(burst * batches, source, consume, clock, in_flight, records, at_edge, away_seconds)
        table[0, BAD] = len(bad.unshared) if bad is not None else 0
        gathered = ranks.gather(table).reshape((ranks.world_size, burst, batches, -1))
        watchdog.step_made()
        burst_start, began = end_before, clock.host_seconds()
        for record in merge_ranks(gathered, index, end_before):
            records.add(record)
            finished = done(record) or finished
            end_before = record.end_seconds
        index += burst
        records.count_since(began)
        if done is not never:
            finished = ranks.any(finished)
        if bad is not None and gathered[:, 0, 0, BAD].any():
            bad.share()
        # The same on every rank, as it follows from records that all ranks have.
        wanted = round(EXCHANGE_SECONDS * burst / max(end_before - burst_start, 1e-9))
        burst = max(1, min(wanted, 2 * burst))
    records.emit_waiting(len(records.waiting))


def _run_burst(
    batches: int,
    source: Source,
    consume: Consumer,
    clock: Clock,
    in_flight: deque[tuple[Any, Batch]],
    records: _Records,
    at_edge: Callable[[], None],
    away_seconds: Callable[[], float],
) -> FloatArray:
    """Take batches on this rank and consume them; emit the records that wait for it while the device is busy.

    Returns [batches, COLUMNS]: IMAGES, REQUEST to END (s), LOSS, RECORDING (s), BAD (0) and AWAY (s).
    """
    marks: list[Any] = []
    images: list[int] = []
    losses: list[Any] = []
    recording: list[float] = []
    away = [away_seconds()]
    each = math.ceil(len(records.waiting) / max(1, batches - STEPS_IN_FLIGHT))

    def mark_split() -> None:
        marks.append(clock.mark())

    for number in range(batches):
        # With many batches per step, the next exchange may be far off.
        watchdog.progress()
        if number >= STEPS_IN_FLIGHT:
            records.emit_waiting(each)
        recording.append(records.take_seconds())
        mark_split()
        batch = next(source)
        mark_split()
        away.append(away_seconds())
        batch.arrive()
        mark_split()
        losses.append(consume(batch, mark_split))
        mark_split()
        images.append(batch.valid_images)
        in_flight.append((marks[-1], batch))
        if len(in_flight) > STEPS_IN_FLIGHT:
            mark, held = in_flight.popleft()
            clock.wait(mark)
            del held
    records.emit_waiting(len(records.waiting))
    if len(marks) not in (MARKS * batches, (MARKS + SPLITS) * batches):
        raise InvariantError(f"{len(marks)} marks in {batches} batches; each must have {SPLITS} split marks, or none")
    seconds = np.reshape(clock.seconds(marks), (batches, -1))
    at_edge()
    table = np.full((batches, COLUMNS), np.nan)
    table[:, IMAGES] = images
    table[:, [REQUEST, GOT, ARRIVED, END]] = seconds[:, [0, 1, 2, -1]]
    if seconds.shape[1] > MARKS:
        table[:, [FORWARD, BACKWARD]] = seconds[:, 3:-1]
    table[:, LOSS] = _numbers(losses)
    table[:, RECORDING] = recording
    table[:, BAD] = 0.0
    table[:, AWAY] = np.diff(away)
    return table


def _numbers(losses: Sequence[Any]) -> list[float]:
    """Returns losses as numbers, NaN for None; those on a device are copied to the host together."""
    on_device = [loss for loss in losses if hasattr(loss, "numpy")]
    copied: Iterator[float] = iter(())
    if on_device:
        from paddle import stack

        copied = iter(stack(on_device).numpy().tolist())
    return [np.nan if loss is None else next(copied) if hasattr(loss, "numpy") else float(loss) for loss in losses]


def merge_ranks(burst: FloatArray, index: int, end_before: float) -> list[GlobalStep]:
    """The global steps of a burst, from every rank's records of them.

    burst: [ranks, steps, batches, COLUMNS]. index is that of the first step; end_before is when the slowest rank ended
    the step before it, on the same clock. All steps at once, as the device may have nothing to do meanwhile.
    """
    ranks, steps, batches, _ = burst.shape
    flat = burst.reshape(ranks, steps * batches, -1)
    edges = np.maximum.accumulate(np.append(end_before, flat[..., END].max(axis=0)))
    parts = _parts(flat, edges[:-1], edges[1:]).reshape(steps, batches, -1).sum(axis=1).tolist()
    begins, ends = edges[:-1:batches].tolist(), edges[batches::batches].tolist()
    busy = (burst[..., END] - burst[..., ARRIVED]).sum(axis=2)
    skews, slowest = (busy.max(axis=0) - busy.min(axis=0)).tolist(), busy.argmax(axis=0).tolist()
    lost = ((burst[..., IMAGES] > 0) & ~np.isfinite(burst[..., LOSS])).any(axis=2)
    first_lost, any_lost = lost.argmax(axis=0).tolist(), lost.any(axis=0).tolist()
    images, losses = burst[..., IMAGES].sum(axis=(0, 2)).tolist(), _mean_losses(burst)
    away = burst[..., AWAY].sum(axis=2).max(axis=0).tolist()
    merged = []
    for step, (recording, exchange, wait, copy, compute, forward, backward, optimizer) in enumerate(parts):
        merged.append(
            GlobalStep(
                index=index + step,
                images=int(images[step]),
                end_seconds=ends[step],
                step_seconds=ends[step] - begins[step],
                data_wait_seconds=wait,
                copy_seconds=copy,
                compute_seconds=compute,
                forward_seconds=forward,
                backward_seconds=backward,
                optimizer_seconds=optimizer,
                recording_seconds=recording,
                exchange_seconds=exchange,
                slowest_rank=slowest[step],
                rank_skew_seconds=skews[step],
                loss=losses[step],
                nonfinite_rank=first_lost[step] if any_lost[step] else None,
                storage_wait_seconds=away[step],
            )
        )
    return merged


def _parts(batches: FloatArray, begins: FloatArray, ends: FloatArray) -> FloatArray:
    """The parts of each batch's time in seconds, on the rank that got it last; batches: [ranks, batches, COLUMNS].

    Returns, for each batch, the seconds of recording, exchange, data wait, copy and computing, then the last's parts:
    forward pass, backward pass and optimizer.
    """
    last = batches[batches[..., ARRIVED].argmax(axis=0), np.arange(batches.shape[1])]
    # What a rank did while another one still worked on the previous batch belongs to that batch.
    marks = np.clip(last[:, [REQUEST, GOT, ARRIVED, FORWARD, BACKWARD]], begins[:, np.newaxis], ends[:, np.newaxis])
    request, got, arrived, forward, backward = marks.T
    between = request - begins
    recording = np.minimum(last[:, RECORDING], between)
    computing = (forward - arrived, backward - forward, ends - backward)
    parts = (recording, between - recording, got - request, arrived - got, ends - arrived, *computing)
    return np.stack(parts, axis=1)


def _mean_losses(burst: FloatArray) -> list[float]:
    """The mean loss of each step's images; NaN for a step without any. burst: [ranks, steps, batches, COLUMNS]."""
    steps = burst.shape[1]
    images, losses = (burst[..., column].swapaxes(0, 1).reshape(steps, -1) for column in (IMAGES, LOSS))
    counted = images > 0
    if counted.all():
        means: list[float] = ((losses * images).sum(axis=1) / images.sum(axis=1)).tolist()
        return means
    return [
        float(np.average(loss[known], weights=weight[known])) if known.any() else float("nan")
        for loss, weight, known in zip(losses, images, counted, strict=True)
    ]
