"""The loop that times calls of a network, and what every call's logits must be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.latency.engines import Images, Predict


class OtherLogitsError(Exception):
    """An engine gives other logits than the trained network: what it computes is not that network."""


@dataclass(frozen=True, slots=True)
class LogitsCheck:
    """Compares logits with the trained network's; tolerance is a share of the largest of these."""

    wanted: Images
    tolerance: float

    def __call__(self, logits: Images) -> float:
        """Returns the largest difference, as a share of the largest logit.

        Raises OtherLogitsError if it is above the tolerance, or not a number, and for logits of another shape.
        """
        if logits.shape != self.wanted.shape:
            raise OtherLogitsError(f"logits of shape {logits.shape} instead of {self.wanted.shape}")
        largest = float(np.abs(self.wanted).max())
        # Weights that are all 0 give no larger one.
        error = float(np.abs(logits - self.wanted).max()) / (largest or 1.0)
        # Not the other way round: no comparison holds for what isn't a number.
        if not error <= self.tolerance:
            raise OtherLogitsError(
                f"logits differ from the trained network's by {error:.2g} of the largest; {self.tolerance:g} is allowed"
            )
        return error


def time_calls(
    predict: Predict,
    images: Images,
    check: Callable[[Images], float],
    seconds: float,
    min_calls: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    before: Callable[[], None] = lambda: None,
) -> tuple[list[float], float]:
    """Call until the seconds are over, min_calls times at least. Returns each call's milliseconds, and the worst error.

    Every call's logits are checked, outside of what is timed, as is what `before` does before each call. Raises
    OtherLogitsError.
    """
    milliseconds, worst = [], 0.0
    end = clock() + seconds
    while True:
        before()
        begin = clock()
        logits = predict(images)
        done = clock()
        milliseconds.append(1000 * (done - begin))
        worst = max(worst, check(logits))
        if done >= end and len(milliseconds) >= min_calls:
            return milliseconds, worst
