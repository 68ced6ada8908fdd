"""95 % confidence intervals for the mean of step times, which are autocorrelated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
# Fewer values say too little about their spread.
MIN_VALUES = 10
# The maximum order of the autoregression, in steps, and the number of values that each order needs.
MAX_LAGS, VALUES_PER_LAG = 8, 8
# With a sum of coefficients closer to 1 the series can't be distinguished from one without a mean.
MAX_COEFFICIENT_SUM = 0.98

# With fewer steps or seconds a window doesn't count as precise, however alike its steps are.
MIN_WINDOW_STEPS, MIN_WINDOW_SECONDS = 20, 10.0

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error, in the unit of the values.

    standard_error accounts for autocorrelation; degrees_of_freedom belong to it, for Student's t. Both are None below
    MIN_VALUES values. autocorrelation is that of the values at lag 1 (0 for constant values).
    """

    mean: float
    values: int
    standard_error: float | None
    degrees_of_freedom: float | None
    autocorrelation: float | None

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval's width; None if unknown."""
        if self.standard_error is None or self.degrees_of_freedom is None:
            return None
        return t_quantile(self.degrees_of_freedom) * self.standard_error

    @property
    def relative_half_width(self) -> float | None:
        """Half of the 95 % interval's width / the mean; None if unknown."""
        half = self.half_width
        return None if half is None else half / self.mean


def t_quantile(degrees_of_freedom: float) -> float:
    """Returns the half-width of a 95 % interval in standard errors."""
    from scipy import special  # takes an eighth of a second, which the start of a run can do without

    return float(special.stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))


def t_p_value(t: float, degrees_of_freedom: float) -> float:
    """Returns the probability of a t at least this far from 0 if there is no difference (two-sided)."""
    from scipy import special

    return float(2 * special.stdtr(degrees_of_freedom, -abs(t)))


def mean_estimate(values: Sequence[float] | FloatArray | Any) -> Estimate:
    """Returns the mean of consecutive values of a stationary series, and its standard error.

    An autoregression is fitted to the series, with the order chosen by AICc; the variance of the mean is the fit's
    spectral density at frequency 0, divided by n. The sum of the coefficients is corrected for its small-sample bias,
    (1 + 3 phi) / n (Marriott and Pope, 1954, and Kendall, 1954, for order 1), and its own uncertainty determines the
    degrees of freedom (delta method on the logarithm of the variance). The half-width is at most the largest distance
    of a value from the mean, because a fit to few values may be far off. Source: Heidelberger and Welch, "A spectral
    method for confidence interval generation" (1981), with den Haan and Levin's autoregressive estimate of the density
    (VARHAC, 1997). docs/methodology.md has the measured coverage. Raises ValueError for no values.
    """
    series = np.asarray(values, dtype=np.float64)
    n = len(series)
    if n == 0:
        raise ValueError("the mean of no values")
    mean = float(series.mean())
    centred = series - mean
    variance = float(centred @ centred) / n
    if n < MIN_VALUES:
        return Estimate(mean, n, None, None, None)
    if variance <= (1e-9 * mean) ** 2:
        return Estimate(mean, n, 0.0, float(n - 1), 0.0)
    orders = max(1, min(MAX_LAGS, n // VALUES_PER_LAG))
    covariances = [float(centred[: n - lag] @ centred[lag:]) / n for lag in range(orders + 1)]
    order, coefficient_sum, innovation = _autoregression(covariances, n)
    if order:
        coefficient_sum = min(coefficient_sum + (1 + 3 * coefficient_sum) / n, MAX_COEFFICIENT_SUM)
    spectral = innovation * n / (n - order - 1) / (1 - coefficient_sum) ** 2
    log_variance = 2 / (n - order - 1)
    if order:
        log_variance += 4 * (1 + coefficient_sum) / (1 - coefficient_sum) / n
    degrees_of_freedom = max(1.0, 2 / log_variance)
    farthest = float(np.abs(centred).max()) / t_quantile(degrees_of_freedom)
    error = min(math.sqrt(spectral / n), farthest)
    return Estimate(mean, n, error, degrees_of_freedom, covariances[1] / covariances[0])


def _autoregression(covariances: Sequence[float], n: int) -> tuple[int, float, float]:
    """Returns order, coefficient sum and innovation variance of the best fit (Levinson-Durbin recursion, AICc)."""
    coefficients = np.zeros(0)
    innovation = covariances[0]
    best = (math.inf, 0, 0.0, innovation)
    for order in range(len(covariances)):
        if order:
            reflection = (covariances[order] - float(coefficients @ covariances[order - 1 : 0 : -1])) / innovation
            coefficients = np.append(coefficients - reflection * coefficients[::-1], reflection)
            innovation *= max(1 - reflection**2, 1e-12)
        criterion = n * math.log(innovation) + n * (n + order + 1) / (n - order - 3)
        best = min(best, (criterion, order, float(coefficients.sum()), innovation))
    return best[1:]
