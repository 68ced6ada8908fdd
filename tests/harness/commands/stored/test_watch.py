"""A run is looked at from outside: while it goes on, when it was killed, and when it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import harness.commands.stored.watch
from harness.artifacts.liveness import own_process
from harness.artifacts.record import RunFiles, RunRecord, read_record, write_record
from harness.commands.stored.watch import watch
from harness.errors import UsageError
from tests.support.finished_runs import ATTEMPT, epochs_run, gpu_throughput, interrupted


def running(folder: Path, name: str = "live") -> RunRecord:
    """A run that goes on: this process is the one that wrote its record."""
    record = interrupted(folder, name)
    attempt = {**ATTEMPT, "started_unix_seconds": time.time() - 60.0, "process": own_process()}
    record = replace(record, status="running", attempts=(attempt,), warnings=("2 threads are too few",))
    write_record(RunFiles(folder, name).record, record)
    return record


def test_a_finished_run_shows_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = gpu_throughput(tmp_path)
    watch("gpus", str(tmp_path))
    out = capsys.readouterr().out
    assert f"{record.summary['fps']:.1f} images/s" in out
    assert "verdict" in out


def test_a_run_that_was_interrupted_says_how_to_resume_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(tmp_path)
    watch("stopped", str(tmp_path))
    out = capsys.readouterr().out
    assert "\\n" not in out
    assert "The run is interrupted." in out
    assert "step 80 of 80" in out
    assert f"--resume stopped --results {tmp_path}" in out


def test_a_run_whose_process_was_killed_is_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = running(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    gone = {**own_process(), "pid": int(done.stdout), "started": "1"}
    write_record(
        RunFiles(tmp_path, "live").record, replace(record, attempts=({**record.attempts[0], "process": gone},))
    )
    watch("live", str(tmp_path))
    assert "The run is interrupted." in capsys.readouterr().out


def test_a_run_that_goes_on_can_be_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    watch("live", str(tmp_path), once=True)
    out = capsys.readouterr().out
    assert "PPLCNet_x0_25" in out
    assert "epoch 2 of 2, step 80 of 80" in out
    assert "2 threads are too few" in out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_is_followed_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.commands.stored.watch, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(harness.commands.stored.watch, "STATUS_SECONDS", 0.05)
    running(tmp_path)
    ended = epochs_run(tmp_path, "other")

    def end() -> None:
        time.sleep(0.5)
        record = read_record(RunFiles(tmp_path, "live").record)
        write_record(RunFiles(tmp_path, "live").record, replace(ended, run="live", attempts=record.attempts))

    ending = threading.Thread(target=end)
    ending.start()
    watch("live", str(tmp_path))
    ending.join()
    assert f"{ended.summary['fps']:.1f} images/s" in capsys.readouterr().out


def test_without_a_name_it_is_the_newest_run_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running(tmp_path, "live")
    gpu_throughput(tmp_path)
    os.utime(tmp_path / "gpus.json", (time.time() + 10, time.time() + 10))
    watch(None, str(tmp_path), once=True)
    assert "run live" in capsys.readouterr().out
    (tmp_path / "live.json").unlink()
    watch(None, str(tmp_path))
    assert "run gpus" in capsys.readouterr().out


def test_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        watch(None, str(tmp_path))
    with pytest.raises(UsageError):
        watch("none", str(tmp_path))
