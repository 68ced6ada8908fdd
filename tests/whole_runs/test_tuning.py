"""A tuning of real trials: stopped in one of them by a signal, resumed, and read back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.analysis.tuning.search import OUT_OF_TIME
from harness.analysis.tuning.stored import TuningFiles, read_tuning
from harness.artifacts.record import RunFiles, read_record
from harness.artifacts.schema import TRAIN
from harness.artifacts.shared_schema import TRIALS
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_noise
from tests.support.runs import launch, wait_for_steps, wait_until

# Through the launcher: a process that the tests fork may not start others.
pytestmark = pytest.mark.whole_run

# Threads of training are varied, as they are tried whether or not loading limits it here.
OPTIONS = ("--device", "cpu", "--gpus", "1", "--model", "x0_25", "--image-size", "32", "--batch-size", "8",
           "--compute-threads", "1", "--prefetch", "3", "--vary", "compute-threads", "--max-seconds", "2",
           "--telemetry-interval", "0.1")  # fmt: skip


def test_a_tuning_that_is_stopped_within_a_trial_is_resumed_after_the_ones_before(tmp_path: Path) -> None:
    data = write_noise(tmp_path / "data", 80, 48)
    results = tmp_path / "results"
    files = TuningFiles(results, "it")
    started = launch("tune", *OPTIONS, "--data", str(data), "--results", str(results), "--run-name", "it")
    wait_until(lambda: files.record.exists() and len(read_tuning(files.record).trials) >= 1, started)
    made = len(read_tuning(files.record).trials)
    following = RunFiles(files.folder, f"t{made + 1:03}")
    wait_for_steps(following, 1, started)
    started.send_signal(signal.SIGTERM)
    ended = started.end()
    assert ended.code == 75, ended.err
    assert f"tune --resume it --results {results}" in ended.err
    stopped = read_tuning(files.record)
    assert stopped.status == "interrupted"
    assert len(stopped.trials) == made

    # With the time that is used up, what was measured leads to the end at once.
    spent = sum(trial.seconds for trial in stopped.trials) / 60
    ended = launch("tune", "--resume", "it", "--results", str(results), "--minutes", f"{spent:.6f}").end()
    assert ended.code == 0, ended.err
    resumed = read_tuning(files.record)
    assert resumed.found["stop"] == OUT_OF_TIME
    assert resumed.trials[:made] == stopped.trials
    table = read_table(files.trials, TRIALS)
    assert table["fps"].notna().all()
    assert (table["prefetch"] == 3).all()
    record = read_record(RunFiles(files.folder, "t001").record)
    assert record.status == "finished"
    assert record.phases[TRAIN]["fps"] == pytest.approx(resumed.trials[0].fps)
    assert record.effective_settings["prefetch"] == 3
