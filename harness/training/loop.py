"""The one step loop: whatever yields batches, whatever consumes them, the same clock and the same records."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.errors import InvariantError
from harness.launch import watchdog
from harness.machine.device import Clock
from pipelines.batch import Batch, Source

if TYPE_CHECKING:
    from harness.training.ranks import Ranks

FloatArray = npt.NDArray[np.float64]

# Ranks exchange their records about this often: it bounds what a killed run loses and how late a loop ends.
EXCHANGE_SECONDS = 1.0
# Steps the host may run ahead of the device. A batch stays referenced until its step is over, or DALI would reuse its
# memory under the kernels that still read it.
STEPS_IN_FLIGHT = 2

IMAGES, REQUEST, GOT, FORWARD, BACKWARD, END, LOSS, RECORDING, BAD = range(9)
# The parts of a step that a consumer may mark: behind the forward pass and behind the backward pass.
SPLITS = 2

# consume(batch, lap) takes a batch, calls lap behind its forward and its backward pass or not at all, and returns the
# batch's mean loss, a number or a scalar tensor that is read later, or None.
Consumer = Callable[[Batch, Callable[[], None]], Any]


@dataclass(frozen=True, slots=True)
class GlobalStep:
    """One step of all ranks.

    index counts from 0 within the block. end_seconds is when the slowest rank ended it, since the block's start;
    step_seconds is the time from the end of the step before. It has four parts, read on the rank that got its batch
    last, for which the others wait: recording_seconds, exchange_seconds (what else lies between two steps, such as the
    ranks' exchange of records), data_wait_seconds and compute_seconds. The last has forward, backward and optimizer in
    it, NaN for a consumer that doesn't tell them apart. slowest_rank is the rank that computed longest,
    rank_skew_seconds how much longer than the quickest. images are real ones, of all ranks; loss is their mean (NaN for
    a consumer without), and nonfinite_rank the first rank without a finite one.
    """

    index: int
    images: int
    end_seconds: float
    step_seconds: float
    data_wait_seconds: float
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

    def __post_init__(self) -> None:
        parts = (self.data_wait_seconds, self.compute_seconds, self.recording_seconds, self.exchange_seconds)
        if min(parts) < 0.0 or abs(sum(parts) - self.step_seconds) > 1e-6:
            raise InvariantError(
                f"step {self.index}: parts of {', '.join(f'{part:.6f}' for part in parts)} s don't make the step's"
                f" {self.step_seconds:.6f} s"
            )

    @property
    def fps(self) -> float:
        """Images per second, global; NaN for a step too short for the clock."""
        return self.images / self.step_seconds if self.step_seconds else float("nan")


def pause(seconds: float) -> GlobalStep:
    """A stretch of time in which the ranks made no step."""
    unknown = float("nan")
    return GlobalStep(0, 0, seconds, seconds, 0.0, 0.0, unknown, unknown, unknown, 0.0, seconds, 0, 0.0, unknown)


class BadNews(Protocol):
    """What the loop needs to know of bad images, see `harness.training.bad_images`."""

    untold: list[Any]

    def share(self) -> None:
        """Tell the other ranks; all call this at the same moment."""


def never(_: GlobalStep) -> bool:
    """The end of a loop that ends by its number of steps."""
    return False


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
) -> None:
    """Take batches from source and give them to consume until done says so, or for max_steps, each of this many
    batches.

    emit and done see every global step in order; any rank's done counts, for every rank. Both are called in bursts of
    steps that last about EXCHANGE_SECONDS (as many steps as would have done so before, at most twice as many as the
    last burst had), so a loop that is done may have made some steps more: these are emitted too. bad holds the images
    that this rank's source couldn't use; when any rank has some, all tell each other.
    """
    ranks.barrier()
    watchdog.progress()
    clock.start()
    index, end_before, burst, recording_seconds = 0, 0.0, 1, 0.0
    in_flight: deque[tuple[Any, Batch]] = deque()
    finished = False
    while not finished and (max_steps is None or index < max_steps):
        if max_steps is not None:
            burst = min(burst, max_steps - index)
        table = _run_burst(burst * batches, source, consume, clock, in_flight)
        table[0, RECORDING] = recording_seconds
        table[0, BAD] = len(bad.untold) if bad is not None else 0
        gathered = ranks.gather(table).reshape((ranks.world_size, burst, batches, -1))
        watchdog.progress()
        burst_start, began = end_before, clock.host_seconds()
        for step in range(burst):
            record = merge_ranks(gathered[:, step], index, end_before)
            emit(record)
            finished = done(record) or finished
            end_before = record.end_seconds
            index += 1
        recording_seconds = clock.host_seconds() - began
        if done is not never:
            finished = ranks.any(finished)
        if bad is not None and gathered[:, 0, 0, BAD].any():
            bad.share()
        # The same on every rank, as it comes from what all have seen.
        wanted = round(EXCHANGE_SECONDS * burst / max(end_before - burst_start, 1e-9))
        burst = max(1, min(wanted, 2 * burst))


def _run_burst(
    batches: int,
    source: Source,
    consume: Consumer,
    clock: Clock,
    in_flight: deque[tuple[Any, Batch]],
) -> FloatArray:
    """Take batches on this rank: [batches, 9], columns IMAGES, REQUEST to END (s), LOSS, RECORDING and BAD (0)."""
    marks: list[Any] = []
    images: list[int] = []
    losses: list[Any] = []

    def mark_split() -> None:
        marks.append(clock.mark())

    for _ in range(batches):
        # An exchange may come late where one step takes many batches.
        watchdog.progress()
        mark_split()
        batch = next(source)
        mark_split()
        losses.append(consume(batch, mark_split))
        mark_split()
        images.append(batch.valid_images)
        in_flight.append((marks[-1], batch))
        if len(in_flight) > STEPS_IN_FLIGHT:
            clock.wait(in_flight.popleft()[0])
    if len(marks) not in (3 * batches, (3 + SPLITS) * batches):
        raise InvariantError(
            f"{len(marks)} marks in {batches} batches; a consumer tells {SPLITS} laps of each, or none"
        )
    seconds = np.reshape(clock.seconds(marks), (batches, -1))
    table = np.full((batches, 9), np.nan)
    table[:, IMAGES] = images
    table[:, [REQUEST, GOT, END]] = seconds[:, [0, 1, -1]]
    if seconds.shape[1] > 3:
        table[:, [FORWARD, BACKWARD]] = seconds[:, 2:-1]
    table[:, LOSS] = [np.nan if loss is None else float(loss) for loss in losses]
    table[:, [RECORDING, BAD]] = 0.0
    return table


def merge_ranks(step: FloatArray, index: int, end_before: float) -> GlobalStep:
    """One global step from every rank's record of it.

    step: [ranks, batches, 9]. end_before is when the slowest rank ended the step before, on the same clock.
    """
    began, parts = end_before, []
    for batch in range(step.shape[1]):
        parts.append(_parts(step[:, batch], began))
        began = max(float(step[:, batch, END].max()), began)
    recording, other, wait, compute, forward, backward, optimizer = (float(part) for part in np.sum(parts, axis=0))
    busy = (step[..., END] - step[..., GOT]).sum(axis=1)
    images = step[..., IMAGES].sum()
    counted = step[step[..., IMAGES] > 0]
    lost = np.flatnonzero(((step[..., IMAGES] > 0) & ~np.isfinite(step[..., LOSS])).any(axis=1))
    loss = float(np.average(counted[:, LOSS], weights=counted[:, IMAGES])) if images else float("nan")
    return GlobalStep(
        index=index,
        images=int(images),
        end_seconds=began,
        step_seconds=began - end_before,
        data_wait_seconds=wait,
        compute_seconds=compute,
        forward_seconds=forward,
        backward_seconds=backward,
        optimizer_seconds=optimizer,
        recording_seconds=recording,
        exchange_seconds=other,
        slowest_rank=int(np.argmax(busy)),
        rank_skew_seconds=float(busy.max() - busy.min()),
        loss=loss,
        nonfinite_rank=int(lost[0]) if lost.size else None,
    )


def _parts(batch: FloatArray, end_before: float) -> tuple[float, ...]:
    """Seconds of a batch [ranks, 9], on the rank that got it last.

    They are spent on recording, on other things, waiting for data and computing; and of the latter on the forward pass,
    the backward pass and the rest.
    """
    end = max(float(batch[:, END].max()), end_before)
    last = batch[int(np.argmax(batch[:, GOT]))]
    # What a rank did while another still worked on the batch before is not this one's.
    request, got, forward, backward = (
        min(max(float(mark), end_before), end) for mark in last[[REQUEST, GOT, FORWARD, BACKWARD]]
    )
    between = request - end_before
    recording = min(float(last[RECORDING]), between)
    laps = (forward - got, backward - forward, end - backward)
    return recording, between - recording, got - request, end - got, *laps
