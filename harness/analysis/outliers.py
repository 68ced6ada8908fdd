"""Steps that took far longer than usual, and their causes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.analysis.steady import NORMAL_MAD

if TYPE_CHECKING:
    import pandas as pd

# An outlier exceeds the median by more than this many deviations, and by more than this share of the median.
FAR_DEVIATIONS, FAR_SHARE = 5.0, 0.1
# Outliers are isolated if fewer than this many disturbances took at least half as long: too few to know how often they
# happen, so that chance decides how many a window has.
MIN_ALIKE = 5
CAUSES = {
    "data_wait_seconds": "data wait",
    "copy_seconds": "copy to the device",
    "recording_seconds": "recording",
    "exchange_seconds": "between steps",
    "forward_seconds": "forward pass",
    "backward_seconds": "backward pass",
    "optimizer_seconds": "optimizer",
}


@dataclass(frozen=True, slots=True)
class Outliers:
    """count outliers together took excess_seconds more than the median step each, excess_share of the window.

    causes counts them by the part of the step that made up at least half of the excess, with the interference, if any;
    "unknown" if there is neither. Of them isolated_steps are isolated, see `MIN_ALIKE`; their excess is isolated_share
    of the window, and the rate without these steps would be usual_fps (images/s).
    """

    count: int
    excess_seconds: float
    excess_share: float
    isolated_steps: int
    isolated_share: float
    usual_fps: float
    causes: dict[str, int] = field(default_factory=dict)


def is_outlier(times: pd.Series[float]) -> pd.Series[bool]:
    """Returns which of the step times of a phase's window, in seconds, are outliers."""
    median = float(times.median())
    deviation = NORMAL_MAD * float((times - median).abs().median())
    return times > median + max(FAR_DEVIATIONS * deviation, FAR_SHARE * median)


def find_outliers(window: pd.DataFrame) -> Outliers:
    """Returns the outliers of a phase's measured steps (at least one row of the steps table, disturbed or not)."""
    times = window["step_seconds"]
    median = float(times.median())
    far = is_outlier(times)
    excess = (times - median)[far]
    parts = window[list(CAUSES)]
    more = (parts - parts.median())[far]
    causes: dict[str, int] = {}
    for row, interference in zip(more.index, window.loc[far, "interference"], strict=True):
        parts_at_fault = [name for name, column in zip(CAUSES.values(), CAUSES, strict=True)
                          if more.loc[row, column] >= excess[row] / 2]  # fmt: skip
        known = interference if isinstance(interference, str) and interference != "none" else ""
        cause = " with ".join(filter(None, [parts_at_fault[0] if parts_at_fault else "", known])) or "unknown"
        causes[cause] = causes.get(cause, 0) + 1
    total = math.fsum(times)
    isolated = _isolated(far.to_numpy(), (times - median).to_numpy(np.float64), window["segment"])
    usual = window[~isolated]
    return Outliers(
        count=len(excess),
        excess_seconds=math.fsum(excess),
        excess_share=math.fsum(excess) / total,
        isolated_steps=int(isolated.sum()),
        isolated_share=math.fsum((times - median)[isolated]) / total,
        usual_fps=int(usual["images"].sum()) / math.fsum(usual["step_seconds"]),
        causes=causes,
    )


def _isolated(
    far: npt.NDArray[np.bool_], excess: npt.NDArray[np.float64], segments: pd.Series[int]
) -> npt.NDArray[np.bool_]:
    """Returns which steps are isolated outliers; far says which are outliers, excess holds their seconds.

    The outliers of one segment are one disturbance, such as a machine that stands still again and again for a while. If
    the phase has fewer than MIN_ALIKE segments, each run of outliers without another step between them is one.
    """
    at = np.flatnonzero(far)
    by_segment = segments.nunique() >= MIN_ALIKE
    of = segments.to_numpy()[at] if by_segment else np.cumsum(np.diff(at, prepend=-1) > 1)
    _, disturbance = np.unique(of, return_inverse=True)
    seconds = np.bincount(disturbance, weights=excess[at])
    alike = len(seconds) - np.searchsorted(np.sort(seconds), seconds / 2)
    isolated = np.zeros(len(far), dtype=bool)
    isolated[at] = (alike < MIN_ALIKE)[disturbance]
    return isolated
