"""Outliers are counted, and named by what made them."""

from __future__ import annotations

import pytest

from harness.analysis.outliers import find_outliers
from tests.support.frames import steps_frame


def test_no_step_stands_out_of_equal_ones() -> None:
    found = find_outliers(steps_frame(*[{}] * 30))
    assert (found.count, found.excess_seconds, found.causes) == (0, 0.0, {})


def test_ordinary_noise_is_no_outlier() -> None:
    rows = [{"step_seconds": 0.1 + 0.001 * (index % 7)} for index in range(70)]
    assert find_outliers(steps_frame(*rows)).count == 0


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"data_wait_seconds": 0.52}, "data wait"),
        ({"recording_seconds": 0.4}, "recording"),
        ({"exchange_seconds": 0.5}, "between steps"),
        ({"backward_seconds": 0.54, "interference": "foreign_cpu"}, "backward pass with foreign_cpu"),
        ({"forward_seconds": 0.2, "backward_seconds": 0.2, "interference": "cpu_steal|swap"}, "cpu_steal|swap"),
        ({}, "unknown"),
    ],
)
def test_the_cause_of_an_outlier(row: dict[str, object], cause: str) -> None:
    found = find_outliers(steps_frame(*[{}] * 40, {"step_seconds": 0.6, **row}, *[{}] * 40))
    assert (found.count, found.causes) == (1, {cause: 1})
    assert found.excess_seconds == pytest.approx(0.5)
    assert found.excess_share == pytest.approx(0.5 / 8.6)


def test_stalls_at_a_distance() -> None:
    rows = [{"step_seconds": 0.4, "data_wait_seconds": 0.32} if i % 25 == 24 else {} for i in range(100)]
    found = find_outliers(steps_frame(*rows))
    assert (found.count, found.causes) == (4, {"data wait": 4})


def usual_steps(count: int, segment: int = 1) -> list[dict[str, object]]:
    return [{"segment": segment}] * count


STOP: dict[str, object] = {"step_seconds": 8.1}
STALL: dict[str, object] = {"step_seconds": 0.9}


def test_a_step_that_stands_alone_is_isolated() -> None:
    found = find_outliers(steps_frame(*usual_steps(40), STOP, *usual_steps(39)))
    assert (found.count, found.isolated_steps) == (1, 1)
    assert found.isolated_share == found.excess_share == pytest.approx(8.0 / 16.0)
    assert found.usual_fps == pytest.approx(320.0)


def test_what_happens_again_and_again_is_no_disturbance() -> None:
    """Slow storage on every tenth batch is what the pipeline delivers."""
    found = find_outliers(steps_frame(*[*usual_steps(9), STALL] * 5))
    assert (found.count, found.isolated_steps, found.isolated_share) == (5, 0, 0.0)
    assert found.usual_fps == pytest.approx(50 * 32 / 9.0)
    few = find_outliers(steps_frame(*[*usual_steps(9), STALL] * 4))
    assert (few.count, few.isolated_steps) == (4, 4)


def test_a_stop_among_stalls_is_isolated() -> None:
    found = find_outliers(steps_frame(*[*usual_steps(9), STALL] * 6, *usual_steps(9), STOP))
    assert (found.count, found.isolated_steps) == (7, 1)
    assert found.isolated_share == pytest.approx(8.0 / (6 * 1.8 + 0.9 + 8.1))


def test_steps_one_after_another_are_one_disturbance() -> None:
    found = find_outliers(steps_frame(*usual_steps(40), *[STALL] * 6, *usual_steps(40)))
    assert (found.count, found.isolated_steps) == (6, 6)


def test_what_happens_again_and_again_in_one_of_many_segments_is_a_disturbance() -> None:
    """A machine that stands still for 0.8 s at a time, during one segment of six."""
    stuttering = [{**row, "segment": 3} for row in [*usual_steps(9), STALL] * 6]
    quiet = [usual_steps(60, segment) for segment in (1, 2, 4, 5, 6)]
    found = find_outliers(steps_frame(*quiet[0], *quiet[1], *stuttering, *quiet[2], *quiet[3], *quiet[4]))
    assert (found.count, found.isolated_steps) == (6, 6)
    everywhere = [{**row, "segment": segment} for segment in range(1, 7) for row in [*usual_steps(19), STALL]]
    found = find_outliers(steps_frame(*everywhere))
    assert (found.count, found.isolated_steps) == (6, 0)
