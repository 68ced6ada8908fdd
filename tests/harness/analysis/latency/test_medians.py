"""The median's interval: by hand for ten values, its coverage by simulation, and the error that it comes to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.latency.medians import MIN_VALUES, median_estimate


def test_ten_values_by_hand() -> None:
    """The second smallest and largest: fewer than 2 of 10 on one side happens in 2 x 11 / 1024 of all cases."""
    found = median_estimate([7, 3, 9, 1, 5, 10, 2, 8, 4, 6])
    assert (found.median, found.low, found.high, found.values) == (5.5, 2, 9, 10)
    assert found.relative_half_width == pytest.approx(3.5 / 5.5)
    # 97.85 % of a normal distribution lie within 2.2995 standard deviations.
    assert found.relative_standard_error == pytest.approx(math.log(9 / 2) / 2 / 2.2995, rel=1e-3)


@pytest.mark.parametrize(("count", "low"), [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (20, 6)])
def test_the_rank_is_the_largest_that_covers_95_percent(count: int, low: int) -> None:
    found = median_estimate([float(value) for value in range(1, count + 1)])
    assert (found.low, found.high) == (low, count + 1 - low)


@pytest.mark.parametrize("count", range(1, MIN_VALUES))
def test_too_few_values_have_a_median_and_no_interval(count: int) -> None:
    found = median_estimate([4.0] * count)
    assert (found.median, found.low, found.high, found.relative_standard_error) == (4.0, None, None, None)
    assert found.relative_half_width is None


def test_equal_values_are_certain() -> None:
    found = median_estimate([2.0] * 10)
    assert (found.median, found.low, found.high, found.relative_standard_error) == (2.0, 2.0, 2.0, 0.0)


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, -1.0], [math.nan, 1.0], [math.inf]])
def test_impossible_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values are"):
        median_estimate(values)


@pytest.mark.parametrize("count", [6, 10, 15])
def test_the_interval_covers_the_true_median_of_a_skewed_distribution(count: int) -> None:
    """At least 95 of 100 samples; latencies are skewed like these."""
    draw = np.random.default_rng(count)
    samples = draw.lognormal(mean=math.log(5.0), sigma=0.4, size=(2000, count))
    found = [median_estimate(sample.tolist()) for sample in samples]
    covered = sum(one.low is not None and one.high is not None and one.low <= 5.0 <= one.high for one in found)
    assert covered / len(found) > 0.94


def test_the_standard_error_is_that_of_the_logarithms_median() -> None:
    """For a normal distribution the median of 15 values has an error of about 1.2533 / sqrt(15) deviations."""
    draw = np.random.default_rng(1)
    samples = np.exp(draw.normal(0.0, 0.01, size=(3000, 15)))
    errors = [median_estimate(sample.tolist()).relative_standard_error or 0.0 for sample in samples]
    true = float(np.median(np.log(samples), axis=1).std())
    assert np.mean(errors) == pytest.approx(true, rel=0.1)
    assert true == pytest.approx(0.0032, rel=0.1)
