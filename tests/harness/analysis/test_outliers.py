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
