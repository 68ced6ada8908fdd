"""A run's figures, computed from its tables and nothing else, so that anybody can compute them again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.errors import TrainingError

# Below this a 95th percentile is the largest value or an extrapolation.
MINIMUM_STEPS_FOR_P95 = 20


@dataclass(frozen=True, slots=True)
class Window:
    """The measured window: the training steps behind the warm-up. All figures are global; None is unknown.

    fps = images / window_seconds, window_seconds the sum of the steps' seconds. data_wait_share adds
    up the waits of the rank that waited longest in each step: what data cost the job, not what any one rank waited.
    """

    images: int
    window_seconds: float
    window_steps: int
    warmup_steps: int
    fps: float
    step_seconds_p50: float
    step_seconds_p95: float | None
    data_wait_share: float
    gpu_util_percent: float | None
    cpu_util_percent: float | None


def measure_window(steps: pd.DataFrame) -> Window:
    """The window of a steps table. Raises TrainingError when it holds no step."""
    training = steps[steps["phase"] == "train"]
    measured = training[training["warmup"] == 0]
    if measured.empty:
        raise TrainingError(f"the run ended after {len(training)} warm-up steps, before any was measured")
    seconds = math.fsum(measured["step_seconds"])
    images = int(measured["images"].sum())
    return Window(
        images=images,
        window_seconds=seconds,
        window_steps=len(measured),
        warmup_steps=len(training) - len(measured),
        fps=images / seconds,
        step_seconds_p50=float(measured["step_seconds"].quantile(0.5)),
        step_seconds_p95=(
            float(measured["step_seconds"].quantile(0.95)) if len(measured) >= MINIMUM_STEPS_FOR_P95 else None
        ),
        data_wait_share=math.fsum(measured["data_wait_seconds"]) / seconds,
        gpu_util_percent=_time_mean(measured, "gpu_util_percent"),
        cpu_util_percent=_time_mean(measured, "cpu_util_percent"),
    )


def final_accuracy(epochs: pd.DataFrame) -> dict[str, Any]:
    """top1, top5 and the number of finished epochs; the accuracies are None if there was no epoch."""
    if epochs.empty:
        return {"top1": None, "top5": None, "epochs": 0}
    last = epochs.iloc[-1]
    return {"top1": float(last["top1"]), "top5": float(last["top5"]), "epochs": len(epochs)}


def _time_mean(steps: pd.DataFrame, column: str) -> float | None:
    """The mean weighted by the steps' seconds, over the steps where it is known."""
    known = steps[steps[column].notna()]
    if known.empty:
        return None
    return float((known[column] * known["step_seconds"]).sum() / known["step_seconds"].sum())
