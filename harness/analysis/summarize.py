"""Computes a run's figures from its tables: window, phases, ledger, verdict, and the row of summary.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.comparing.loaders import LoaderRatio, loader_ratios
from harness.analysis.interference import STORAGE_SHARE, Interference, mark_interference, window_interference
from harness.analysis.invariants import check_run
from harness.analysis.ledger import Ledger, time_ledger
from harness.analysis.outliers import Outliers
from harness.analysis.remedies import Setting
from harness.analysis.steady import SteadyState
from harness.analysis.utilisation import energy_joules, images_per_joule, model_flops_utilisation, peak_tflops
from harness.analysis.verdict import Verdict, judge
from harness.analysis.window import (
    PhaseFigures,
    final_accuracy,
    mark_window,
    measure_phase,
    measured_steps,
)
from harness.artifacts.bad_image import LEFT_OUT_COLUMNS
from harness.artifacts.record import RunFiles, RunRecord
from harness.artifacts.schema import (
    BAD_IMAGES,
    COMPUTE,
    COMPUTE_NO_SYNC,
    DEVICES,
    EPOCHS,
    PIPELINE,
    PIPELINE_BESIDE,
    STEPS,
    TRAIN,
    TRAIN_BESIDE,
)
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.tables import fill_columns, read_table
from harness.machine.device_kinds import device_kind
from harness.machine.host import cpu_name
from harness.plan.effective_settings import check_settings
from harness.plan.plan import RunPlan
from models.flops import macs

if TYPE_CHECKING:
    import pandas as pd

# The phases that the verdict is about, and all that have figures, in their order in the record.
JUDGED = (TRAIN, PIPELINE, COMPUTE, COMPUTE_NO_SYNC)
MEASURED = (*JUDGED, TRAIN_BESIDE, PIPELINE_BESIDE)
# The phases that read files.
READING = (TRAIN, PIPELINE, TRAIN_BESIDE, PIPELINE_BESIDE)
# The precision of the peak that a run is compared with; see docs/methodology.md on TF32.
PEAK_PRECISIONS = {"off": "fp32", "bf16": "bf16", "fp16": "fp16"}
# The columns that are read from devices.csv, which has millions of rows after days.
DEVICE_COLUMNS = (
    "time_unix_seconds", "device", "util_percent", "sm_clock_mhz", "throttle_reasons", "energy_joules", "processes",
    "foreign_util_percent", "steal_percent", "swap_bytes", "storage_read_bytes", "quota_throttled_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFigures:
    """The figures of a finished run. verdict is None for a run of epochs, which measures training alone."""

    phases: dict[str, PhaseFigures]
    steady: SteadyState
    ledger: Ledger
    outliers: Outliers
    interference: Interference
    verdict: Verdict | None
    loaders: tuple[LoaderRatio, ...]
    summary: dict[str, Any]

    def as_record(self) -> dict[str, Any]:
        """Returns the parts by their names in the record, as plain values."""
        return {
            "phases": {name: asdict(figures) for name, figures in self.phases.items()},
            "steady": asdict(self.steady),
            "ledger": {**asdict(self.ledger), "rest_seconds": self.ledger.rest_seconds},
            "outliers": asdict(self.outliers),
            "interference": asdict(self.interference),
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "loaders": [asdict(ratio) for ratio in self.loaders],
            "summary": self.summary,
        }


def summarize(files: RunFiles, record: RunRecord, breaks: Sequence[int] = (), first_segment: int = 1) -> RunFigures:
    """Compute a run's figures from its tables, and fill in the columns of the steps table that need the whole run.

    breaks are the first segments of a resumed run's later attempts. first_segment is the first one on the plan's
    devices; earlier segments are not part of any window. A run can be summarized again: its figures depend only on what
    was written during the run, not on the columns filled in here. Returns the figures. Raises TrainingError if nothing
    was measured, InvariantError if the figures contradict one another; the steps table is unchanged then.
    """
    plan = record.plan
    accuracy = final_accuracy(read_table(files.table(EPOCHS.name), EPOCHS))
    devices = read_table(files.table(DEVICES.name), DEVICES, DEVICE_COLUMNS)
    every_step = read_table(files.table(STEPS.name), STEPS)
    steps = every_step[every_step["segment"] >= first_segment].reset_index(drop=True)
    breaks = [segment for segment in breaks if segment > first_segment]
    steps, steady = mark_window(steps, plan.window.warmup_steps, plan.window.given_warmup, breaks)
    steps = mark_interference(steps, devices, record.profile["mean_bytes"])
    names = [name for name in MEASURED if (steps["phase"] == name).any()]
    phases = {name: measure_phase(steps, name) for name in names}
    ledger = time_ledger(steps, breaks)
    # An attempt that only evaluated and summarized had no settings in effect.
    if not breaks or ((steps["phase"] == TRAIN) & (steps["segment"] >= max(breaks))).any():
        check_settings(plan, record.effective_settings)
    check_run(steps, phases, ledger, plan)
    window = measured_steps(steps, TRAIN)
    outliers = phases[TRAIN].outliers
    interference = window_interference(window, steps[(steps["warmup"] == 0) & steps["phase"].isin(names)])
    judged = {name: figures for name, figures in phases.items() if name in JUDGED}
    verdict = judge(judged, _setting(record, devices, steps)) if PIPELINE in names else None
    earlier = len(every_step) - len(steps)
    filled = {
        "warmup": [1] * earlier + steps["warmup"].tolist(),
        "interference": [None] * earlier + steps["interference"].tolist(),
    }
    fill_columns(files.table(STEPS.name), STEPS, filled)
    train = asdict(phases[TRAIN])
    return RunFigures(
        phases=phases,
        steady=steady,
        ledger=ledger,
        outliers=outliers,
        interference=interference,
        verdict=verdict,
        loaders=loader_ratios(phases, plan),
        summary={
            **_of_job(files, record),
            "fps_per_device": train["fps"] / plan.ranks,
            **{name: train[name] for name in SUMMARISED},
            "steady": steady.steady,
            "window_end": record.window_end,
            **_of_verdict(verdict),
            "outlier_steps": outliers.count,
            "interference": interference.text,
            "interference_steps": interference.interference_steps if interference.reasons is not None else None,
            "overflow_steps": _overflow_steps(every_step),
            **_left_out(files, plan),
            **_of_hardware(plan, phases[TRAIN], devices, window),
            **accuracy,
        },
    )


def summarize_evaluation(files: RunFiles, record: RunRecord) -> dict[str, Any]:
    """Returns the row of summary.csv for a run that only evaluated: its accuracy, without throughput."""
    accuracy = final_accuracy(read_table(files.table(EPOCHS.name), EPOCHS))
    known = {**_of_job(files, record), **accuracy, "epochs": 0, **_left_out(files, record.plan)}
    return {name: known.get(name) for name in SUMMARY.header}


def _of_job(files: RunFiles, record: RunRecord) -> dict[str, Any]:
    plan = record.plan
    return {
        "run": files.run,
        "series": record.series,
        "model": plan.model,
        "dataset": plan.data.name,
        "crop_size": plan.pipeline.image_size,
        "device": plan.device,
        "device_name": cpu_name() if device_kind(plan.device).on_host else plan.device_name,
        "devices": plan.ranks,
        "batch_size": plan.pipeline.batch_size,
        "amp": plan.training.precision,
    }


def _left_out(files: RunFiles, plan: RunPlan) -> dict[str, int | None]:
    """The number of images left out of each split; None for a split that the run didn't read."""
    splits = read_table(files.table(BAD_IMAGES.name), BAD_IMAGES, ["split"])["split"]
    return {
        column: int((splits == split).sum()) if split in plan.kind.splits else None
        for split, column in LEFT_OUT_COLUMNS.items()
    }


def _overflow_steps(steps: pd.DataFrame) -> int | None:
    known = steps.loc[steps["phase"] == TRAIN, "overflow"].dropna()
    return None if known.empty else int(known.sum())


# The figures of training's window that a row of summary.csv contains.
SUMMARISED = (
    "fps", "fps_low", "fps_high", "images", "window_seconds", "window_steps", "warmup_steps", "step_seconds_p50",
    "step_seconds_p95", "step_seconds_p99", "data_wait_share", "gpu_util_percent", "cpu_util_percent",
)  # fmt: skip


def _setting(record: RunRecord, devices: pd.DataFrame, steps: pd.DataFrame) -> Setting:
    plan, image_bytes = record.plan, record.profile["mean_bytes"]
    read = devices["storage_read_bytes"].sum(min_count=1)
    delivered = steps.loc[steps["phase"].isin(READING), "images"].sum() * image_bytes
    return Setting(
        device=device_kind(plan.device),
        ranks=plan.ranks,
        ranks_per_host=plan.ranks_per_node,
        cores=record.environment["cores"],
        compute_threads=plan.training.compute_threads,
        decode_threads=plan.pipeline.decode_threads,
        prefetch=plan.pipeline.prefetch,
        from_storage=bool(read > STORAGE_SHARE * delivered),
        decoder=plan.pipeline.decoder,
        loader=plan.pipeline.loader,
        workers=plan.pipeline.workers,
    )


def _of_verdict(verdict: Verdict | None) -> dict[str, Any]:
    names = ("bottleneck", "pipeline_fps", "compute_fps", "accelerator_util", "exposed_communication_share")
    known: dict[str, Any] = {name: None if verdict is None else getattr(verdict, name) for name in names}
    known["verdict_doubts"] = None if verdict is None else "|".join(doubt.name for doubt in verdict.doubts) or "none"
    for name in ("data_gain", "training_gain", "communication_gain"):
        found = None if verdict is None else getattr(verdict, name)
        for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            known[name + suffix] = None if found is None else getattr(found, part)
    return known


def _of_hardware(
    plan: RunPlan, train: PhaseFigures, devices: pd.DataFrame, window: pd.DataFrame
) -> dict[str, float | None]:
    peak = peak_tflops(plan.device_name, PEAK_PRECISIONS[plan.training.amp])
    macs_per_image = macs(plan.model, plan.pipeline.image_size, plan.data.num_classes, plan.training.strides)
    ends = window["time_unix_seconds"]
    spans = list(zip(ends - window["step_seconds"], ends, strict=True))
    return {
        "model_flops_util": (
            None if peak is None
            else model_flops_utilisation(train.fps / plan.ranks, macs_per_image, peak.tflops)
        ),
        "images_per_joule": images_per_joule(train.images, energy_joules(devices, spans)),
    }  # fmt: skip
