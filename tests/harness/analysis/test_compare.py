"""Whether two rates differ: intervals and verdicts against textbook statistics."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from harness.analysis.comparing.compare import RUN_TO_RUN, Difference, Side, compare
from tests.support.compared_runs import (
    A_RATES,
    B_RATES,
    several,
    single,
)


def test_two_series_are_welch_s_test_on_logarithms() -> None:
    found = compare(several(*A_RATES), several(*B_RATES))
    reference = stats.ttest_ind(np.log(B_RATES), np.log(A_RATES), equal_var=False)
    low, high = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-9)
    assert found.change == pytest.approx(stats.gmean(B_RATES) / stats.gmean(A_RATES) - 1, rel=1e-9)
    assert found.change == pytest.approx(-0.0381, abs=1e-4)
    assert found.verdict == "equal"  # p = 0.074: these four runs scatter too widely
    assert found.how == "Welch's t-test on the logarithms of the throughputs of 5 and 4 runs"


def test_two_series_by_hand() -> None:
    """Logarithms 0 and 0.02 against 0.1 and 0.12: s^2 = 0.0002 each, so se^2 = 0.0002 with 2 degrees of freedom."""
    found = compare(several(1.0, math.exp(0.02)), several(math.exp(0.1), math.exp(0.12)))
    reach = 4.302653 * math.sqrt(0.0002)
    assert found.change == pytest.approx(math.expm1(0.1))
    assert found.low == pytest.approx(math.expm1(0.1 - reach), abs=1e-7)
    assert found.high == pytest.approx(math.expm1(0.1 + reach), abs=1e-7)
    # For 2 degrees of freedom the two-sided p is 1 - t / sqrt(2 + t^2), t^2 = 50.
    assert found.p_value == pytest.approx(1 - math.sqrt(50 / 52))
    assert found.verdict == "faster"


def test_two_runs_have_their_windows_errors_and_the_spread_between_runs() -> None:
    assert RUN_TO_RUN == 0.015
    found = compare(single(100.0, 0.01, 20.0), single(90.0, 0.02, 10.0))
    variance = 0.01**2 + 0.02**2 + 2 * 0.015**2
    degrees = variance**2 / (0.01**4 / 20 + 0.02**4 / 10)
    reach = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    assert found.change == pytest.approx(-0.1)
    assert found.low == pytest.approx(math.expm1(math.log(0.9) - reach))
    assert found.high == pytest.approx(math.expm1(math.log(0.9) + reach))
    assert found.p_value == pytest.approx(2 * stats.t.sf(-math.log(0.9) / math.sqrt(variance), degrees))
    assert found.verdict == "slower"
    assert found.how == (
        "A: its window's standard error, and 1.5 % assumed between runs;"
        " B: its window's standard error, and 1.5 % assumed between runs"
    )


def test_a_run_against_a_series() -> None:
    rates = (90.0, 91.0, 89.0)
    found = compare(single(100.0, 0.01, 20.0), several(*rates))
    spread = float(np.var(np.log(rates), ddof=1)) / 3
    variance = 0.01**2 + 0.015**2 + spread
    degrees = variance**2 / (0.01**4 / 20 + spread**2 / 2)
    change = float(np.log(rates).mean()) - math.log(100.0)
    assert found.p_value == pytest.approx(2 * stats.t.cdf(change / math.sqrt(variance), degrees))
    assert found.verdict == "slower"
    assert found.how.endswith("between runs; B: the spread of its 3 runs")
    mirrored = compare(several(*rates), single(100.0, 0.01, 20.0))
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert found.low is not None
    assert mirrored.high == pytest.approx(1 / (1 + found.low) - 1)
    assert mirrored.verdict == "faster"


def test_runs_without_noise_of_their_own_still_differ_between_runs() -> None:
    """Degrees of freedom are infinite then: the interval is a normal one."""
    found = compare(single(100.0, 0.0), single(100.0, 0.0))
    assert found.high == pytest.approx(math.expm1(1.959964 * math.sqrt(2) * 0.015), abs=1e-8)
    assert (found.change, found.p_value, found.verdict) == (0.0, 1.0, "equal")


def test_a_published_figure_counts_as_exact() -> None:
    published = Side("published", (100.0,), None, None, exact=True)
    found = compare(published, single(90.0, 0.01, 20.0))
    variance = 0.01**2 + 0.015**2
    degrees = variance**2 / (0.01**4 / 20)
    assert found.p_value == pytest.approx(2 * stats.t.cdf(math.log(0.9) / math.sqrt(variance), degrees))
    assert found.verdict == "slower"
    assert found.how.startswith("A: published without an interval, assumed exact; B: its window's")
    assert found.how.endswith("; only B's uncertainty counts")
    assert compare(several(100.0, 101.0), published).how.endswith("; only A's uncertainty counts")


@pytest.mark.parametrize("unknown", [single(100.0, None, None), single(100.0, 0.01, None), single(100.0, None, 9.0)])
def test_a_run_too_short_for_an_interval_can_t_be_judged(unknown: Side) -> None:
    """It is no more certain than one that knows its noise."""
    for other in (single(50.0, 0.01, 20.0), several(50.0, 51.0)):
        found = compare(unknown, other)
        assert (found.low, found.high, found.p_value, found.verdict) == (None, None, None, "unknown")
        assert found.how == "A has no interval"
        assert compare(other, unknown).how == "B has no interval"


def test_two_sides_without_an_interval_can_t_be_judged() -> None:
    found = compare(single(100.0, None, None), single(80.0, None, None))
    assert found.change == pytest.approx(-0.2)
    assert dataclasses.replace(found, change=-0.2) == Difference(
        -0.2, None, None, None, "unknown", "neither A nor B has an interval"
    )


def test_series_that_are_all_alike_leave_no_room_for_noise() -> None:
    same = compare(several(100.0, 100.0), several(100.0, 100.0))
    assert (same.change, same.low, same.high, same.p_value, same.verdict) == (0.0, 0.0, 0.0, 1.0, "equal")
    other = compare(several(100.0, 100.0), several(99.0, 99.0))
    assert (other.p_value, other.verdict) == (0.0, "slower")
    assert other.low == other.high == pytest.approx(-0.01)


def test_an_interval_may_reach_to_infinity() -> None:
    found = compare(single(100.0, 100.0, 1.0), single(100.0, 0.01))
    assert (found.low, found.high, found.verdict) == (-1.0, math.inf, "equal")


def test_a_series_own_interval() -> None:
    side = several(*A_RATES)
    logs = np.log(A_RATES)
    low, high = stats.t.interval(0.95, 4, logs.mean(), stats.sem(logs))
    assert side.mean_fps == pytest.approx(math.exp(logs.mean()))
    assert side.spread_interval == pytest.approx((math.exp(low), math.exp(high)))
    assert single(100.0, 0.01).spread_interval is None
    assert single(35.3, 0.01).mean_fps == 35.3


@pytest.mark.parametrize("rates", [(), (0.0,), (-1.0, 2.0), (math.nan,), (math.inf,)])
def test_a_rate_is_positive_and_finite(rates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least one is needed, and each must be positive and finite"):
        several(*rates)


def test_errors_and_degrees_of_freedom_have_limits() -> None:
    for error in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="relative_standard_error is"):
            single(1.0, error)
    for degrees in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="degrees_of_freedom is"):
            single(1.0, 0.1, degrees)


def test_equal_sides_are_told_apart_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(11)
    rates = 100.0 * np.exp(0.02 * rng.standard_normal((1000, 2, 5)))
    wrong = sum(compare(several(*a), several(*b)).verdict != "equal" for a, b in rates.tolist())
    assert 30 <= wrong <= 70


def test_a_tenth_less_is_found() -> None:
    rng = np.random.default_rng(12)
    rates = 100.0 * np.exp(0.02 * rng.standard_normal((1000, 2, 5)))
    found = sum(compare(several(*a), several(*(0.9 * np.array(b)))).verdict == "slower" for a, b in rates.tolist())
    assert found >= 990


def test_the_interval_holds_the_true_ratio_in_95_of_100_comparisons_of_a_run_with_a_series() -> None:
    """A run's rate scatters with its window's error and RUN_TO_RUN, and the error is an estimate itself."""
    rng = np.random.default_rng(13)
    covered = 0
    for _ in range(1000):
        between, within = RUN_TO_RUN * rng.standard_normal(6), 0.01 * rng.standard_normal(6)
        rates = 100.0 * np.exp(between + within)
        error = 0.01 * math.sqrt(rng.chisquare(20) / 20)
        found = compare(single(float(rates[0]), error, 20.0), several(*(0.95 * rates[1:]).tolist()))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= -0.05 <= found.high
    assert 930 <= covered <= 970
