"""A finished run's steps, epochs and devices as TensorBoard's events, by tensorboardX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.buckets import bucket_rows
from harness.artifacts.schema import TRAIN
from harness.errors import MachineError
from harness.report.run_data import DEVICE_SERIES, RunData

if TYPE_CHECKING:
    import pandas as pd

# More points of a series are thinned to means; TensorBoard shows a thousand of them.
MAX_POINTS = 20_000
STEP_SERIES = ("fps", "step_seconds", "data_wait_seconds", "loss")
EPOCH_SERIES = ("train_loss", "val_loss", "top1", "top5", "learning_rate")


def tensorboard(run: RunData, folder: Path) -> None:
    """Write a run's events into a new folder. Raises MachineError if tensorboardX isn't installed."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise MachineError("tensorboardX isn't installed", "pip install tensorboardX") from error
    with SummaryWriter(logdir=str(folder)) as writer:
        steps = run.steps[run.steps["phase"] == TRAIN]
        for name in STEP_SERIES:
            _add(writer, f"steps/{name}", steps, name, "step")
        for name in EPOCH_SERIES:
            for row in run.epochs[run.epochs[name].notna()].to_dict("records"):
                writer.add_scalar(f"epochs/{name}", float(row[name]), int(row["epoch"]))
        for column, (title, _, _) in DEVICE_SERIES.items():
            for device, samples in run.devices[run.devices[column].notna()].groupby("device"):
                numbered = samples.assign(sample=np.arange(1, len(samples) + 1))
                _add(writer, f"{title}/{device}", numbered, column, "sample")


def _add(writer: Any, title: str, rows: pd.DataFrame, column: str, counter: str) -> None:
    known = rows[rows[column].notna() & rows[counter].notna()]
    if known.empty:
        return
    times, counts = (known[name].to_numpy(np.float64) for name in ("time_unix_seconds", counter))
    values = known[column].to_numpy(np.float64)
    if len(known) > MAX_POINTS:
        buckets = bucket_rows(np.append(times[:1], times[:-1]), times, MAX_POINTS // 2)
        counts, values, times = counts[buckets.starts], buckets.mean(values), buckets.times
    for count, value, at in zip(counts, values, times, strict=True):
        if not np.isnan(value):
            writer.add_scalar(title, float(value), int(count), walltime=float(at))
