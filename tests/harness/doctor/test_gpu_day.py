"""The first GPU day: which rows are made, that a failed one doesn't end it, what is written, and how rows judge."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.commands.doctor import gpu_day
from harness.doctor import day_devices, day_runs
from harness.doctor.bench import Ended
from harness.doctor.check import FAIL, OK, SKIP, Context, Finding
from harness.doctor.gpu_day import (
    BUDGET_SECONDS,
    FAILED,
    PASSED,
    ROWS,
    SKIPPED,
    Outcome,
    Row,
    as_values,
    markdown,
    run_day,
    select_rows,
    why_not,
    write_day,
)  # fmt: skip
from harness.doctor.isolation import run_isolated
from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from tests.support import faulty_checks
from tests.support.accelerator import Accelerator
from tests.support.pages import read

CPU = Context(device="cpu", gpus=2)
ON_CPU, ON_GPUS, ON_PLUGIN = (
    Devices("cpu", 2, "CPU"), Devices("gpu", 2, "NVIDIA H100"), Devices("standin", 2, "standin")
)  # fmt: skip
ABOUT = {"devices": "2 x CPU", "paddle": "paddlepaddle 3.3.1"}


def row(function: object, **changes: object) -> Row:
    return replace(ROWS[0], function=function, **changes)  # type: ignore[arg-type]


def test_a_row_that_fails_or_hangs_does_not_end_the_day(tmp_path: Path) -> None:
    rows = [
        row(faulty_checks.crash), row(faulty_checks.hang, limit_seconds=8.0), row(faulty_checks.raise_an_error),
        row(faulty_checks.fine), row(faulty_checks.fine, devices=3),
    ]  # fmt: skip
    outcomes = list(run_day(rows, replace(CPU, results=str(tmp_path))))
    assert [one.result for one in outcomes] == [FAILED, FAILED, FAILED, PASSED, SKIPPED]
    assert outcomes[0].finding.found == "ended by SIGSEGV"
    assert outcomes[1].finding.found == "no answer within 8 s"
    assert outcomes[4].finding.reason == "it needs 3 devices, and there is 2"


def test_what_no_time_was_left_for_is_no_failure(tmp_path: Path) -> None:
    rows = [row(faulty_checks.hang, limit_seconds=60.0), row(faulty_checks.fine)]
    outcomes = list(run_day(rows, replace(CPU, results=str(tmp_path)), budget_seconds=8.0))
    assert [one.result for one in outcomes] == [SKIPPED, SKIPPED]
    assert all("run it alone: python run_bench.py doctor --gpu-day 0" in one.finding.reason for one in outcomes)


def test_which_rows_a_kind_of_device_can_make() -> None:
    def made(devices: Devices) -> list[int]:
        return [one.id for one in ROWS if not why_not(one, devices, 600.0)]

    assert made(ON_GPUS) == list(range(11))
    assert made(ON_CPU) == [0, 3, 5, 6, 7, 9]
    # Every one that isn't CUDA's own.
    assert made(ON_PLUGIN) == [0, 2, 3, 5, 6, 7, 8, 9, 10]
    assert why_not(ROWS[1], ON_CPU, 600.0) == "CPUs have no decoder of DALI's"
    assert BUDGET_SECONDS < 360


def test_rows_by_their_numbers() -> None:
    assert [one.id for one in select_rows(["7", "0"])] == [7, 0]
    assert select_rows([]) == list(ROWS)
    with pytest.raises(UsageError, match="no row '11'"):
        select_rows(["11"])


def test_what_is_written(tmp_path: Path) -> None:
    outcomes = [
        Outcome(ROWS[0], PASSED, Finding(OK, "a | b", "all"), 1.23),
        Outcome(ROWS[1], SKIPPED, Finding(SKIP, reason="no decoder"), 0.0),
    ]
    page, values = write_day(tmp_path / "results", outcomes, ABOUT)
    assert page.read_text() == markdown(outcomes, ABOUT)
    assert "| 0 | driver, packages and Paddle's own check | PASS | a \\| b | all | 1 |" in page.read_text()
    assert page.read_text().endswith("2 rows in 1 s: 1 PASS, 0 FAIL, 1 SKIP\n")
    assert json.loads(values.read_text()) == as_values(outcomes, ABOUT)
    first = json.loads(values.read_text())["rows"][0]
    assert set(first) == {"row", "title", "closes", "result", "seconds", "found", "expected", "reason", "cure"}


def test_the_command_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of these, a CPU can make none."""
    gpu_day(["1", "2", "4", "8", "10"], replace(CPU, results=str(tmp_path)))
    assert "5 rows in 0 s: 0 PASS, 0 FAIL, 5 SKIP" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu-day.json", "gpu-day.md"]


def test_the_page_has_every_row() -> None:
    page = read("doctor.md")
    for one in ROWS:
        assert f"| {one.id} | {one.title} | {one.closes} |" in page


def test_devices_that_are_not_there_end_the_day(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="GPU"):
        gpu_day([], Context(device="gpu", gpus=99, results=str(tmp_path)))


def test_ticks() -> None:
    assert day_devices.judge_ticks([0.005, 0.02], 2.0, 2.01).status == OK
    held = day_devices.judge_ticks([0.005, 0.2], 2.0, 2.0)
    assert (held.status, held.found) == (FAIL, "largest gap 200 ms, clock +0.00% beside the host's")
    assert day_devices.judge_ticks([0.005], 2.0, 2.1).status == FAIL


def test_the_decoders_comparison_on_the_cpu() -> None:
    """What a GPU's decoder will be compared with, and how: the CPU's own, whole and by regions."""
    for region in (False, True):
        found = run_isolated(
            day_devices.decode_case, CPU, 120.0, options={"region": region, "load": 0.65, "decoder": "cpu"}
        )
        assert (found.status, found.found) == (OK, "0.00 grey levels, passes equal"), found


def test_the_sampling_interval() -> None:
    times = np.arange(40) * 0.5
    late = np.concatenate([times[:20], times[20:] + np.arange(20)])
    for moments, expected in ((times, 0.5), (late, 1.5)):
        samples = pd.DataFrame({
            "device": ["cpu"] * 40, "time_unix_seconds": moments, "util_percent": 50.0, "energy_joules": float("nan"),
        })  # fmt: skip
        assert day_runs.sampling_interval(samples) == pytest.approx(expected)
        # Energy that was read in between makes a late sample no earlier.
        between = samples.assign(
            time_unix_seconds=samples["time_unix_seconds"] + 0.25, util_percent=float("nan"), energy_joules=1.0
        )
        assert day_runs.sampling_interval(pd.concat([samples, between])) == pytest.approx(expected)


REFUSED = Ended(3, ["error: --amp bf16 needs a device that computes in bfloat16"])
FAILED_RUN = Ended(5, ["error: rank 0 ended"])


@pytest.mark.parametrize(
    ("losses", "status", "found"),
    [
        ({"bf16 O1": 0.62, "bf16 O2": REFUSED}, OK, "float32 0.6000, bf16 O1 0.6200, bf16 O2 refused"),
        ({"bf16 O1": 0.64, "bf16 O2": 0.6}, FAIL, "float32 0.6000, bf16 O1 0.6400, bf16 O2 0.6000"),
        ({"bf16 O1": float("nan")}, FAIL, "float32 0.6000, bf16 O1 nan"),
        (
            {"bf16 O1": 0.6, "bf16 O2": FAILED_RUN},
            FAIL,
            "float32 0.6000, bf16 O1 0.6000, bf16 O2 failed",
        ),
        # Nothing was compared.
        ({"bf16 O1": REFUSED, "bf16 O2": REFUSED}, SKIP, ""),
    ],
)
def test_losses_of_other_ways_of_training(losses: dict[str, Any], status: str, found: str) -> None:
    judged = day_runs.judge_variants(0.6, losses)
    assert (judged.status, judged.found) == (status, found)


@pytest.mark.parametrize(
    ("numbers", "losses", "status"),
    [
        (range(1, 21), [1.0] * 20, OK),
        ([*range(1, 11), *range(12, 22)], [1.0] * 20, FAIL),
        (range(1, 21), [1.0] * 10 + [2.3] * 10, FAIL),
    ],
)
def test_a_resumed_run(numbers: range, losses: list[float], status: str) -> None:
    steps = pd.DataFrame({"step": list(numbers), "loss": losses})
    assert day_runs.judge_resumed(steps, 10, "").status == status


@pytest.mark.slow
@pytest.mark.whole_run
@pytest.mark.parametrize("number", [2, 8])
def test_rows_on_the_standin(accelerator: Accelerator, tmp_path: Path, number: int) -> None:
    """Paddle's launcher starts the runs; row 2's gaps depend on what else the machine does, so any answer will do."""
    environment = {**os.environ, **accelerator.environment()}
    context = Context(device="standin", gpus=2, results=str(tmp_path))
    (outcome,) = run_day([replace(ROWS[number], limit_seconds=200.0)], context, environment)
    assert outcome.result == PASSED or (number == 2 and "largest gap" in outcome.finding.found), outcome


@pytest.mark.slow
@pytest.mark.whole_run
def test_a_batch_is_halved_on_the_standin(accelerator: Accelerator, tmp_path: Path) -> None:
    environment = {**os.environ, **accelerator.environment(memory_bytes=8_000_000)}
    context = Context(device="standin", gpus=1, results=str(tmp_path))
    (outcome,) = run_day([replace(ROWS[10], limit_seconds=200.0)], context, environment)
    assert outcome.result == PASSED, outcome
    assert "64 images halved to" in outcome.finding.found
