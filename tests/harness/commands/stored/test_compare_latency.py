"""`compare` of two measurements of latency, and the limit that it holds them to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.latency.stored import write_latency
from harness.artifacts.record import RunFiles
from harness.cli import main
from tests.support.compared_runs import record, run_compare, save
from tests.support.latency import JOB, ONEDNN, TRUTH, a_record


def written(folder: Path, name: str, factor: float = 1.0, job: Any = JOB, **more: Any) -> None:
    truth = {pair: factor * ms for pair, ms in TRUTH.items()}
    write_latency(RunFiles(folder, name), a_record(job, truth, name, **more))


@pytest.mark.usefixtures("wide")
def test_every_size_is_compared_with_every_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, "a")
    written(tmp_path, "b", 1.25, replace(JOB, sizes=("x1_0",)), warnings=("disturbed (swap): x1_0",))
    assert run_compare(tmp_path, "a", "b") == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.strip().startswith("x1_0")]
    assert lines[0][:6] == ["x1_0", "paddle-onednn", "5.00", "6.25", "1.250", "x"]
    assert lines[0][-1] == lines[1][-1] == "slower"
    assert lines[1][:4] == ["x1_0", "paddle", "25.00", "31.25"]
    assert "x0_25" not in out
    assert "B: disturbed (swap): x1_0" in out
    assert "A: a, AMD EPYC, 1 thread on core 1, 1 image of 224 px in a call, random weights" in out


@pytest.mark.usefixtures("wide")
def test_one_engine_has_no_column_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = replace(JOB, engines=(ONEDNN,))
    written(tmp_path, "a", 1.0, alone)
    written(tmp_path, "b", 1.01, replace(alone, threads=2))
    assert run_compare(tmp_path, "a", "b") == 0
    out = capsys.readouterr().out
    assert "engine" not in out.partition("A: a")[0]
    assert "equal" in out
    assert "NOT THE SAME JOB (A, B): threads (1, 2)" in out


@pytest.mark.parametrize(
    ("factor", "limit", "code", "said"),
    [
        (1.25, "5%", 1, "'b' compared with 'a': slower by more than 5 %: x0_25 with paddle-onednn, x0_25 with paddle,"),
        (1.25, "20%", 0, "passed"),
        (1.01, "0%", 0, "passed"),
        (0.5, "0%", 0, "passed"),
    ],
)
def test_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, limit: str, code: int, said: str
) -> None:
    written(tmp_path, "a")
    written(tmp_path, "b", factor)
    assert run_compare(tmp_path, "a", "b", "--fail-if-slower", limit) == code
    out, err = capsys.readouterr()
    assert said in out + err


def test_a_limit_that_can_not_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, "a", job=replace(JOB, rounds=3))
    written(tmp_path, "b", 1.5)
    assert run_compare(tmp_path, "a", "b", "--fail-if-slower", "5%") == 2
    assert "no interval tells the slowdown of x0_25, x0_25, x1_0, x1_0 from noise" in capsys.readouterr().err
    written(tmp_path, "c", 1.5, replace(JOB, batch_size=8))
    assert run_compare(tmp_path, "b", "c", "--fail-if-slower", "5%") == 2
    assert "did not do the same job (batch size (1, 8))" in capsys.readouterr().err


def test_what_can_not_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, "a")
    written(tmp_path, "b", job=replace(JOB, sizes=("x0_25",)))
    written(tmp_path, "c", job=replace(JOB, sizes=("x1_0",)))
    save(tmp_path, record("run", 100.0))
    assert run_compare(tmp_path, "b", "c") == 2
    assert "'b' and 'c' have no size with the same engine in common" in capsys.readouterr().err
    for first, second in (("a", "run"), ("run", "a"), ("a", "bi_v100"), ("a", "nothing")):
        assert run_compare(tmp_path, first, second) == 2
        assert "'a' is a measurement of latency, and" in capsys.readouterr().err


def test_other_commands_say_that_it_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, "a")
    save(tmp_path, record("run", 100.0))
    assert main(["report", "a", "run", "--results", str(tmp_path)]) == 2
    assert main(["export", "a", str(tmp_path / "it.safetensors"), "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("is not the record of a run") == 2
