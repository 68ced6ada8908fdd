"""Whether one measured rate differs from another, or whether noise explains what lies between them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from harness.analysis.interval import t_p_value, t_quantile

# A difference that noise alone makes less often than this is called one.
SIGNIFICANT = 0.05
# The standard deviation between runs of one job on one machine, as a share of the rate: what a single run's own steps
# can't show, as another run has its memory, its threads and its neighbours elsewhere. Measured on a virtual machine of
# two cores: 0.9 % with a core to spare, 1.3 % without (docs/methodology.md).
RUN_TO_RUN = 0.015


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared: a run, or several of the same job, with one rate each, in images per second.

    relative_standard_error and degrees_of_freedom are those of a single run's window; they aren't looked at where there
    are several runs, whose spread says more. None: unknown. exact is a published figure, taken as it is. Raises
    ValueError for a rate that isn't positive and finite, an error that is negative, and degrees of freedom that aren't
    positive.
    """

    name: str
    fps: tuple[float, ...]
    relative_standard_error: float | None
    degrees_of_freedom: float | None
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.fps or not all(0 < fps < math.inf for fps in self.fps):
            raise ValueError(f"rates are {self.fps}; there must be at least one, each positive and finite")
        error, degrees = self.relative_standard_error, self.degrees_of_freedom
        if error is not None and not 0 <= error < math.inf:
            raise ValueError(f"relative_standard_error is {error}; it must be at least 0 and finite")
        if degrees is not None and not degrees > 0:
            raise ValueError(f"degrees_of_freedom is {degrees}; it must be above 0")

    @property
    def log_fps(self) -> tuple[float, ...]:
        """The logarithm of each rate: a ratio of rates is a difference of these."""
        return tuple(math.log(fps) for fps in self.fps)

    @property
    def mean_fps(self) -> float:
        """The geometric mean of the rates, of which `compare` takes the ratio."""
        return self.fps[0] if len(self.fps) == 1 else math.exp(statistics.fmean(self.log_fps))

    @property
    def spread_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of mean_fps from the spread of the runs; None for a single one."""
        if len(self.fps) < 2:
            return None
        reach = t_quantile(len(self.fps) - 1) * math.sqrt(statistics.variance(self.log_fps) / len(self.fps))
        return self.mean_fps * math.exp(-reach), self.mean_fps * math.exp(reach)


@dataclass(frozen=True, slots=True)
class Difference:
    """B against A. change is B's rate over A's, less 1: -0.1 is 10 % slower.

    low and high bound its 95 % interval; p_value is how often noise alone would bring a change at least as large. They
    are None where a run's uncertainty isn't known. verdict says of B that it is faster, slower, equal (as far as
    the noise allows to see) or unknown; how says what the uncertainty was taken from.
    """

    change: float
    low: float | None
    high: float | None
    p_value: float | None
    verdict: str
    how: str


@dataclass(frozen=True, slots=True)
class _Term:
    """A part of the variance of a logarithm; degrees_of_freedom are infinite for what counts as known."""

    variance: float
    degrees_of_freedom: float


def compare(a: Side, b: Side) -> Difference:
    """Whether b's rate differs from a's: a t-test on the difference of their mean logarithms.

    A side of several runs has the variance of their mean, s^2 / k with k - 1 degrees of freedom, so with two such
    sides this is Welch's test. A single run has its window's relative standard error squared (to first order that of
    its logarithm) and RUN_TO_RUN squared, taken as known. An exact side has none. The variances
    add up, with the degrees of freedom of Welch and Satterthwaite: (sum of v)^2 / sum of v^2 / df. Sources: Welch,
    "The generalization of 'Student's' problem when several different population variances are involved" (Biometrika
    34, 1947), equation 28 and after; Satterthwaite, "An approximate distribution of estimates of variance components"
    (Biometrics 2, 1946).
    """
    difference = statistics.fmean(b.log_fps) - statistics.fmean(a.log_fps)
    change = b.mean_fps / a.mean_fps - 1
    unknown = [letter for letter, side in (("A", a), ("B", b)) if _unknown(side)]
    run_signature = (*_terms(a), *_terms(b))
    if unknown or not run_signature:
        how = f"{unknown[0]} has no interval" if len(unknown) == 1 else "neither A nor B has an interval"
        return Difference(change, None, None, None, "unknown", how)
    variance = math.fsum(term.variance for term in run_signature)
    doubt = math.fsum(term.variance**2 / term.degrees_of_freedom for term in run_signature)
    degrees = variance**2 / doubt if doubt > 0 else math.inf
    error = math.sqrt(variance)
    reach = t_quantile(degrees) * error
    p_value = 1.0
    if difference:  # which runs that are all alike leave no room for noise to explain
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
    """Whether the side was measured, but not well enough to know how sure it is."""
    return not side.exact and not _terms(side)


def _less_1(logarithm: float) -> float:
    try:
        return math.expm1(logarithm)
    except OverflowError:
        return math.inf


def _how(a: Side, b: Side) -> str:
    if len(a.fps) >= 2 and len(b.fps) >= 2:
        return f"Welch's t-test on the logarithms of {len(a.fps)} and {len(b.fps)} runs' rates"
    said = f"A: {_source(a)}; B: {_source(b)}"
    for side, other in ((a, "B"), (b, "A")):
        if not _terms(side):
            said += f"; only {other}'s uncertainty counts"
    return said


def _source(side: Side) -> str:
    if len(side.fps) >= 2:
        return f"the spread of its {len(side.fps)} runs"
    if not _terms(side):
        return "published without an interval, taken as exact"
    return f"its window's standard error, and {100 * RUN_TO_RUN:g} % assumed between runs"
