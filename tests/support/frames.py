"""Steps as the loop gives them and as `read_table` does, for tests that care for some of their values only."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from harness.artifacts.schema import STEPS, TRAIN
from harness.training.loop import GlobalStep

USUAL: dict[str, Any] = {
    "phase": TRAIN, "segment": 1, "images": 32, "step_seconds": 0.1, "data_wait_seconds": 0.02, "copy_seconds": 0.0,
    "compute_seconds": 0.08,
    "forward_seconds": 0.02, "backward_seconds": 0.04, "optimizer_seconds": 0.02, "recording_seconds": 0.0,
    "exchange_seconds": 0.0, "slowest_rank": 0, "rank_skew_seconds": 0.0, "transition": None, "warmup": 0,
    "interference": "none",
}  # fmt: skip


def steps_frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """Rows with the usual values where they say nothing; times of day follow from step_seconds, from 1000 s on."""
    frame = pd.DataFrame([{**USUAL, **row} for row in rows])
    if "time_unix_seconds" not in frame:
        frame["time_unix_seconds"] = 1000.0 + frame["step_seconds"].cumsum()
    frame["step"] = range(1, len(frame) + 1)
    ordered: pd.DataFrame = frame.reindex(columns=STEPS.header)
    return ordered


def global_step(index: int, end_seconds: float, step_seconds: float) -> GlobalStep:
    """A step that only waits for its batch, which a consumer without laps then takes no time for."""
    return GlobalStep(
        index=index, images=8, end_seconds=end_seconds, step_seconds=step_seconds, data_wait_seconds=step_seconds,
        copy_seconds=0.0, compute_seconds=0.0, forward_seconds=math.nan, backward_seconds=math.nan,
        optimizer_seconds=math.nan, recording_seconds=0.0, exchange_seconds=0.0, slowest_rank=0,
        rank_skew_seconds=0.0, loss=1.0,
    )  # fmt: skip
