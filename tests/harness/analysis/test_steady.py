"""The end of the warm-up, found in step times whose warm-up is known."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.steady import find_steady_state, mser_cut
from tests.support.simulation import ar1


def series(count: int, warmup: int, shape: str, phi: float, seed: int) -> np.ndarray:
    """Step times of 0.1 s with 3 % noise; the first `warmup` are slower."""
    times = 0.1 * (1 + ar1(phi, count, 0.03, seed))
    if shape == "steps":
        times[:warmup] *= 3
    elif shape == "slightly slow steps":
        times[:warmup] *= 1.3
    elif shape == "ramp":
        times[:warmup] *= np.linspace(3, 1, warmup, endpoint=False)
    elif shape == "steps, and stalls later":
        times[:warmup] *= 2
        times[warmup + 7 :: 40] *= 5
    return times


@pytest.mark.parametrize("shape", ["steps", "slightly slow steps", "ramp", "steps, and stalls later"])
@pytest.mark.parametrize("phi", [0.0, 0.5])
@pytest.mark.parametrize(("count", "warmup"), [(100, 20), (300, 50), (1000, 200)])
def test_the_cut_is_within_a_tenth_of_the_warm_up(shape: str, phi: float, count: int, warmup: int) -> None:
    cuts = [find_steady_state(series(count, warmup, shape, phi, seed)).warmup_steps for seed in range(100)]
    near = [abs(cut - warmup) <= max(1, 0.1 * warmup) for cut in cuts]
    assert abs(np.median(cuts) - warmup) <= 0.1 * warmup
    assert sum(near) >= 90


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_without_a_warm_up_nothing_is_cut(phi: float) -> None:
    states = [find_steady_state(series(300, 0, "", phi, seed)) for seed in range(100)]
    assert sum(state.warmup_steps == 0 for state in states) >= 95
    assert all(state.steady is True for state in states)


def test_the_size_of_the_figures_does_not_move_the_cut() -> None:
    times = series(200, 40, "steps", 0.0, 1)
    cuts = {find_steady_state(scale * times).warmup_steps for scale in (1e-3, 1.0, 100.0)}
    assert len(cuts) == 1


def test_exact_steps_have_an_exact_cut() -> None:
    state = find_steady_state([2.0] * 30 + [1.0] * 170)
    assert (state.warmup_steps, state.steady, state.reason) == (30, True, "warm-up found in the step times")
    assert state.drift == pytest.approx(0.0, abs=1e-12)
    assert find_steady_state([1.0] * 50).warmup_steps == 0


def test_the_least_and_the_given_warm_up_are_kept() -> None:
    times = [1.0] * 100
    assert find_steady_state(times, min_warmup=20).warmup_steps == 20
    assert find_steady_state(times, min_warmup=20, given_warmup=3).warmup_steps == 3
    assert find_steady_state(times, given_warmup=0).reason == "warm-up given by --warmup"
    assert find_steady_state([3.0] * 15 + times, given_warmup=200).warmup_steps == 115


def test_too_few_steps_can_not_be_told() -> None:
    state = find_steady_state([1.0] * 12, min_warmup=3)
    assert (state.warmup_steps, state.steady, state.drift) == (3, None, None)
    assert "too few" in state.reason
    assert find_steady_state([], min_warmup=3).warmup_steps == 0


def test_a_warm_up_longer_than_half_is_no_steady_state() -> None:
    state = find_steady_state(np.concatenate([np.full(60, 2.0), np.full(40, 1.0)]) * (1 + ar1(0.0, 100, 0.01, 1)))
    assert state.steady is False


@pytest.mark.parametrize("drift", [0.3, 0.1, -0.1])
def test_a_straight_line_s_drift_is_told_within_a_hundredth(drift: float) -> None:
    times = 0.1 * np.linspace(1 - drift / 2, 1 + drift / 2, 4000)
    assert find_steady_state(times, given_warmup=0).drift == pytest.approx(drift, rel=0.001)
    noisy = times * (1 + ar1(0.0, 4000, 0.01, 3))
    assert find_steady_state(noisy, given_warmup=0).drift == pytest.approx(drift, rel=0.01)


@pytest.mark.parametrize("drift", [0.2, -0.2])
def test_a_trend_is_no_steady_state(drift: float) -> None:
    times = 0.1 * np.linspace(1 - drift / 2, 1 + drift / 2, 500) * (1 + ar1(0.5, 500, 0.01, 3))
    state = find_steady_state(times, given_warmup=0)
    assert state.steady is False
    assert state.drift == pytest.approx(drift, rel=0.05)


def test_a_slight_trend_is_tolerated_and_told() -> None:
    times = 0.1 * np.linspace(0.99, 1.01, 500) * (1 + ar1(0.0, 500, 0.01, 3))
    state = find_steady_state(times, given_warmup=0)
    assert state.steady is True
    assert state.drift == pytest.approx(0.02, abs=0.003)


def test_noise_that_looks_like_a_trend_is_none() -> None:
    """Strong autocorrelation makes slopes by accident; not many may count."""
    states = [find_steady_state(0.1 * (1 + ar1(0.8, 60, 0.05, seed)), given_warmup=0) for seed in range(200)]
    assert sum(state.steady is False for state in states) <= 30


def test_mser_is_where_the_standard_error_is_smallest() -> None:
    values = np.random.default_rng(1).normal(size=40)
    values[:8] += 4
    errors = [values[cut:].var() / (len(values) - cut) for cut in range(21)]
    assert mser_cut(values) == int(np.argmin(errors))
