"""The one step loop: whatever yields batches, whatever consumes them, the same clock and the same records."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.device import Clock
from harness.errors import InvariantError
from harness.ranks import FloatArray, Ranks
from pipelines.source import Batch, Source

# Ranks exchange their records about this often: it bounds what a killed run loses and how late a window ends.
EXCHANGE_SECONDS = 1.0
# Steps the host may run ahead of the device. A batch stays referenced until its step is over, or DALI would reuse its
# memory under the kernels that still read it.
STEPS_IN_FLIGHT = 2

IMAGES, REQUEST, GOT, END, LOSS = range(5)


@dataclass(frozen=True, slots=True)
class GlobalStep:
    """One step of all ranks.

    index counts from 0 within the phase. end_seconds is when the slowest rank ended it, since the phase's start;
    step_seconds is the time from the end of the step before. data_wait_seconds is the part of it that the rank waiting
    longest spent without a batch. images are real ones, of all ranks; loss is their mean (NaN for a consumer without).
    """

    index: int
    images: int
    end_seconds: float
    step_seconds: float
    data_wait_seconds: float
    loss: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.data_wait_seconds <= self.step_seconds:
            raise InvariantError(
                f"step {self.index}: data wait {self.data_wait_seconds:.6f} s lies outside the step's"
                f" {self.step_seconds:.6f} s"
            )

    @property
    def fps(self) -> float:
        """Images per second, global."""
        return self.images / self.step_seconds


def never(_: GlobalStep) -> bool:
    """The end of a loop that ends by its number of steps."""
    return False


def run_steps(
    source: Source,
    consume: Callable[[Batch], Any],
    clock: Clock,
    ranks: Ranks,
    emit: Callable[[GlobalStep], None],
    done: Callable[[GlobalStep], bool] = never,
    most_steps: int | None = None,
) -> None:
    """Take batches from source and give them to consume until done says so, or for most_steps.

    consume returns the batch's mean loss, a number or a scalar tensor that is read later, or None. emit and done see
    every global step in order; done must be a function of what it sees alone, since each rank asks its own. Both are
    told in blocks of steps that last about EXCHANGE_SECONDS (as many steps as would have done so before, at most twice
    as many as the last block had), so a loop that is done may have made some steps more: these are emitted too.
    """
    ranks.barrier()
    clock.start()
    index, end_before, block = 0, 0.0, 1
    in_flight: deque[tuple[Any, Batch]] = deque()
    finished = False
    while not finished and (most_steps is None or index < most_steps):
        if most_steps is not None:
            block = min(block, most_steps - index)
        gathered = ranks.gather(_run_block(block, source, consume, clock, in_flight))
        block_start = end_before
        for step in range(block):
            record = merge_ranks(gathered[:, step], index, end_before)
            emit(record)
            finished = finished or done(record)
            end_before = record.end_seconds
            index += 1
        # The same on every rank, as it comes from what all have seen.
        wanted = round(EXCHANGE_SECONDS * block / max(end_before - block_start, 1e-9))
        block = max(1, min(wanted, 2 * block))


def _run_block(
    steps: int,
    source: Source,
    consume: Callable[[Batch], Any],
    clock: Clock,
    in_flight: deque[tuple[Any, Batch]],
) -> FloatArray:
    """Run steps on this rank: [steps, 5], columns IMAGES, REQUEST, GOT, END (seconds) and LOSS."""
    marks: list[Any] = []
    images: list[int] = []
    losses: list[Any] = []
    for _ in range(steps):
        marks.append(clock.mark())
        batch = next(source)
        marks.append(clock.mark())
        losses.append(consume(batch))
        marks.append(clock.mark())
        images.append(batch.real)
        in_flight.append((marks[-1], batch))
        if len(in_flight) > STEPS_IN_FLIGHT:
            clock.wait(in_flight.popleft()[0])
    table = np.empty((steps, 5))
    table[:, IMAGES] = images
    table[:, REQUEST : END + 1] = np.reshape(clock.seconds(marks), (steps, 3))
    table[:, LOSS] = [np.nan if loss is None else float(loss) for loss in losses]
    return table


def merge_ranks(step: FloatArray, index: int, end_before: float) -> GlobalStep:
    """One global step from every rank's record of it.

    step: [ranks, 5]. end_before is when the slowest rank ended the step before, on the same clock.
    """
    end = max(float(step[:, END].max()), end_before)
    # What a rank waited while another still worked on the step before is not this step's.
    waits = step[:, GOT] - np.maximum(step[:, REQUEST], end_before)
    images = step[:, IMAGES].sum()
    counted = step[step[:, IMAGES] > 0]
    loss = float(np.average(counted[:, LOSS], weights=counted[:, IMAGES])) if images else float("nan")
    return GlobalStep(
        index=index,
        images=int(images),
        end_seconds=end,
        step_seconds=end - end_before,
        data_wait_seconds=min(max(float(waits.max()), 0.0), end - end_before),
        loss=loss,
    )
