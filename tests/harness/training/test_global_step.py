"""A step of all ranks: how it is merged from their records, and what its parts must add up to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import InvariantError
from harness.training import loop
from harness.training.loop import COLUMNS, GlobalStep, pause
from harness.training.ranks import FloatArray
from tests.support.simulation import parts


def rank_rows(*rows: tuple[float, ...]) -> FloatArray:
    """Rows of images, request, got, end, loss and, if told, recording and the laps' two times."""
    table = np.full((len(rows), COLUMNS), np.nan)
    for row, values in zip(table, rows, strict=True):
        images, request, got, end, loss, recording, forward, backward = (
            *values,
            *(0.0, np.nan, np.nan)[len(values) - 5 :],
        )
        row[:] = images, request, got, got, forward, backward, end, loss, recording, 0.0, 0.0
    return table[:, np.newaxis]


def merge_ranks(step: FloatArray, index: int, end_before: float) -> GlobalStep:
    """A burst of one step; step: [ranks, batches, COLUMNS]."""
    (merged,) = loop.merge_ranks(step[:, np.newaxis], index, end_before)
    return merged


@pytest.mark.parametrize("empty", [False, True], ids=["full batches", "some without images"])
def test_a_burst_is_its_steps_one_by_one(empty: bool) -> None:
    """Each begins where the slowest rank ended the one before; losses have the bits of a mean of all batches."""
    random = np.random.default_rng(4)
    ranks, steps, batches = 9, 6, 3
    burst = np.full((ranks, steps, batches, COLUMNS), np.nan)
    marks = np.cumsum(random.random((ranks, steps * batches, 6)).reshape(ranks, -1), axis=1)
    burst[..., loop.REQUEST : loop.END + 1] = marks.reshape(ranks, steps, batches, 6)
    burst[..., loop.IMAGES] = random.integers(0 if empty else 1, 3, (ranks, steps, batches))
    burst[..., loop.LOSS] = random.standard_normal((ranks, steps, batches))
    burst[..., loop.RECORDING] = random.random((ranks, steps, batches))
    burst[..., loop.BAD] = 0.0
    burst[..., loop.AWAY] = random.random((ranks, steps, batches))
    if empty:
        burst[:, 2, :, loop.IMAGES] = 0
    burst[5, 3, 1, loop.LOSS], burst[5, 3, 1, loop.IMAGES] = math.inf, 2
    merged = loop.merge_ranks(burst, 7, 0.25)
    assert [step.index for step in merged] == list(range(7, 13))
    assert [step.nonfinite_rank for step in merged] == [None, None, None, 5, None, None]
    end_before = 0.25
    for number, step in enumerate(merged):
        alone = merge_ranks(burst[:, number], 7 + number, end_before)
        assert repr(step) == repr(alone)
        end_before = step.end_seconds
        counted = burst[:, number][burst[:, number, :, loop.IMAGES] > 0]
        if len(counted):
            mean = float(np.average(counted[:, loop.LOSS], weights=counted[:, loop.IMAGES]))
            assert repr(step.loss) == repr(mean)
        else:
            assert math.isnan(step.loss)


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
    # of rank 1, which got its batch last
    assert parts(step) == pytest.approx((0.0, 0.0, 0.4, 1.1))
    # ranks computed 0.9, 1.1, 1.2 and 0.8 s: the last to end is not the one that computed longest
    assert step.slowest_rank == 2
    assert step.rank_skew_seconds == pytest.approx(0.4)
    assert step.fps == pytest.approx(32 / 1.5)
    assert step.loss == pytest.approx(2.5)


def test_the_parts_of_a_step_are_those_of_the_rank_that_got_its_batch_last() -> None:
    step = merge_ranks(
        rank_rows(
            (8, 10.1, 10.2, 11.5, 1.0, 0.01, 10.4, 10.9),
            (8, 10.3, 10.6, 11.3, 1.0, 0.2, 10.7, 11.0),
        ),
        index=7,
        end_before=10.0,
    )
    assert parts(step) == pytest.approx((0.2, 0.1, 0.3, 0.9))
    assert sum(parts(step)) == pytest.approx(step.step_seconds) == pytest.approx(1.5)
    # rank 1's optimizer ended at 11.3; it then waits for rank 0
    assert (step.forward_seconds, step.backward_seconds, step.optimizer_seconds) == pytest.approx((0.1, 0.3, 0.5))
    assert step.slowest_rank == 0
    assert step.rank_skew_seconds == pytest.approx(1.3 - 0.7)


def test_waiting_during_the_step_before_is_not_this_steps() -> None:
    # Rank 1 ended step 6 at 9.0 and waited until 10.3, while the slowest rank worked on step 6 until 10.0.
    step = merge_ranks(rank_rows((8, 10.0, 10.1, 11.0, 1.0), (8, 9.0, 10.3, 11.0, 1.0)), index=7, end_before=10.0)
    assert parts(step) == pytest.approx((0.0, 0.0, 0.3, 0.7))


def test_recording_during_the_step_before_is_not_this_steps() -> None:
    # Rank 0 recorded from 9.0 to 10.4, of which 0.4 s lie behind the end of step 6 at 10.0.
    step = merge_ranks(rank_rows((8, 10.4, 10.5, 11.0, 1.0, 1.4)), index=7, end_before=10.0)
    assert parts(step) == pytest.approx((0.4, 0.0, 0.1, 0.5))


def test_loss_counts_every_real_image_once() -> None:
    step = merge_ranks(rank_rows((3, 0, 0, 1, 1.0), (1, 0, 0, 1, 5.0), (0, 0, 0, 1, math.nan)), 0, 0.0)
    assert step.images == 4
    assert step.loss == pytest.approx(2.0)


def test_no_real_image_no_loss() -> None:
    step = merge_ranks(rank_rows((0, 0, 0, 1, math.nan)), 0, 0.0)
    assert step.images == 0
    assert math.isnan(step.loss)


@pytest.mark.parametrize(
    ("losses", "nonfinite_rank"),
    [
        ((1.0, 2.0, 3.0, 4.0), None),
        ((1.0, math.nan, 3.0, 4.0), 1),
        ((1.0, 2.0, math.inf, math.nan), 2),
        ((math.nan, -math.inf, 3.0, 4.0), 0),
    ],
)
def test_the_first_rank_without_a_finite_loss_is_named(losses: tuple[float, ...], nonfinite_rank: int | None) -> None:
    step = merge_ranks(rank_rows(*((8, 0, 0, 1, loss) for loss in losses)), 0, 0.0)
    assert step.nonfinite_rank == nonfinite_rank
    assert math.isfinite(step.loss) == (nonfinite_rank is None)


def test_a_rank_without_images_has_not_lost_anything() -> None:
    step = merge_ranks(rank_rows((0, 0, 0, 1, math.nan), (8, 0, 0, 1, 1.5), (8, 0, 0, 1, math.nan)), 0, 0.0)
    assert step.nonfinite_rank == 2
    assert merge_ranks(rank_rows((0, 0, 0, 1, math.nan)), 0, 0.0).nonfinite_rank is None


def test_a_step_of_several_batches_is_their_sum() -> None:
    first = rank_rows((8, 10.1, 10.2, 11.0, 1.0, 0.1, 10.3, 10.8), (8, 10.0, 10.1, 11.4, 2.0, 0.0, 10.4, 11.0))
    second = rank_rows((4, 11.0, 11.5, 12.5, 3.0, 0.0, 11.9, 12.3), (8, 11.4, 11.4, 12.0, 4.0, 0.0, 11.5, 11.8))
    step = merge_ranks(np.concatenate([first, second], axis=1), index=7, end_before=10.0)
    assert (step.images, step.end_seconds) == (28, 12.5)
    assert step.step_seconds == pytest.approx(2.5)
    # Rank 0 got both of its batches last, the second one 0.1 s behind the end of the slowest rank's first.
    assert parts(step) == pytest.approx((0.1, 0.0, 0.1 + 0.1, 1.2 + 1.0))
    laps = (step.forward_seconds, step.backward_seconds, step.optimizer_seconds)
    assert laps == pytest.approx((0.1 + 0.4, 0.5 + 0.4, 0.6 + 0.2))
    # 0.8 + 1.0 s of computing on rank 0, 1.3 + 0.6 on rank 1
    assert step.slowest_rank == 1
    assert step.rank_skew_seconds == pytest.approx(0.1)
    assert step.loss == pytest.approx((8 * 1 + 8 * 2 + 4 * 3 + 8 * 4) / 28)
    assert step.nonfinite_rank is None


def test_a_loss_that_is_lost_in_any_batch_is_its_ranks() -> None:
    whole, lost = rank_rows((8, 0, 0, 1, 1.0), (8, 0, 0, 1, 1.0)), rank_rows((8, 1, 1, 2, 1.0), (8, 1, 1, 2, math.nan))
    assert merge_ranks(np.concatenate([whole, lost], axis=1), 0, 0.0).nonfinite_rank == 1


def test_a_pause_is_a_step_of_nothing_but_other_time() -> None:
    step = pause(2.5)
    assert (step.images, step.end_seconds, step.step_seconds, step.fps) == (0, 2.5, 2.5, 0.0)
    assert parts(step) == (0.0, 2.5, 0.0, 0.0)
    unknown = (step.loss, step.forward_seconds, step.backward_seconds, step.optimizer_seconds)
    assert all(math.isnan(value) for value in unknown)
    assert step.nonfinite_rank is None


def global_step(**values: float) -> GlobalStep:
    """A step of 1 s: 0.2 s of waiting, 0.5 s of computing, 0.1 s of recording and 0.2 s of the rest."""
    usual = {
        "end_seconds": 10.0, "step_seconds": 1.0, "data_wait_seconds": 0.2, "copy_seconds": 0.0, "compute_seconds": 0.5,
        "forward_seconds": 0.1, "backward_seconds": 0.3, "optimizer_seconds": 0.1, "recording_seconds": 0.1,
        "exchange_seconds": 0.2, "rank_skew_seconds": 0.0, "loss": 0.0,
    }  # fmt: skip
    return GlobalStep(index=3, images=8, slowest_rank=0, nonfinite_rank=None, **{**usual, **values})


def test_parts_that_do_not_make_their_step_are_refused() -> None:
    assert global_step().fps == 8.0
    with pytest.raises(InvariantError) as caught:
        global_step(data_wait_seconds=2.0)
    assert caught.value.message == (
        "step 3: parts of 2.000000, 0.000000, 0.500000, 0.100000, 0.200000 s don't add up to the step's 1.000000 s"
    )
    with pytest.raises(InvariantError, match=r"parts of 0\.200000, 0\.000000, 0\.499998, 0\.100000, 0\.200000 s"):
        global_step(compute_seconds=0.499998)


@pytest.mark.parametrize("part", ["data_wait_seconds", "compute_seconds", "recording_seconds", "exchange_seconds"])
def test_a_negative_part_is_refused_although_the_sum_is_right(part: str) -> None:
    others = {"data_wait_seconds": 0.2, "compute_seconds": 0.5, "recording_seconds": 0.1, "exchange_seconds": 0.2}
    made_up = next(name for name in others if name != part)
    with pytest.raises(InvariantError, match=r"don't add up to the step's 1\.000000 s"):
        global_step(**{part: -0.1, made_up: others[made_up] + others[part] + 0.1})


def test_a_step_too_short_for_the_clock_has_no_rate() -> None:
    nothing = dict.fromkeys(("step_seconds", "data_wait_seconds", "compute_seconds"), 0.0)
    assert math.isnan(global_step(**nothing, recording_seconds=0.0, exchange_seconds=0.0).fps)
