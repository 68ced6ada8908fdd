"""The median of a few values, with an interval that assumes nothing about their distribution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.interval import CONFIDENCE

# With fewer values not even the smallest and the largest bound the median with 95 % confidence.
MIN_VALUES = 6


@dataclass(frozen=True, slots=True)
class MedianEstimate:
    """A median, in the unit of the values, with its 95 % interval.

    low, high and relative_standard_error are None for fewer than MIN_VALUES values. relative_standard_error is that of
    the median's logarithm, for `harness.analysis.comparing.compare`; values - 1 are its degrees of freedom.
    """

    median: float
    low: float | None
    high: float | None
    relative_standard_error: float | None
    values: int

    @property
    def relative_half_width(self) -> float | None:
        """Half of the interval's width / the median; None if unknown."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2 / self.median


def median_estimate(values: Sequence[float]) -> MedianEstimate:
    """Returns the median of independent, positive values, and its interval between two of them.

    The interval reaches from the k-th smallest to the k-th largest value, with the largest k for which at least 95 % of
    all samples have the median in between: the number of values below the median is binomial, with n trials of 1/2.
    Source of the interval: Conover, "Practical Nonparametric Statistics" (1999), section 3.2; of the standard error
    from it: Price and Bonett, "Estimating the variance of the sample median" (J. Stat. Comput. Simul. 68, 2001). Raises
    ValueError without values, and for one that isn't positive and finite.
    """
    if not values or not all(0 < value < math.inf for value in values):
        raise ValueError(f"values are {tuple(values)}; at least one is needed, and each must be positive and finite")
    ordered = sorted(values)
    median, count = statistics.median(ordered), len(ordered)
    if count < MIN_VALUES:
        return MedianEstimate(median, None, None, None, count)
    rank, covered = _rank(count)
    low, high = ordered[rank - 1], ordered[-rank]
    error = math.log(high / low) / 2 / statistics.NormalDist().inv_cdf((1 + covered) / 2)
    return MedianEstimate(median, low, high, error, count)


def _rank(count: int) -> tuple[int, float]:
    """The largest rank whose interval covers the median often enough, and how often it does."""
    rank, outside, covered = 0, 0.0, 1.0
    while True:
        outside += 2 * math.comb(count, rank) / 2**count
        if 1 - outside < CONFIDENCE:
            return rank, covered
        rank, covered = rank + 1, 1 - outside
