"""Steps that took far longer than usual, and their causes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from harness.analysis.steady import NORMAL_MAD

# An outlier exceeds the median by more than this many deviations, and by more than this share of the median.
FAR_DEVIATIONS, FAR_SHARE = 5.0, 0.1
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
    "unknown" if there is neither.
    """

    count: int
    excess_seconds: float
    excess_share: float
    causes: dict[str, int] = field(default_factory=dict)


def find_outliers(window: pd.DataFrame) -> Outliers:
    """Returns the outliers of a phase's measured steps (at least one row of the steps table, disturbed or not)."""
    times = window["step_seconds"]
    median = float(times.median())
    deviation = NORMAL_MAD * float((times - median).abs().median())
    far = times > median + max(FAR_DEVIATIONS * deviation, FAR_SHARE * median)
    excess = (times - median)[far]
    parts = window[list(CAUSES)]
    more = (parts - parts.median())[far]
    causes: dict[str, int] = {}
    for row, interference in zip(more.index, window.loc[far, "interference"], strict=True):
        parts_at_fault = [name for name, column in zip(CAUSES.values(), CAUSES, strict=True)
                          if more.loc[row, column] >= excess[row] / 2]  # fmt: skip
        known = "" if pd.isna(interference) or interference == "none" else str(interference)
        cause = " with ".join(filter(None, [parts_at_fault[0] if parts_at_fault else "", known])) or "unknown"
        causes[cause] = causes.get(cause, 0) + 1
    return Outliers(
        count=len(excess),
        excess_seconds=math.fsum(excess),
        excess_share=math.fsum(excess) / math.fsum(times),
        causes=causes,
    )
