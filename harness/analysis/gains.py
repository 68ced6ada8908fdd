"""The gain in throughput of a training if one of its stages, such as its data, cost no time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.analysis.interval import t_quantile
from harness.analysis.window import PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN

# A phase without an interval is changed by this fraction to see whether a figure depends on it.
PROBE = 0.01
# The minimum step of a numerical slope, which can't be computed over a difference of 0.
MIN_ERROR = 1e-6

# Seconds per image in each phase, by the phase's name.
SecondsPerImage = Mapping[str, float]
Remaining = Callable[[SecondsPerImage], float]


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times as fast end to end would be at most, with the 95 % interval (None: too few steps for it)."""

    value: float
    low: float | None
    high: float | None


def without_data(seconds: SecondsPerImage) -> float:
    """Returns the seconds per image if batches cost no time: compute-only."""
    return seconds[COMPUTE]


def without_training(seconds: SecondsPerImage) -> float:
    """Returns the seconds per image if training costs no time: pipeline-only."""
    return seconds[PIPELINE]


def without_communication(seconds: SecondsPerImage) -> float:
    """Returns the seconds per image end to end if exchanging gradients costs no time.

    Computation and the time that data add to training remain, and the pipeline's own rate is a limit.
    """
    return max(seconds[PIPELINE], _added_by_data(seconds) + seconds[COMPUTE_NO_SYNC])


def without_computation(seconds: SecondsPerImage) -> float:
    """Returns the seconds per image end to end if forward, backward and optimizer cost no time, but the exchange does.

    The time that data add to training remains, though no more than the pipeline takes alone, and so does the exchange.
    """
    exchange = max(seconds[COMPUTE] - seconds[COMPUTE_NO_SYNC], 0.0)
    return max(seconds[PIPELINE], min(seconds[PIPELINE], _added_by_data(seconds)) + exchange)


def gain(remaining: Remaining, phases: Mapping[str, PhaseFigures]) -> Gain:
    """Returns the gain of a removal that leaves the given seconds per image, from the rates of the phases."""
    return gain_ratio(remaining, lambda seconds: seconds[TRAIN], phases)


def gain_ratio(larger: Remaining, smaller: Remaining, phases: Mapping[str, PhaseFigures]) -> Gain:
    """Returns the ratio of two removals' gains; the uncertainty of end to end, which both share, cancels out."""
    log, reach = _log_ratio(smaller, larger, phases)
    if reach is None:
        return Gain(math.exp(log), None, None)
    return Gain(math.exp(log), math.exp(log - reach), math.exp(log + reach))


def _added_by_data(seconds: SecondsPerImage) -> float:
    return max(seconds[TRAIN] - seconds[COMPUTE], 0.0)


def _log_ratio(
    numerator: Remaining, denominator: Remaining, phases: Mapping[str, PhaseFigures]
) -> tuple[float, float | None]:
    """Returns the logarithm of a ratio of seconds, and the half-width of its 95 % interval.

    The phases' errors are independent, because their steps are different ones. Each error enters with its slope (delta
    method; the slope is taken over a step of the error's size, because a limit such as the pipeline's rate has a kink).
    The degrees of freedom are the fewest of the phases that matter: those of Welch and Satterthwaite cover less in
    windows below 60 steps (docs/methodology.md). The half-width is None if a phase that matters has no error.
    """
    seconds = {name: 1 / figures.fps for name, figures in phases.items()}

    def log(changed: SecondsPerImage) -> float:
        return math.log(numerator(changed) / denominator(changed))

    variance, freedoms = 0.0, math.inf
    for name, figures in phases.items():
        error, freedom = figures.relative_standard_error, figures.degrees_of_freedom
        step = PROBE if error is None else max(error, MIN_ERROR)
        up, down = (log({**seconds, name: seconds[name] * math.exp(side * step)}) for side in (1, -1))
        slope = (up - down) / (2 * step)
        if slope == 0.0:
            continue
        if error is None or freedom is None:
            return log(seconds), None
        variance += (slope * error) ** 2
        freedoms = min(freedoms, freedom)
    return log(seconds), t_quantile(freedoms) * math.sqrt(variance) if variance else 0.0
