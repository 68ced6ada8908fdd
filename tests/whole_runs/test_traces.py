"""Whole runs with --profile: rank 0's trace has as many training steps as were asked for, each with all its parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.machine.tracing import PARTS
from tests.support.runs import Run, run

pytestmark = pytest.mark.whole_run

OPTIONS = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "4", "--decode-threads", "1")


def traced_parts(made: Run) -> list[str]:
    """The parts of steps in rank 0's trace, in order; no other rank has one."""
    (trace,) = made.files.traces.iterdir()
    assert trace.name == "rank0.json"
    found = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    parts = [event for event in found if event.get("cat") == "PythonUserDefined"]
    return [event["name"].partition("[")[0] for event in sorted(parts, key=lambda event: float(event["ts"]))]


def test_a_throughput_run_traces_measured_steps_of_rank_0(colours: Path, tmp_path: Path) -> None:
    made = run(
        tmp_path, *OPTIONS, "--data", str(colours), "--gpus", "2", "--throughput-only", "--warmup", "2",
        "--max-seconds", "5", "--profile", "1",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert traced_parts(made) == list(PARTS)
    assert any(warning.startswith("rank 0 traces 1 of the measured steps") for warning in made.record["warnings"])
    assert not any("the run ended after" in warning for warning in made.record["warnings"])


def test_a_throughput_run_that_ends_before_says_so(colours: Path, tmp_path: Path) -> None:
    made = run(
        tmp_path, *OPTIONS, "--data", str(colours), "--gpus", "1", "--throughput-only", "--warmup", "2",
        "--max-seconds", "3", "--profile", "100000",
    )  # fmt: skip
    assert made.code == 0, made.err
    parts = traced_parts(made)
    assert parts == len(parts) // len(PARTS) * list(PARTS)
    assert made.record["warnings"][-1] == (
        f"--profile 100000: the run ended after {len(parts) // len(PARTS)} traced steps"
    )


def test_a_run_of_epochs_traces_steps_after_its_warm_up(colours: Path, tmp_path: Path) -> None:
    made = run(
        tmp_path, *OPTIONS, "--data", str(colours), "--gpus", "1", "--epochs", "2", "--accumulation-steps", "2",
        "--profile", "2",
    )  # fmt: skip
    assert made.code == 0, made.err
    # Each of a step's two batches has all parts.
    assert traced_parts(made) == 4 * list(PARTS)
