"""Saved runs and series to compare, and what `compare` prints of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.comparing.compare import Side
from harness.artifacts.record import SCHEMA_VERSION, RunRecord, write_record
from harness.cli import main
from harness.plan.kinds import THROUGHPUT
from harness.plan.options import RunConfig
from harness.plan.plan import DataFacts
from pipelines.augmentation import Augmentation
from tests.support.plans import a_plan, with_settings

PLAN = a_plan(
    kind=THROUGHPUT,
    data=DataFacts("photos", "photos", 1024, 128, 1000, Augmentation(), False, True),
    steps_per_epoch=16,
    epochs=360,
    decode_threads=1,
)
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7",
    "platform": "Linux-6.1",
    "cpu_quota_cores": None,
    "gpus": [],
    "packages": {"numpy": "2.3.5", "paddlepaddle": "3.3.1"},
    "git": {"commit": "c0ffee", "dirty": False},
}


def record(run: str, fps: float, error: float | None = 0.004, **changes: Any) -> RunRecord:
    """A finished run; its window's relative standard error has 40 degrees of freedom."""
    reach = None if error is None else 2.021 * error
    made = RunRecord(
        run=run,
        status="finished",
        config=RunConfig(throughput_only=True),
        plan=PLAN,
        environment=ENVIRONMENT,
        profile={"images": 1024, "mean_bytes": 113_287.0, "bits_per_pixel": 5.05, "page_cache": {"state": "warm"}},
        phases={
            "train": {
                "fps": fps,
                "fps_low": None if reach is None else fps / (1 + reach),
                "fps_high": None if reach is None else fps / (1 - reach),
                "relative_standard_error": error,
                "degrees_of_freedom": None if error is None else 40.0,
            }
        },
        summary={
            "device_name": "Xeon 6148",
            "top1": None,
            "bottleneck": "compute",
            "steady": None if error is None else True,
            "window_end": "target_ci",
            "interference": "none",
        },
    )
    return dataclasses.replace(made, **changes)


def summarised(run: RunRecord, **changes: Any) -> RunRecord:
    return dataclasses.replace(run, summary={**run.summary, **changes})


def planned(run: RunRecord, **changes: Any) -> RunRecord:
    return dataclasses.replace(run, plan=with_settings(run.plan, **changes))


def save(folder: Path, *runs: RunRecord) -> None:
    for run in runs:
        write_record(folder / f"{run.run}.json", run)


def save_series(
    folder: Path,
    name: str,
    rates: tuple[float, ...],
    kind: str = "repeats",
    status: str = "finished",
) -> None:
    members = [f"{name}.r{number}" for number in range(1, len(rates) + 1)]
    save(folder, *(record(member, fps) for member, fps in zip(members, rates, strict=True)))
    values = {"schema_version": SCHEMA_VERSION, "kind": kind, "run": name, "status": status, "runs": members}
    (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on standard output, blanks folded; there is nothing on standard error."""
    out, err = capsys.readouterr()
    assert err == ""
    return [" ".join(line.split()) for line in out.splitlines() if line.strip()]


def run_compare(folder: Path, *arguments: str) -> int:
    return main(["compare", *arguments, "--results", str(folder)])


A_RATES = (101.0, 99.5, 100.2, 98.9, 100.7)
B_RATES = (97.1, 95.0, 99.8, 93.2)


def several(*fps: float) -> Side:
    return Side("several", fps, None, None)


def single(fps: float, error: float | None, degrees: float | None = 40.0) -> Side:
    return Side("single", (fps,), error, degrees)
