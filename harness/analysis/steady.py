"""Where the warm-up ends and whether a steady state follows, told from the step times alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.analysis.interval import mean_estimate, t_quantile

# The fewest steps that a warm-up can be looked for in; half of them must follow it.
MIN_STEPS = 10
# A change of the step time over the window that matters, if it is no accident.
TOLERATED_DRIFT = 0.05
# Noise that hides a change this large hides whether there is a steady state.
NOTICED_DRIFT = 0.2
# A single stall may not look like a warm-up: a step counts for at most this many deviations from the usual.
MAX_DEVIATIONS = 5.0
# The standard deviation of a normal distribution over its median absolute deviation.
NORMAL_MAD = 1.4826
# MSER's best cut chases noise: shorter ones count as good that are this much worse, per independent step. A step this
# many deviations from the usual is warm-up in any case.
TOLERANCE, FAR_DEVIATIONS = 20.0, 3.0

STILL_CHANGING = "the step times still change in the second half of the steps"

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SteadyState:
    """What the step times say.

    warmup_steps is where the window begins. drift is the step time's change over the window by a straight line, as a
    share of its mean (0.1: 10 % slower at the end); None for fewer than MIN_STEPS steps. steady is None where the
    steps are too few to tell; reason says in words what was found.
    """

    warmup_steps: int
    steady: bool | None
    drift: float | None
    reason: str


def find_steady_state(
    step_seconds: Sequence[float] | FloatArray | Any, min_warmup: int = 0, given_warmup: int | None = None
) -> SteadyState:
    """Cut the warm-up off a series of step times, and test what is left for a trend.

    The cut is MSER's (White, "An effective truncation heuristic for bias reduction in simulation output", 1997): where
    the squared standard error of the rest's mean is smallest, of all cuts in the first half. It is made on logarithms,
    limited to MAX_DEVIATIONS median absolute deviations of the second half, so that stalls and outliers pull no cut
    to themselves; and it is the shortest cut that noise can't tell from the best one, moved on past steps that are
    still far from the usual. The cut is at least min_warmup; given_warmup takes its place where the user has decided.

    No steady state: the best cut leaves less than half of the steps, or the rest has a trend of more than
    TOLERATED_DRIFT that its noise can't explain. Can't tell: the noise could hide one of NOTICED_DRIFT.
    """
    series = np.asarray(step_seconds, dtype=np.float64)
    if given_warmup is not None:
        return _judge(series, min(given_warmup, len(series)), "warm-up given by --warmup")
    searched = len(series) - min_warmup
    if searched < MIN_STEPS:
        cut = min(min_warmup, len(series))
        return SteadyState(cut, None, None, f"{len(series)} steps are too few to look for a warm-up")
    found = _cut(*_tamed(series[min_warmup:]))
    judged = _judge(series, min_warmup + found, "warm-up found in the step times")
    if found >= searched // 2:
        return replace(judged, steady=False, reason=STILL_CHANGING)
    return judged


def steady_across(attempts: Sequence[FloatArray], min_warmup: int = 0, given_warmup: int | None = None) -> SteadyState:
    """The same for a run that was resumed: the step times of each attempt, in which everything warms up anew.

    The warm-up is looked for in the longest attempt, which knows most of it; as many steps of every attempt are left
    out, and all that is left together is tested for a trend.
    """
    made = [attempt for attempt in attempts if len(attempt)]
    found = find_steady_state(max(attempts, key=len), min_warmup, given_warmup)
    if len(made) <= 1 or found.reason == STILL_CHANGING:
        return found
    rest = np.concatenate([attempt[found.warmup_steps :] for attempt in made])
    how, _, _ = found.reason.partition("; ")  # what is said of the longest attempt's trend is said of all instead
    return replace(_judge(rest, 0, how), warmup_steps=found.warmup_steps)


def mser_cut(values: FloatArray, tolerance: float = 0.0) -> int:
    """The number of first values, at most half of them, without which the mean of the rest is surest.

    Of all cuts whose statistic is at most 1 + tolerance times the smallest, the shortest.
    """
    n = len(values)
    left = np.arange(n, n - n // 2 - 1, -1)
    shifted = values - values.mean()  # for the numbers' sake: the sums below are differences of large ones
    sums = shifted.sum() - np.concatenate([[0.0], np.cumsum(shifted[: n // 2])])
    squares = (shifted**2).sum() - np.concatenate([[0.0], np.cumsum(shifted[: n // 2] ** 2)])
    # Rounding may not make a constant rest's cut look better than a shorter one's.
    statistic = np.round(np.maximum(squares - sums**2 / left, 0.0), 15) / left.astype(np.float64) ** 2
    return int(np.argmax(statistic <= (1 + tolerance) * statistic.min()))


def _tamed(series: FloatArray) -> tuple[FloatArray, float]:
    """Logarithms in units of the usual steps' deviation from their median, limited to MAX_DEVIATIONS; their lag-1
    autocorrelation in the second half."""
    logs = np.log(np.maximum(series, 1e-12))
    usual = logs[len(logs) // 2 :]
    middle = float(np.median(usual))
    # Where the usual steps are all alike, a step 1 % off is as far off as a step can be.
    deviation = max(NORMAL_MAD * float(np.median(np.abs(usual - middle))), 0.002)
    tamed = np.clip((logs - middle) / deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    return tamed, mean_estimate(tamed[len(logs) // 2 :]).autocorrelation or 0.0


def _cut(tamed: FloatArray, autocorrelation: float) -> int:
    memory = min(max(autocorrelation, 0.0), 0.9)
    cut = mser_cut(tamed, TOLERANCE * (1 + memory) / (1 - memory) / len(tamed))
    while cut < len(tamed) // 2 and abs(tamed[cut]) > FAR_DEVIATIONS:
        cut += 1
    return cut


def _judge(series: FloatArray, cut: int, how: str) -> SteadyState:
    rest = series[cut:]
    if len(rest) < MIN_STEPS:
        return SteadyState(cut, None, None, f"{how}; {len(rest)} steps behind it are too few to tell a trend")
    drift, accidental = _drift(rest), _accidental_drift(rest)
    if abs(drift) > TOLERATED_DRIFT and abs(drift) > accidental:
        return SteadyState(cut, False, drift, f"{how}; the step time changes by {drift:+.1%} over the window")
    if accidental > NOTICED_DRIFT:
        return SteadyState(cut, None, drift, f"{how}; the steps differ too much to tell a trend from noise")
    return SteadyState(cut, True, drift, how)


def _drift(rest: FloatArray) -> float:
    slope = np.polynomial.polynomial.polyfit(_positions(rest), rest, 1)[1]
    return float(slope / rest.mean())


def _accidental_drift(rest: FloatArray) -> float:
    """The largest drift, as a share of the mean, that steps without a trend show in 95 of 100 windows."""
    positions = _positions(rest)
    slope = np.polynomial.polynomial.polyfit(positions, rest, 1)[1]
    noise = mean_estimate(rest - slope * positions)
    if noise.standard_error is None or noise.degrees_of_freedom is None:
        return math.inf
    # The variance of a slope over [-1/2, 1/2] is 12 times that of the mean.
    return t_quantile(noise.degrees_of_freedom) * noise.standard_error * math.sqrt(12) / float(rest.mean())


def _positions(rest: FloatArray) -> FloatArray:
    return np.linspace(-0.5, 0.5, len(rest))
