"""The step loop's arithmetic, on a clock whose truth is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from harness.device import HostClock
from harness.errors import InvariantError
from harness.loop import GlobalStep, merge_ranks, run_steps
from harness.ranks import FloatArray, Ranks
from harness.worker import window_end
from pipelines.source import Batch


class FakeTime:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def spend(self, seconds: float) -> None:
        self.seconds += seconds


def batches(time: FakeTime, waits: Iterator[float], images: int = 8) -> Iterator[Batch]:
    for wait in waits:
        time.spend(wait)
        yield Batch(None, None, images)


def training(time: FakeTime, seconds: float, loss: float = 2.0) -> Callable[[Batch], float]:
    def consume(batch: Batch) -> float:
        time.spend(seconds)
        return loss

    return consume


def run(waits: Iterator[float], compute: float, **limits: object) -> list[GlobalStep]:
    time, steps = FakeTime(), list[GlobalStep]()
    done = limits.pop("done", lambda _: False)
    run_steps(
        batches(time, waits),
        training(time, compute),
        HostClock(time),
        Ranks(0, 1),
        steps.append,
        done,  # type: ignore[arg-type]
        **limits,  # type: ignore[arg-type]
    )
    return steps


def test_every_second_of_a_step_is_wait_or_work() -> None:
    steps = run(itertools.repeat(0.25), 0.75, most_steps=10)
    assert [step.index for step in steps] == list(range(10))
    assert [step.step_seconds for step in steps] == pytest.approx([1.0] * 10)
    assert [step.data_wait_seconds for step in steps] == pytest.approx([0.25] * 10)
    assert [step.end_seconds for step in steps] == pytest.approx(list(range(1, 11)))
    assert [step.fps for step in steps] == pytest.approx([8.0] * 10)
    assert {step.loss for step in steps} == {2.0}


def test_a_stall_shows_in_its_own_step_only() -> None:
    waits = itertools.chain([0.1] * 3, [5.0], itertools.repeat(0.1))
    steps = run(waits, 0.4, most_steps=6)
    assert [step.data_wait_seconds for step in steps] == pytest.approx([0.1, 0.1, 0.1, 5.0, 0.1, 0.1])
    assert [step.step_seconds for step in steps] == pytest.approx([0.5, 0.5, 0.5, 5.4, 0.5, 0.5])


def test_the_window_begins_behind_the_warm_up_and_ends_by_time() -> None:
    # 3 warm-up steps of 0.5 s; the window of 2 s is over with its 4th step. Blocks of about a second may add a step.
    steps = run(itertools.repeat(0.1), 0.4, done=window_end(3, 2.0))
    assert len(steps) in (7, 8)
    measured = steps[3:]
    assert sum(step.images for step in measured) / sum(step.step_seconds for step in measured) == pytest.approx(16.0)


def test_a_window_shorter_than_a_step_holds_one() -> None:
    assert len(run(itertools.repeat(1.0), 9.0, done=window_end(2, 0.001))) == 3


def test_most_steps_is_exact_whatever_the_blocks() -> None:
    for wanted in (1, 2, 7, 64):
        assert len(run(itertools.repeat(0.01), 0.02, most_steps=wanted)) == wanted


def test_a_loop_that_turns_slow_is_not_left_long_without_a_look() -> None:
    """Batches that were ready make the first steps fast; the rest waits 3 s for each."""
    steps = run(itertools.chain([0.0] * 6, itertools.repeat(3.0)), 0.01, done=window_end(2, 10.0))
    # the 4 fast steps and 4 slow ones fill the window; the block that finds it out may hold as many again
    assert 8 <= len(steps) - 2 <= 16


def test_what_the_recorder_costs_counts_as_step_time_but_not_as_data_wait() -> None:
    time, steps = FakeTime(), list[GlobalStep]()

    def emit(step: GlobalStep) -> None:
        time.spend(2.0)
        steps.append(step)

    run_steps(
        batches(time, itertools.repeat(1.0)),
        training(time, 3.0),
        HostClock(time),
        Ranks(0, 1),
        emit,
        lambda _: False,
        3,
    )
    assert [step.step_seconds for step in steps] == pytest.approx([4.0, 6.0, 6.0])
    assert [step.data_wait_seconds for step in steps] == pytest.approx([1.0] * 3)


def test_batches_are_held_until_the_device_is_done_with_them() -> None:
    time = FakeTime()
    waited: list[float] = []

    class Clock(HostClock):
        def wait(self, mark: float) -> None:
            waited.append(mark)

    run_steps(
        batches(time, itertools.repeat(0.25)), training(time, 0.25), Clock(time), Ranks(0, 1), lambda _: None,
        lambda _: False, 5,
    )  # fmt: skip
    # Before step k goes on, step k - 2 has been waited for.
    assert waited == pytest.approx([0.5, 1.0, 1.5])


def rank_rows(*rows: tuple[float, float, float, float, float]) -> FloatArray:
    """Rows of images, request, got, end, loss."""
    return np.array(rows)


def test_a_step_of_four_ranks_is_as_long_as_the_slowest() -> None:
    step = merge_ranks(
        rank_rows(
            (8, 10.0, 10.1, 11.0, 1.0), (8, 10.0, 10.4, 11.5, 2.0), (8, 10.0, 10.0, 11.2, 3.0), (8, 9.9, 10.2, 11, 4)
        ),
        index=7,
        end_before=10.0,
    )
    assert step.images == 32
    assert step.step_seconds == pytest.approx(1.5)
    assert step.data_wait_seconds == pytest.approx(0.4)
    assert step.fps == pytest.approx(32 / 1.5)
    assert step.loss == pytest.approx(2.5)


def test_waiting_during_the_step_before_is_not_this_steps() -> None:
    # Rank 1 ended step 6 at 9.0 and waited until 10.3, while the slowest rank worked on step 6 until 10.0.
    step = merge_ranks(rank_rows((8, 10.0, 10.1, 11.0, 1.0), (8, 9.0, 10.3, 11.0, 1.0)), index=7, end_before=10.0)
    assert step.data_wait_seconds == pytest.approx(0.3)


def test_loss_counts_every_real_image_once() -> None:
    step = merge_ranks(rank_rows((3, 0, 0, 1, 1.0), (1, 0, 0, 1, 5.0), (0, 0, 0, 1, math.nan)), 0, 0.0)
    assert step.images == 4
    assert step.loss == pytest.approx(2.0)


def test_no_real_image_no_loss() -> None:
    step = merge_ranks(rank_rows((0, 0, 0, 1, math.nan)), 0, 0.0)
    assert step.images == 0
    assert math.isnan(step.loss)


def test_a_wait_longer_than_its_step_is_refused() -> None:
    with pytest.raises(InvariantError, match=r"step 3: data wait 2\.000000 s lies outside the step's 1\.000000 s"):
        GlobalStep(3, 8, 10.0, 1.0, 2.0, 0.0)
