"""The step loop's arithmetic, on a clock whose truth is known."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import paddle
import pytest

from harness.errors import InvariantError
from harness.machine.clock import HostClock
from harness.training.loop import Consumer, GlobalStep, never, run_steps
from harness.training.ranks import FloatArray, Ranks
from pipelines.batch import Batch
from tests.support.simulation import Cluster, FakeTime, SimulatedRanks, parts

MarkSplit = Callable[[], None]


def batches(time: FakeTime, waits: Iterator[float], images: int = 8) -> Iterator[Batch]:
    for wait in waits:
        time.spend(wait)
        yield Batch(None, None, images)


def training(time: FakeTime, seconds: float, loss: float = 2.0) -> Consumer:
    """A consumer that doesn't tell its passes apart."""

    def consume(batch: Batch, mark_split: MarkSplit) -> float:
        time.spend(seconds)
        return loss

    return consume


def run(
    waits: Iterator[float],
    compute: float,
    done: Callable[[GlobalStep], bool] = never,
    max_steps: int | None = None,
) -> list[GlobalStep]:
    time, steps = FakeTime(), list[GlobalStep]()
    run_steps(
        batches(time, waits), training(time, compute), HostClock(time), Ranks(0, 1), steps.append, done, max_steps
    )
    return steps


def test_every_second_of_a_step_is_wait_or_work() -> None:
    steps = run(itertools.repeat(0.25), 0.75, max_steps=10)
    assert [step.index for step in steps] == list(range(10))
    assert [step.step_seconds for step in steps] == pytest.approx([1.0] * 10)
    assert [step.data_wait_seconds for step in steps] == pytest.approx([0.25] * 10)
    assert [step.end_seconds for step in steps] == pytest.approx(list(range(1, 11)))
    assert [step.compute_seconds for step in steps] == pytest.approx([0.75] * 10)
    assert [step.fps for step in steps] == pytest.approx([8.0] * 10)
    assert {step.loss for step in steps} == {2.0}
    # One rank is neither quicker nor slower than itself.
    assert {(step.slowest_rank, step.rank_skew_seconds) for step in steps} == {(0, 0.0)}


def test_a_wait_for_storage_is_that_of_its_step() -> None:
    """Case B1: the source waited 4 s for the files of the sixth batch."""
    time, steps, away = FakeTime(), list[GlobalStep](), [0.0]

    def source() -> Iterator[Batch]:
        for number in itertools.count():
            if number == 5:
                time.spend(4.0)
                away[0] += 4.0
            time.spend(0.25)
            yield Batch(None, None, 8)

    run_steps(
        source(), training(time, 0.5), HostClock(time), Ranks(0, 1), steps.append, max_steps=8,
        away_seconds=lambda: away[0],
    )  # fmt: skip
    assert [step.storage_wait_seconds for step in steps] == [0.0] * 5 + [4.0] + [0.0] * 2
    assert steps[5].data_wait_seconds == pytest.approx(4.25)


def test_waiting_for_a_copy_is_a_part_of_its_own_step() -> None:
    """A batch that the source gave after 0.25 s is on its device 0.125 s later."""
    time, steps = FakeTime(), list[GlobalStep]()

    def source() -> Iterator[Batch]:
        while True:
            time.spend(0.25)
            yield Batch(None, None, 8, partial(time.spend, 0.125))

    run_steps(source(), training(time, 0.5), HostClock(time), Ranks(0, 1), steps.append, max_steps=6)
    assert [step.step_seconds for step in steps] == pytest.approx([0.875] * 6)
    assert [step.data_wait_seconds for step in steps] == pytest.approx([0.25] * 6)
    assert [step.copy_seconds for step in steps] == pytest.approx([0.125] * 6)
    assert [step.compute_seconds for step in steps] == pytest.approx([0.5] * 6)


def test_a_stall_shows_in_its_own_step_only() -> None:
    waits = itertools.chain([0.1] * 3, [5.0], itertools.repeat(0.1))
    steps = run(waits, 0.4, max_steps=6)
    assert [step.data_wait_seconds for step in steps] == pytest.approx([0.1, 0.1, 0.1, 5.0, 0.1, 0.1])
    assert [step.step_seconds for step in steps] == pytest.approx([0.5, 0.5, 0.5, 5.4, 0.5, 0.5])


def test_a_loop_ends_with_the_block_in_which_it_is_done() -> None:
    # Steps of 0.5 s in blocks of 1 and then 2, so of about a second each: the 7th step is the last of its block.
    steps = run(itertools.repeat(0.1), 0.4, done=lambda step: step.end_seconds >= 3.25)
    assert len(steps) == 7
    assert sum(step.images for step in steps) / sum(step.step_seconds for step in steps) == pytest.approx(16.0)
    # Done with the 6th, it has made the 7th already, which counts too.
    assert len(run(itertools.repeat(0.1), 0.4, done=lambda step: step.end_seconds >= 2.75)) == 7


def test_a_loop_that_is_done_at_once_has_made_a_step() -> None:
    assert len(run(itertools.repeat(1.0), 9.0, done=lambda _: True)) == 1


def test_done_in_the_middle_of_a_block_is_not_forgotten_at_its_end() -> None:
    """A condition may hold for one step and not for the next."""
    assert len(run(itertools.repeat(0.01), 0.02, done=lambda step: step.index == 3)) == 7  # blocks of 1, 2 and 4


def test_most_steps_is_exact_whatever_the_blocks() -> None:
    for wanted in (1, 2, 7, 64):
        assert len(run(itertools.repeat(0.01), 0.02, max_steps=wanted)) == wanted


def test_a_loop_that_turns_slow_is_not_left_long_without_a_look() -> None:
    """Batches that were ready make the first steps fast; the rest waits 3 s for each."""
    steps = run(itertools.chain([0.0] * 6, itertools.repeat(3.0)), 0.01, done=lambda step: step.end_seconds >= 10.0)
    # the 6 fast steps and 4 slow ones fill the 10 s; the block that finds it out may hold as many again
    assert 10 <= len(steps) <= 18


def test_what_the_recorder_costs_counts_as_recording_in_the_next_step() -> None:
    time, steps = FakeTime(), list[GlobalStep]()

    def emit(step: GlobalStep) -> None:
        time.spend(2.0)
        steps.append(step)

    run_steps(
        batches(time, itertools.repeat(1.0)), training(time, 3.0), HostClock(time), Ranks(0, 1), emit, max_steps=3
    )
    assert [step.step_seconds for step in steps] == pytest.approx([4.0, 6.0, 6.0])
    assert [parts(step) for step in steps] == [
        pytest.approx((0.0, 0.0, 1.0, 3.0)),
        pytest.approx((2.0, 0.0, 1.0, 3.0)),
        pytest.approx((2.0, 0.0, 1.0, 3.0)),
    ]


def test_what_the_recorder_costs_falls_on_the_first_step_of_the_next_block() -> None:
    """The loop records a block's steps together, so that only one step in about a second has it."""
    time, steps = FakeTime(), list[GlobalStep]()

    def emit(step: GlobalStep) -> None:
        time.spend(0.01)
        steps.append(step)

    run_steps(
        batches(time, itertools.repeat(0.1)), training(time, 0.1), HostClock(time), Ranks(0, 1), emit, max_steps=9
    )
    # Blocks of 1, 2, 4 and what is left of 5.
    assert [step.recording_seconds for step in steps] == pytest.approx([0, 0.01, 0, 0.02, 0, 0, 0, 0.04, 0])
    assert [step.exchange_seconds for step in steps] == pytest.approx([0.0] * 9)


@dataclass(frozen=True)
class SlowRanks(Ranks):
    """An exchange between ranks that takes its time."""

    time: FakeTime
    exchange_seconds: float

    def gather(self, values: FloatArray) -> FloatArray:
        self.time.spend(self.exchange_seconds)
        return super().gather(values)


def test_the_exchange_between_ranks_is_neither_recording_nor_data_wait() -> None:
    time, steps = FakeTime(), list[GlobalStep]()

    def emit(step: GlobalStep) -> None:
        time.spend(2.0)
        steps.append(step)

    ranks = SlowRanks(0, 1, time, 0.25)
    run_steps(batches(time, itertools.repeat(1.0)), training(time, 3.0), HostClock(time), ranks, emit, max_steps=3)
    assert [step.step_seconds for step in steps] == pytest.approx([4.0, 6.25, 6.25])
    assert [parts(step) for step in steps] == [
        pytest.approx((0.0, 0.0, 1.0, 3.0)),
        pytest.approx((2.0, 0.25, 1.0, 3.0)),
        pytest.approx((2.0, 0.25, 1.0, 3.0)),
    ]


def test_agreeing_on_the_end_is_an_exchange_too() -> None:
    time, steps = FakeTime(), list[GlobalStep]()
    ranks = SlowRanks(0, 1, time, 0.25)
    source, consume = batches(time, itertools.repeat(1.0)), training(time, 3.0)
    run_steps(source, consume, HostClock(time), ranks, steps.append, lambda step: step.index == 2)
    # one exchange for the records, one for the end
    assert [step.exchange_seconds for step in steps] == pytest.approx([0.0, 0.5, 0.5])


def laps_of(time: FakeTime, *seconds: float) -> Consumer:
    """A consumer that sets split marks between stretches of these seconds."""

    def consume(batch: Batch, mark_split: MarkSplit) -> float:
        for number, stretch in enumerate(seconds):
            if number:
                mark_split()
            time.spend(stretch)
        return 2.0

    return consume


def run_laps(*seconds: float) -> list[GlobalStep]:
    time, steps = FakeTime(), list[GlobalStep]()
    source, consume = batches(time, itertools.repeat(0.5)), laps_of(time, *seconds)
    run_steps(source, consume, HostClock(time), Ranks(0, 1), steps.append, max_steps=5)
    return steps


def test_laps_part_the_computation_into_forward_backward_and_optimizer() -> None:
    for step in run_laps(0.25, 0.5, 0.125):
        assert (step.forward_seconds, step.backward_seconds, step.optimizer_seconds) == (0.25, 0.5, 0.125)
        assert parts(step) == (0.0, 0.0, 0.5, 0.875)
        assert step.step_seconds == 1.375


def test_a_consumer_without_laps_has_a_computation_all_the_same() -> None:
    for step in run_laps(0.875):
        assert [step.forward_seconds, step.backward_seconds, step.optimizer_seconds] == pytest.approx(
            [math.nan] * 3, nan_ok=True
        )
        assert parts(step) == (0.0, 0.0, 0.5, 0.875)


@pytest.mark.parametrize(("laps", "marks"), [(1, 5), (3, 7)])
def test_a_consumer_that_laps_once_or_too_often_is_refused(laps: int, marks: int) -> None:
    with pytest.raises(InvariantError, match=f"{marks} marks in 1 batches; each must have 2 split marks, or none"):
        run_laps(*[0.25] * (laps + 1))


def test_a_consumer_that_laps_in_some_steps_only_is_refused() -> None:
    time, numbers = FakeTime(), itertools.count()

    def consume(batch: Batch, mark_split: MarkSplit) -> None:
        time.spend(0.01)
        if next(numbers) == 2:  # the second step of the second block
            mark_split()

    with pytest.raises(InvariantError, match="9 marks in 2 batches"):
        run_steps(batches(time, itertools.repeat(0.01)), consume, HostClock(time), Ranks(0, 1), lambda _: None)


def test_batches_are_held_until_the_device_is_done_with_them() -> None:
    time = FakeTime()
    waited: list[float] = []

    class Clock(HostClock):
        def wait(self, mark: float) -> None:
            waited.append(mark)

    run_steps(
        batches(time, itertools.repeat(0.25)), training(time, 0.25), Clock(time), Ranks(0, 1), lambda _: None,
        max_steps=5,
    )  # fmt: skip
    # Step k begins only after step k - 2 has been waited for.
    assert waited == pytest.approx([0.5, 1.0, 1.5])


class Image:
    """What a batch holds: a thing that can be seen to go."""


def test_a_batch_lives_until_its_step_is_over() -> None:
    """DALI and a copy to the device may otherwise reuse its memory while kernels still read it."""
    time, taken = FakeTime(), list[weakref.ref[Image]]()
    alive: list[list[bool]] = []

    def source() -> Iterator[Batch]:
        while True:
            time.spend(0.25)
            image = Image()
            taken.append(weakref.ref(image))
            batch = Batch(image, None, 8)
            del image
            yield batch
            del batch

    class Clock(HostClock):
        def wait(self, mark: float) -> None:
            alive.append([image() is not None for image in taken])

    run_steps(source(), training(time, 0.25), Clock(time), Ranks(0, 1), lambda _: None, max_steps=5)
    # The first batch that is alive is the one whose step is waited for; the one before it is let go.
    assert alive == [[True] * 3, [False, *[True] * 3], [False, False, *[True] * 3]]


@dataclass
class Device:
    """A device that works while the host goes on, and its clock: work that is queued begins when the last is over."""

    time: FakeTime
    free_at: float = 0.0
    started_at: float = 0.0
    runs_ahead: bool = True

    def work(self, seconds: float) -> None:
        self.free_at = max(self.free_at, self.time()) + seconds

    def start(self) -> None:
        self.wait(self.free_at)
        self.started_at = self.time()

    def mark(self) -> float:
        return max(self.free_at, self.time())

    def host_seconds(self) -> float:
        return self.time() - self.started_at

    def wait(self, mark: float) -> None:
        self.time.seconds = max(self.time.seconds, mark)

    def seconds(self, marks: Sequence[float]) -> list[float]:
        self.wait(marks[-1])
        return [mark - self.started_at for mark in marks]


def run_on_device(emit_seconds: float, max_steps: int, step_seconds: float = 0.1) -> tuple[list[GlobalStep], list[int]]:
    """The steps of a device whose recorder takes its time, and how many steps were queued as each was recorded."""
    time, steps, queued = FakeTime(), list[GlobalStep](), list[int]()
    device, taken = Device(time), itertools.count(1)
    latest = 0

    def consume(batch: Batch, mark_split: MarkSplit) -> float:
        nonlocal latest
        latest = next(taken)
        device.work(step_seconds)
        return float(latest)

    def emit(step: GlobalStep) -> None:
        time.spend(emit_seconds)
        queued.append(latest)
        steps.append(step)

    run_steps(batches(time, itertools.repeat(0.0)), consume, device, Ranks(0, 1), emit, max_steps=max_steps)
    return steps, queued


def test_a_device_works_while_steps_are_recorded() -> None:
    """Blocks of 1, 2, 4 and 5 steps, each recorded while the next one is queued, from its third step on."""
    steps, queued = run_on_device(0.04, max_steps=12)
    assert [step.index for step in steps] == list(range(12))
    assert [step.loss for step in steps] == [float(number) for number in range(1, 13)]
    # The second block has no third step, and the last block is recorded when the device has finished it.
    assert queued == [3, 5, 6, 9, 9, 10, 10, *[12] * 5]
    assert [step.step_seconds for step in steps] == pytest.approx([0.1] * 12)
    assert [step.recording_seconds for step in steps] == pytest.approx([0.0] * 12)


def test_recording_that_takes_longer_than_the_queued_steps_is_that_of_the_step_that_waits_for_it() -> None:
    steps, _ = run_on_device(0.15, max_steps=12)
    # The last block's third and fourth step wait for two records each: 0.3 s, less the 0.2 s of the steps before them,
    # and 0.3 s, less the 0.1 s of the step before.
    assert [step.recording_seconds for step in steps] == pytest.approx(
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0.1, 0.2, 0], abs=1e-9
    )
    assert [step.exchange_seconds for step in steps] == pytest.approx([0.0] * 12)


def test_steps_are_recorded_at_once_where_the_host_is_the_device() -> None:
    time, taken, queued = FakeTime(), itertools.count(1), list[int]()
    latest = 0

    def consume(batch: Batch, mark_split: MarkSplit) -> None:
        nonlocal latest
        latest = next(taken)
        time.spend(0.1)

    run_steps(
        batches(time, itertools.repeat(0.0)), consume, HostClock(time), Ranks(0, 1),
        lambda _: queued.append(latest), max_steps=7,
    )  # fmt: skip
    assert queued == [1, 3, 3, 7, 7, 7, 7]


def test_the_edges_of_blocks_are_told_when_the_device_is_there() -> None:
    time, edges = FakeTime(), list[float]()
    clock = Device(time)

    def consume(batch: Batch, mark_split: MarkSplit) -> None:
        clock.work(0.1)

    run_steps(
        batches(time, itertools.repeat(0.0)), consume, clock, Ranks(0, 1), lambda _: time.spend(0.01), max_steps=7,
        at_edge=lambda: edges.append(clock.host_seconds()),
    )  # fmt: skip
    # Blocks of 1, 2 and 4 steps.
    assert edges == pytest.approx([0.0, 0.1, 0.3, 0.7])


def test_the_losses_of_a_block_are_read_by_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1, 2 and 4 steps; every loss has the same bits as if it were read alone."""
    drawn = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    tensors = [paddle.to_tensor(loss) for loss in drawn]
    alone = [float(loss) for loss in tensors]
    read_shapes: list[tuple[int, ...]] = []
    read = paddle.Tensor.numpy

    def counted(tensor: paddle.Tensor) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = read(tensor)
        read_shapes.append(found.shape)
        return found

    monkeypatch.setattr(paddle.Tensor, "numpy", counted)
    time, steps, losses = FakeTime(), list[GlobalStep](), iter(tensors)

    def consume(batch: Batch, mark_split: MarkSplit) -> Any:
        time.spend(0.1)
        return next(losses)

    run_steps(batches(time, itertools.repeat(0.0)), consume, HostClock(time), Ranks(0, 1), steps.append, max_steps=7)
    assert read_shapes == [(1,), (2,), (4,)]
    assert [step.loss.hex() for step in steps] == [loss.hex() for loss in alone]


def test_a_block_may_have_losses_for_some_of_its_batches() -> None:
    """An evaluation's last batches have none on a rank whose images are over."""
    losses = iter([None, paddle.to_tensor(0.5), None, paddle.to_tensor(0.25)])
    time, steps = FakeTime(), list[GlobalStep]()

    def consume(batch: Batch, mark_split: MarkSplit) -> Any:
        time.spend(0.1)
        return next(losses)

    run_steps(batches(time, itertools.repeat(0.0)), consume, HostClock(time), Ranks(0, 1), steps.append, max_steps=4)
    assert [step.loss for step in steps] == pytest.approx([math.nan, 0.5, math.nan, 0.25], nan_ok=True)


class News:
    """Bad images that a rank meets, by the batch; told has how many batches it had taken whenever it told of them."""

    def __init__(self, *bad_batches: int) -> None:
        self._bad_batches = bad_batches
        self._taken = 0
        self.unshared: list[int] = []
        self.told: list[int] = []

    def met(self, source: Iterator[Batch]) -> Iterator[Batch]:
        for self._taken, batch in enumerate(source, 1):
            if self._taken in self._bad_batches:
                self.unshared.append(self._taken)
            yield batch

    def share(self) -> None:
        self.told.append(self._taken)
        self.unshared.clear()


def run_cluster(
    compute: list[float],
    done: Callable[[int, GlobalStep], bool],
    waits: list[float] | None = None,
    news: list[News] | None = None,
) -> list[list[GlobalStep]]:
    """What each rank of several sees; compute and waits are each rank's seconds, done is given the rank too.

    Every rank looks into its own news, if any, for each of its batches.
    """
    cluster = Cluster(len(compute))
    seen: list[list[GlobalStep]] = [[] for _ in compute]

    def rank(number: int) -> None:
        time, own = cluster.times[number], news[number] if news else None
        source = batches(time, itertools.repeat(waits[number] if waits else 0.25))
        run_steps(
            source if own is None else own.met(source),
            training(time, compute[number], loss=float(number)),
            HostClock(time),
            SimulatedRanks(number, len(compute), cluster),
            seen[number].append,
            lambda step: done(number, step),
            bad=own,
        )

    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(len(compute))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return seen


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_first_rank_that_is_done_ends_the_loop_of_all(first: int) -> None:
    """Arithmetic may differ in the last bit between machines; a rank that continued alone would wait forever."""
    # A step of 1 s is a whole block. Another rank would have stopped after 6 steps, the third never.
    wanted = {first: 4, (first + 1) % 3: 6, (first + 2) % 3: math.inf}
    seen = run_cluster([0.75] * 3, lambda rank, step: step.index + 1 >= wanted[rank])
    assert [len(steps) for steps in seen] == [4, 4, 4]
    assert [step.step_seconds for steps in seen for step in steps] == pytest.approx([1.0] * 12)
    assert [step.images for step in seen[2]] == [24] * 4


def test_all_ranks_share_bad_images_when_any_has_found_some_and_only_then() -> None:
    """Sharing is an exchange: a rank that did so alone would wait forever."""
    # A step of 1 s is a whole block. Two ranks find one in batch 5; nobody finds any in the other batches.
    news = [News(5), News(2, 5), News()]
    seen = run_cluster([0.75] * 3, lambda _, step: step.index == 6, news=news)
    assert [len(steps) for steps in seen] == [7, 7, 7]
    assert [own.told for own in news] == [[2, 5]] * 3


def test_bad_images_are_told_behind_the_block_in_which_they_were_met() -> None:
    # Blocks of 1, 2 and 4 steps.
    news = [News(4), News(5)]
    run_cluster([0.05] * 2, lambda _, step: step.index == 6, waits=[0.05] * 2, news=news)
    assert [own.told for own in news] == [[7], [7]]


def test_a_loop_without_bad_images_tells_of_none() -> None:
    news = [News(), News()]
    run_cluster([0.75] * 2, lambda _, step: step.index == 3, news=news)
    assert [own.told for own in news] == [[], []]


def test_every_rank_sees_the_slowest_of_them() -> None:
    seen = run_cluster([0.25, 0.75, 0.5], lambda _, step: step.index == 2)
    for steps in seen:
        assert [step.slowest_rank for step in steps] == [1, 1, 1]
        assert [step.rank_skew_seconds for step in steps] == pytest.approx([0.5] * 3)
        assert [step.step_seconds for step in steps] == pytest.approx([1.0] * 3)
        assert [step.loss for step in steps] == pytest.approx([1.0] * 3)


def test_steps_of_several_batches_take_so_many_and_end_together() -> None:
    time, steps, taken = FakeTime(), list[GlobalStep](), list[int]()

    def counted() -> Iterator[Batch]:
        for number in itertools.count():
            taken.append(number)
            time.spend(0.05)
            yield Batch(None, None, 8)

    run_steps(counted(), training(time, 0.2), HostClock(time), Ranks(0, 1), steps.append, max_steps=5, batches=3)
    assert (len(steps), len(taken)) == (5, 15)
    assert [step.index for step in steps] == list(range(5))
    for step in steps:
        assert step.images == 24
        assert parts(step) == pytest.approx((0.0, 0.0, 0.15, 0.6))
    assert steps[-1].end_seconds == pytest.approx(5 * 0.75)
