"""The measured window and the figures of each phase, from the steps table alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.interference import window_interference
from harness.analysis.interval import mean_estimate
from harness.analysis.outliers import Outliers, find_outliers
from harness.analysis.steady import SteadyState, steady_across
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, PIPELINE_BESIDE, TRAIN, TRAIN_BESIDE
from harness.errors import TrainingError
from models.words import count_of

if TYPE_CHECKING:
    import pandas as pd

# With fewer steps a percentile is the largest value or an extrapolation.
STEPS_FOR_P95, STEPS_FOR_P99 = 20, 100
# What the phases are called where people read it.
PHASE_TITLES = {
    PIPELINE: "pipeline only",
    COMPUTE: "compute only",
    COMPUTE_NO_SYNC: "compute, no exchange",
    TRAIN: "end to end",
    PIPELINE_BESIDE: "pipeline only, other loader",
    TRAIN_BESIDE: "end to end, other loader",
}


@dataclass(frozen=True, slots=True)
class PhaseFigures:
    """The figures of one phase's measured steps, after warm-up and transition. All are global; None is unknown.

    fps = images / window_seconds, and window_seconds is the sum of the steps' seconds; fps_low and fps_high bound its
    95 % interval, from relative_standard_error and degrees_of_freedom. data_wait_share adds up, for each step, the wait
    of the rank that got its batch last: what data cost the job, not what any one rank waited. slowest_rank is the rank
    that most often computed longest; rank_skew_share is how much longer than the fastest rank, as a share of the mean
    step. Steps in which another rank was slowest are subtracted, so that it is about 0 for equally fast ranks, of which
    one is always the slowest by chance. autocorrelation is that of the step times at lag 1, step_seconds_sd their
    standard deviation. outliers are those of the phase's own step times, which fps includes; interference is
    `Interference.text`.
    """

    images: int
    window_seconds: float
    window_steps: int
    warmup_steps: int
    fps: float
    fps_low: float | None
    fps_high: float | None
    relative_standard_error: float | None
    degrees_of_freedom: float | None
    autocorrelation: float | None
    step_seconds_p50: float
    step_seconds_p95: float | None
    step_seconds_p99: float | None
    step_seconds_sd: float | None
    data_wait_share: float
    rank_skew_share: float
    slowest_rank: int
    gpu_util_percent: float | None
    cpu_util_percent: float | None
    outliers: Outliers
    interference: str | None


def mark_window(
    steps: pd.DataFrame, min_warmup: int = 0, given_warmup: int | None = None, breaks: Sequence[int] = ()
) -> tuple[pd.DataFrame, SteadyState]:
    """Returns the table with its column warmup filled in, and the steady state of training's step times.

    Rows that are marked as transition are outside the window (1). So are training's steps before the end of the warm-up
    (see `find_steady_state`); the rest is in the window (0). The windows of the other phases begin where that warm-up
    ends, because only measurements from the same time can be compared; a phase without later segments keeps its last
    one. breaks are the first segments of a resumed run's later attempts: each has its own warm-up, all of the same
    length. Earlier values of the column are ignored: marking a table again changes nothing.
    """
    marked = steps.assign(warmup=(steps["transition"] == 1).astype(int))
    settled, training = marked["warmup"] == 0, marked["phase"] == TRAIN
    attempt = np.searchsorted(np.sort(np.asarray(breaks, dtype=int)), marked["segment"].to_numpy(), side="right")
    attempts = [marked.index[training & settled & (attempt == number)] for number in range(len(breaks) + 1)]
    seconds = marked["step_seconds"]
    state = steady_across([seconds.loc[rows].to_numpy(float) for rows in attempts], min_warmup, given_warmup)
    early = np.zeros(len(marked), dtype=bool)
    if breaks and all(len(rows) <= state.warmup_steps for rows in attempts):
        # No attempt is long enough; the last three quarters of each are the best window available.
        for rows in attempts:
            marked.loc[rows[: -(-len(rows) // 4)], "warmup"] = 1
        return marked, state
    for number, rows in enumerate(attempts):
        if breaks and len(rows) <= state.warmup_steps:
            early |= (attempt == number) & (state.warmup_steps > 0)
        elif state.warmup_steps:
            early |= (attempt == number) & np.asarray(marked.index <= rows[: state.warmup_steps][-1])
    marked.loc[early & training, "warmup"] = 1
    for _, others in marked[~training & settled].groupby("phase"):
        out = others.index[early[marked.index.get_indexer(others.index)]]
        if len(out) == len(others):
            out = others.index[others["segment"] < others["segment"].max()]
        marked.loc[out, "warmup"] = 1
    return marked, state


def measured_steps(steps: pd.DataFrame, phase: str) -> pd.DataFrame:
    """Returns the rows of a marked table that are in a phase's window."""
    measured: pd.DataFrame = steps[(steps["phase"] == phase) & (steps["warmup"] == 0)]
    return measured


def measure_phase(steps: pd.DataFrame, phase: str = TRAIN) -> PhaseFigures:
    """Returns the figures of a phase, from a table with warm-up and interference marked.

    Raises TrainingError if its window contains no step.
    """
    measured = measured_steps(steps, phase)
    made = int((steps["phase"] == phase).sum())
    if measured.empty:
        raise TrainingError(
            f"the run ended after {count_of(made, 'step')} of phase {phase}, before any step was measured",
            "Raise --max-seconds, or lower --warmup.",
        )
    times = measured["step_seconds"]
    seconds, images, count = math.fsum(times), int(measured["images"].sum()), len(measured)
    estimate = mean_estimate(times)
    half_width = estimate.relative_half_width
    error = None if estimate.standard_error is None else estimate.standard_error / estimate.mean
    fps, slowest = images / seconds, int(measured["slowest_rank"].mode().iloc[0])
    return PhaseFigures(
        images=images,
        window_seconds=seconds,
        window_steps=count,
        warmup_steps=made - count,
        fps=fps,
        fps_low=None if half_width is None else fps / (1 + half_width),
        # An interval that reaches a step time of 0 has no upper end.
        fps_high=None if half_width is None or half_width >= 1 else fps / (1 - half_width),
        relative_standard_error=error,
        degrees_of_freedom=estimate.degrees_of_freedom,
        autocorrelation=estimate.autocorrelation,
        step_seconds_p50=float(times.quantile(0.5)),
        step_seconds_p95=float(times.quantile(0.95)) if count >= STEPS_FOR_P95 else None,
        step_seconds_p99=float(times.quantile(0.99)) if count >= STEPS_FOR_P99 else None,
        step_seconds_sd=float(times.std()) if count > 1 else None,
        data_wait_share=math.fsum(measured["data_wait_seconds"]) / seconds,
        rank_skew_share=_lasting_skew_seconds(measured, slowest) / seconds,
        slowest_rank=slowest,
        gpu_util_percent=time_mean(measured, "gpu_util_percent"),
        cpu_util_percent=time_mean(measured, "cpu_util_percent"),
        outliers=find_outliers(measured),
        interference=window_interference(measured).text,
    )


def _lasting_skew_seconds(steps: pd.DataFrame, rank: int) -> float:
    slowest = steps["slowest_rank"] == rank
    skew = steps["rank_skew_seconds"]
    return max(0.0, math.fsum(skew[slowest]) - math.fsum(skew[~slowest]))


def final_accuracy(epochs: pd.DataFrame) -> dict[str, Any]:
    """Returns top1, top5, the images that they are of, and the number of finished epochs.

    All but the last are None if there was no epoch.
    """
    if epochs.empty:
        return {"top1": None, "top5": None, "val_images": None, "epochs": 0}
    last = epochs.iloc[-1]
    images = None if math.isnan(last["val_images"]) else int(last["val_images"])
    return {"top1": float(last["top1"]), "top5": float(last["top5"]), "val_images": images, "epochs": len(epochs)}


def time_mean(steps: pd.DataFrame, column: str) -> float | None:
    """Returns the mean of the known values, weighted by the steps' seconds; None if no value is known."""
    known = steps[steps[column].notna()]
    if known.empty:
        return None
    return float((known[column] * known["step_seconds"]).sum() / known["step_seconds"].sum())
