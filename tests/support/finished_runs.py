"""Runs that have ended, with their tables and records, made without training: for what reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.summarize import summarize
from harness.artifacts.record import RunFiles, RunRecord, read_record, write_record
from harness.artifacts.schema import BAD_IMAGES, DEVICES, STEPS
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.shared_tables import append_row
from harness.artifacts.tables import TableWriter, read_table
from tests.support.long_runs import LongRun
from tests.support.simulation import Simulation

ATTEMPT = {"first_segment": 1, "step": 0, "started_unix_seconds": 1.75e9, "ranks": 4, "epochs": 0, "startup": {}}


def concluded(files: RunFiles, record: RunRecord, breaks: list[int], **changes: Any) -> RunRecord:
    """Conclude a run as `run_bench.py` does, with its row in summary.csv. Returns its record."""
    figures = summarize(files, record, breaks).as_record()
    record = replace(record, status="finished", **{**figures, **changes})
    append_row(files.folder / "summary.csv", SUMMARY, record.summary)
    write_record(files.record, record)
    return record


def gpu_throughput(folder: Path, name: str = "gpus", seed: int = 0, **changes: Any) -> RunRecord:
    """A throughput run on four simulated GPUs, with noise, telemetry and a disturbance by another process."""
    random = np.random.default_rng(seed)
    noise = 1 + 0.02 * random.standard_normal((4, 4096))
    simulation = Simulation(
        decode=lambda rank, batch: 0.06 * float(noise[rank, batch % 4096]),
        compute=lambda rank, step: 0.1 * float(noise[rank, step % 4096]),
        exchange_seconds=0.004, ranks=4, name=name,
        options={"max_seconds": 40.0, "prefetch": 4, "gpus": 4, "target_ci": 1e-6},
    )  # fmt: skip
    _, files = simulation.run(folder)
    begin = float(read_table(files.table(STEPS.name), STEPS, ["time_unix_seconds"])["time_unix_seconds"].iloc[0])
    with TableWriter(files.table(DEVICES.name), DEVICES) as table:
        for half in range(120):
            for row in _telemetry(begin, half / 2, disturbed=40 < half < 48):
                table.write(row)
    record = replace(
        read_record(files.record),
        attempts=({**ATTEMPT, "ranks": 4},),
        profile={"images": 100_000, "mean_bytes": 1e5, "bits_per_pixel": 5.0},
    )
    return concluded(files, record, [], **changes)


def _telemetry(begin: float, at: float, disturbed: bool) -> list[dict[str, Any]]:
    """A sample of each device some seconds after the beginning."""
    used = {"memory_used_bytes": 30 * 2**30, "memory_total_bytes": 80 * 2**30, "temperature_celsius": 55.0 + at / 10}
    rows: list[dict[str, Any]] = [
        {
            "time_unix_seconds": begin + at, "device": f"gpu{rank}", "name": "GPU", "util_percent": 90.0 + rank,
            "power_watts": 300.0 + rank, "jpeg_util_percent": 40.0, "throttle_reasons": "none", "processes": 1, **used,
        }
        for rank in range(4)
    ]  # fmt: skip
    host = {"util_percent": 97.0, "foreign_util_percent": 40.0 if disturbed else 0.0, "steal_percent": 0.0,
            "swap_bytes": 0, "storage_read_bytes": 0, "quota_throttled_seconds": 0.0}  # fmt: skip
    return [*rows, {"time_unix_seconds": begin + at, "device": "cpu", **host}]


def epochs_run(folder: Path, name: str = "epochs", run: LongRun | None = None, **changes: Any) -> RunRecord:
    """A run of epochs on four GPUs that has ended, resumed once."""
    run = replace(run or LongRun(epochs=6, steps_per_epoch=40, resumed_behind=(3,), pause_seconds=60.0), name=name)
    files, record = run.write(folder)
    attempts = tuple({**ATTEMPT, "first_segment": first, "epochs": run.epochs} for first in (1, *run.breaks))
    return concluded(files, replace(record, attempts=attempts), run.breaks, **changes)


def interrupted(folder: Path, name: str = "stopped") -> RunRecord:
    """A run of epochs that was interrupted: its record has no figures."""
    files, record = LongRun(epochs=2, steps_per_epoch=40, name=name).write(folder)
    record = replace(record, status="interrupted", warnings=("interrupted",), attempts=(ATTEMPT,))
    write_record(files.record, record)
    return record


def add_bad_images(folder: Path, name: str, paths: list[str]) -> None:
    """Add images that the run left out to its table."""
    with TableWriter(RunFiles(folder, name).table(BAD_IMAGES.name), BAD_IMAGES) as table:
        for path in paths:
            table.write({"split": "train", "path": path, "label": 0, "reason": "undecodable: <b>broken</b>"})
