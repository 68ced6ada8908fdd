"""Tests whether two measured rates differ by more than noise explains."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.interval import t_p_value, t_quantile

# The p-value below which a difference counts as significant.
SIGNIFICANT = 0.05
# The standard deviation between runs of one job on one machine, as a share of the rate. A single run's steps don't show
# it: another run gets other memory, and its threads other cores and neighbours. Measured on a virtual machine with two
# cores: 0.9 % with a spare core, 1.3 % without (docs/methodology.md).
RUN_TO_RUN = 0.015


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: a run, or several of the same job, with one rate each, in images per second.

    relative_standard_error and degrees_of_freedom are those of a single run's window, None if unknown; with several
    runs they aren't used, because the spread of the runs says more. exact marks a published figure without uncertainty.
    Raises ValueError for a rate that isn't positive and finite, a negative error, or degrees of freedom that aren't
    positive.
    """

    name: str
    fps: tuple[float, ...]
    relative_standard_error: float | None
    degrees_of_freedom: float | None
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.fps or not all(0 < fps < math.inf for fps in self.fps):
            raise ValueError(f"rates are {self.fps}; at least one is needed, and each must be positive and finite")
        error, degrees = self.relative_standard_error, self.degrees_of_freedom
        if error is not None and not 0 <= error < math.inf:
            raise ValueError(f"relative_standard_error is {error}; it must be at least 0 and finite")
        if degrees is not None and not degrees > 0:
            raise ValueError(f"degrees_of_freedom is {degrees}; it must be above 0")

    @property
    def log_fps(self) -> tuple[float, ...]:
        """The logarithm of each rate; the difference of two of them is the logarithm of a ratio."""
        return tuple(math.log(fps) for fps in self.fps)

    @property
    def mean_fps(self) -> float:
        """The geometric mean of the rates; `compare` takes the ratio of these means."""
        return self.fps[0] if len(self.fps) == 1 else math.exp(statistics.fmean(self.log_fps))

    @property
    def spread_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of mean_fps from the spread of the runs; None for a single one."""
        if len(self.fps) < 2:
            return None
        reach = t_quantile(len(self.fps) - 1) * math.sqrt(statistics.variance(self.log_fps) / len(self.fps))
        return self.mean_fps * math.exp(-reach), self.mean_fps * math.exp(reach)


@dataclass(frozen=True, slots=True)
class BetweenRuns:
    """The throughput of repeated runs, in images per second, global.

    fps is their geometric mean, fps_low and fps_high its 95 % interval by Student's t on logarithms, as in `compare`;
    relative_sd is their standard deviation. The last three are None for a single run.
    """

    count: int
    fps: float
    fps_low: float | None
    fps_high: float | None
    relative_sd: float | None


def between_runs(fps: Sequence[float]) -> BetweenRuns:
    """The mean of runs' throughputs and its interval. Raises ValueError without runs, and for impossible rates."""
    side = Side("", tuple(fps), None, None)
    low, high = side.spread_interval or (None, None)
    deviation = statistics.stdev(side.log_fps) if len(fps) > 1 else None
    return BetweenRuns(len(fps), side.mean_fps, low, high, deviation)


@dataclass(frozen=True, slots=True)
class Difference:
    """B compared with A. change is B's rate / A's rate - 1: -0.1 is 10 % slower.

    low and high bound its 95 % interval; p_value is the probability that noise alone causes a change at least as large.
    They are None if a run's uncertainty is unknown. verdict is "faster", "slower", "equal" (no significant difference)
    or "unknown", for B; how describes the source of the uncertainty.
    """

    change: float
    low: float | None
    high: float | None
    p_value: float | None
    verdict: str
    how: str


@dataclass(frozen=True, slots=True)
class _Term:
    """A part of the variance of a logarithm; degrees_of_freedom is infinite for a variance that counts as known."""

    variance: float
    degrees_of_freedom: float


def compare(a: Side, b: Side) -> Difference:
    """Returns the difference of b's rate from a's, by a t-test on the difference of their mean logarithms.

    A side of several runs has the variance of their mean, s^2 / k with k - 1 degrees of freedom, so with two such
    sides this is Welch's test. A single run has its window's relative standard error squared (to first order that of
    its logarithm) plus RUN_TO_RUN squared, taken as known. An exact side has no variance. The variances
    add up, with the degrees of freedom of Welch and Satterthwaite: (sum of v)^2 / sum of v^2 / df. Sources: Welch,
    "The generalization of 'Student's' problem when several different population variances are involved" (Biometrika
    34, 1947), equation 28 and after; Satterthwaite, "An approximate distribution of estimates of variance components"
    (Biometrics 2, 1946).
    """
    difference = statistics.fmean(b.log_fps) - statistics.fmean(a.log_fps)
    change = b.mean_fps / a.mean_fps - 1
    unknown = [letter for letter, side in (("A", a), ("B", b)) if _unknown(side)]
    terms = (*_terms(a), *_terms(b))
    if unknown or not terms:
        how = f"{unknown[0]} has no interval" if len(unknown) == 1 else "neither A nor B has an interval"
        return Difference(change, None, None, None, "unknown", how)
    variance = math.fsum(term.variance for term in terms)
    denominator = math.fsum(term.variance**2 / term.degrees_of_freedom for term in terms)
    degrees = variance**2 / denominator if denominator > 0 else math.inf
    error = math.sqrt(variance)
    reach = t_quantile(degrees) * error
    p_value = 1.0
    if difference:  # a difference of identical runs has an error of 0, and can't be noise
        p_value = t_p_value(difference / error, degrees) if error > 0 else 0.0
    verdict = "equal" if p_value >= SIGNIFICANT else "faster" if difference > 0 else "slower"
    return Difference(change, _less_1(difference - reach), _less_1(difference + reach), p_value, verdict, _how(a, b))


def _terms(side: Side) -> tuple[_Term, ...]:
    runs = len(side.fps)
    if runs >= 2:
        return (_Term(statistics.variance(side.log_fps) / runs, runs - 1),)
    if side.exact or side.relative_standard_error is None or side.degrees_of_freedom is None:
        return ()
    return (
        _Term(side.relative_standard_error**2, side.degrees_of_freedom),
        _Term(RUN_TO_RUN**2, math.inf),
    )


def _unknown(side: Side) -> bool:
    """Returns whether the side was measured, but its uncertainty is unknown."""
    return not side.exact and not _terms(side)


def _less_1(logarithm: float) -> float:
    try:
        return math.expm1(logarithm)
    except OverflowError:
        return math.inf


def _how(a: Side, b: Side) -> str:
    if len(a.fps) >= 2 and len(b.fps) >= 2:
        return f"Welch's t-test on the logarithms of the throughputs of {len(a.fps)} and {len(b.fps)} runs"
    text = f"A: {_source(a)}; B: {_source(b)}"
    for side, other in ((a, "B"), (b, "A")):
        if not _terms(side):
            text += f"; only {other}'s uncertainty counts"
    return text


def _source(side: Side) -> str:
    if len(side.fps) >= 2:
        return f"the spread of its {len(side.fps)} runs"
    if not _terms(side):
        return "published without an interval, assumed exact"
    return f"its window's standard error, and {100 * RUN_TO_RUN:g} % assumed between runs"
