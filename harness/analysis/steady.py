"""Finds the end of the warm-up, and whether a steady state follows, from the step times alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.analysis.interval import mean_estimate, t_quantile
from models.words import count_of

# The minimum number of steps to look for a warm-up in; at least half of the steps must follow it.
MIN_STEPS = 10
# A larger change of the step time over the window means that there is no steady state, if noise doesn't explain it.
TOLERATED_DRIFT = 0.05
# If noise could hide a change this large, it is unknown whether there is a steady state.
NOTICED_DRIFT = 0.2
# Deviations of a step are limited to this many, so that a single stall doesn't look like a warm-up.
MAX_DEVIATIONS = 5.0
# The standard deviation of a normal distribution / its median absolute deviation.
NORMAL_MAD = 1.4826
# MSER's best cut follows noise: shorter cuts count as equally good if they are at most this much worse, per independent
# step. A step that deviates by more than FAR_DEVIATIONS is part of the warm-up in any case.
TOLERANCE, FAR_DEVIATIONS = 20.0, 3.0

STILL_CHANGING = "the step times still change in the second half of the steps"

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SteadyState:
    """The warm-up, and whether a steady state follows it.

    warmup_steps is the number of steps before the window. drift is the change of the step time over the window, by a
    fitted straight line, as a share of its mean (0.1: 10 % slower at the end); None for fewer than MIN_STEPS steps.
    steady is None if it is unknown; reason describes what was found.
    """

    warmup_steps: int
    steady: bool | None
    drift: float | None
    reason: str


def find_steady_state(
    step_seconds: Sequence[float] | FloatArray | Any, min_warmup: int = 0, given_warmup: int | None = None
) -> SteadyState:
    """Returns the steady state: cuts the warm-up off a series of step times, and tests the rest for a trend.

    The cut is MSER's (White, "An effective truncation heuristic for bias reduction in simulation output", 1997): of all
    cuts in the first half, the one with the smallest squared standard error of the rest's mean. It is computed on
    logarithms, limited to MAX_DEVIATIONS median absolute deviations of the second half, so that stalls and outliers
    don't attract the cut. The shortest cut is taken that noise doesn't distinguish from the best one, then extended
    over steps that are still far from the usual. The cut is at least min_warmup; given_warmup, if any, replaces it.

    steady is False if the best cut leaves less than half of the steps, or if the rest has a trend of more than
    TOLERATED_DRIFT that noise can't explain; None if noise could hide a trend of NOTICED_DRIFT.
    """
    series = np.asarray(step_seconds, dtype=np.float64)
    if given_warmup is not None:
        return _judge(series, min(given_warmup, len(series)), "warm-up given by --warmup")
    searched = len(series) - min_warmup
    if searched < MIN_STEPS:
        cut = min(min_warmup, len(series))
        return SteadyState(cut, None, None, f"{count_of(len(series), 'step')}: too few to look for a warm-up")
    found = _cut(*_limited_logs(series[min_warmup:]))
    judged = _judge(series, min_warmup + found, "warm-up found in the step times")
    if found >= searched // 2:
        return replace(judged, steady=False, reason=STILL_CHANGING)
    return judged


def steady_across(attempts: Sequence[FloatArray], min_warmup: int = 0, given_warmup: int | None = None) -> SteadyState:
    """Returns the steady state of a resumed run, from the step times of each attempt; every attempt warms up again.

    The warm-up is found in the longest attempt; the same number of steps of every attempt is left out, and the rest of
    all attempts together is tested for a trend.
    """
    made = [attempt for attempt in attempts if len(attempt)]
    found = find_steady_state(max(attempts, key=len), min_warmup, given_warmup)
    if len(made) <= 1 or found.reason == STILL_CHANGING:
        return found
    rest = np.concatenate([attempt[found.warmup_steps :] for attempt in made])
    how, _, _ = found.reason.partition("; ")  # the trend of all attempts replaces that of the longest
    return replace(_judge(rest, 0, how), warmup_steps=found.warmup_steps)


def mser_cut(values: FloatArray, tolerance: float = 0.0) -> int:
    """Returns the number of first values, at most half of them, without which the mean of the rest is most certain.

    That is the shortest of all cuts whose statistic is at most 1 + tolerance times the smallest.
    """
    n = len(values)
    left = np.arange(n, n - n // 2 - 1, -1)
    shifted = values - values.mean()  # for numerical accuracy: the sums below are differences of large numbers
    sums = shifted.sum() - np.concatenate([[0.0], np.cumsum(shifted[: n // 2])])
    squares = (shifted**2).sum() - np.concatenate([[0.0], np.cumsum(shifted[: n // 2] ** 2)])
    # Rounded, so that among cuts with a constant rest a rounding error doesn't favour a longer one.
    statistic = np.round(np.maximum(squares - sums**2 / left, 0.0), 15) / left.astype(np.float64) ** 2
    return int(np.argmax(statistic <= (1 + tolerance) * statistic.min()))


def _limited_logs(series: FloatArray) -> tuple[FloatArray, float]:
    """Returns logarithms in units of the second half's deviation from its median, limited to MAX_DEVIATIONS.

    Also returns their lag-1 autocorrelation in the second half.
    """
    logs = np.log(np.maximum(series, 1e-12))
    usual = logs[len(logs) // 2 :]
    middle = float(np.median(usual))
    # If the usual steps are all alike, a step that differs by 1 % reaches MAX_DEVIATIONS.
    deviation = max(NORMAL_MAD * float(np.median(np.abs(usual - middle))), 0.002)
    limited = np.clip((logs - middle) / deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    return limited, mean_estimate(limited[len(logs) // 2 :]).autocorrelation or 0.0


def _cut(limited: FloatArray, autocorrelation: float) -> int:
    memory = min(max(autocorrelation, 0.0), 0.9)
    cut = mser_cut(limited, TOLERANCE * (1 + memory) / (1 - memory) / len(limited))
    while cut < len(limited) // 2 and abs(limited[cut]) > FAR_DEVIATIONS:
        cut += 1
    return cut


def _judge(series: FloatArray, cut: int, how: str) -> SteadyState:
    rest = series[cut:]
    if len(rest) < MIN_STEPS:
        return SteadyState(cut, None, None, f"{how}; {count_of(len(rest), 'step')} after it: too few to detect a trend")
    drift, accidental = _drift(rest), _accidental_drift(rest)
    if abs(drift) > TOLERATED_DRIFT and abs(drift) > accidental:
        return SteadyState(cut, False, drift, f"{how}; the step time changes by {drift:+.1%} over the window")
    if accidental > NOTICED_DRIFT:
        return SteadyState(cut, None, drift, f"{how}; the steps vary too much to distinguish a trend from noise")
    return SteadyState(cut, True, drift, how)


def _drift(rest: FloatArray) -> float:
    slope = np.polynomial.polynomial.polyfit(_positions(rest), rest, 1)[1]
    return float(slope / rest.mean())


def _accidental_drift(rest: FloatArray) -> float:
    """Returns the largest drift that steps without a trend show in 95 of 100 windows, as a share of the mean."""
    positions = _positions(rest)
    slope = np.polynomial.polynomial.polyfit(positions, rest, 1)[1]
    noise = mean_estimate(rest - slope * positions)
    if noise.standard_error is None or noise.degrees_of_freedom is None:
        return math.inf
    # The variance of a slope over [-1/2, 1/2] is 12 times that of the mean.
    return t_quantile(noise.degrees_of_freedom) * noise.standard_error * math.sqrt(12) / float(rest.mean())


def _positions(rest: FloatArray) -> FloatArray:
    return np.linspace(-0.5, 0.5, len(rest))
