"""Runs that are stopped or killed, or whose ranks are, while they train.

All go through Paddle's launcher: which process ends of what, what is left of the others and who tells it can be seen in
the real tree of processes alone.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from benchmarks.disturbed import OPTIONS, processes_of_run
from harness.analysis.comparing.stored_result import find_result
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import STEPS
from harness.artifacts.tables import read_table
from harness.errors import UsageError
from tests.support.data_sets import write_noise
from tests.support.results import result_of
from tests.support.runs import Started, fork, launch, wait_for_steps

pytestmark = pytest.mark.whole_run

SMALL = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "4")


def start_endless(data: Path, folder: Path, *more: str) -> Started:
    """A run of two ranks that has recorded some steps and has many to go."""
    options = [*SMALL, "--gpus", "2", "--data", str(data), "--epochs", "5000", *more]
    started = launch(*options, "--results", str(folder), "--run-name", "it")
    wait_for_steps(RunFiles(folder, "it"), 11, started)
    return started


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes whose command line names the folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or [])
    ]


def test_a_rank_that_is_killed_ends_the_run(colours: Path, tmp_path: Path) -> None:
    started = start_endless(colours, tmp_path)
    processes_of_run(started.pid)["rank 1"].kill()
    ended = started.end(60)
    assert ended.code == 5
    # Rank 0, which waits for it, ends of that within moments; the launcher names that one.
    assert ended.err.startswith("error: rank 1 was ended by SIGKILL (signal 9)\n")
    assert "dmesg" in ended.err
    assert "Traceback" not in ended.err.partition("The end of")[0]
    assert (tmp_path / "it.logs" / "workerlog.1").exists()


def test_a_killed_run_leaves_no_process_and_resumes_to_the_same_end(tmp_path: Path) -> None:
    """One kill, of the launching process; benchmarks/kills.py makes 25, of each process (`make soak`).

    Case B5: a planted secret is nowhere on the disk, and the next start removes what was left in the temporary folder.
    """
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "SECRET_TOKEN": "planted-1234", "TMPDIR": str(temporary)}
    data = write_noise(tmp_path / "data", 80, 16)
    options = (*OPTIONS, "--device", "cpu", "--data", str(data), "--results", str(tmp_path), "--gpus", "2")
    whole = fork(*options, "--run-name", "whole", environment=environment).end()
    assert whole.code == 0, whole.err
    started, files = launch(*options, "--run-name", "it", environment=environment), RunFiles(tmp_path, "it")
    # Four steps after the checkpoint of the first epoch, if the kill is quick.
    wait_for_steps(files, 7, started)
    started.send_signal(signal.SIGKILL)
    started.end()
    psutil.wait_procs(processes_of(tmp_path), timeout=30)
    assert processes_of(tmp_path) == []
    left = list(temporary.iterdir())
    assert [path.name[:18] for path in left] == ["pplcnet-bench-run-"]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if b"planted-1234" in path.read_bytes()] == []
    with pytest.raises(UsageError, match="its status is 'interrupted'"):
        find_result("it", tmp_path)
    table = read_table(files.table(STEPS.name), STEPS)
    assert len(table) >= 7
    assert table["step_seconds"].notna().all()
    resumed = fork(*options, "--run-name", "it", "--resume", environment=environment).end()
    assert resumed.code == 0, resumed.err
    assert list(temporary.iterdir()) == []
    assert result_of(files).differs(result_of(RunFiles(tmp_path, "whole"))) == []
    assert len(table) < len(read_table(files.table(STEPS.name), STEPS))


def test_a_rank_that_stands_still_ends_the_run(colours: Path, tmp_path: Path) -> None:
    """A stopped process stands for one that hangs in the kernel: it can't tell where it is, and no SIGTERM ends it."""
    started = start_endless(colours, tmp_path, "--stall-timeout", "5")
    processes_of_run(started.pid)["rank 1"].suspend()
    ended = started.end(60)
    assert ended.code == 5
    assert re.match(
        r"error: no step for 5 s: rank 0: harness/[\w/]+\.py:\d+ in \w+;"
        r" rank 1: no answer \(stopped or hung in the kernel\)\n", ended.err
    ), ended.err  # fmt: skip
    assert "--stall-timeout" in ended.err
    assert "Timeout (0:00:05)!" in (tmp_path / "it.logs" / "workerlog.0").read_text()
    assert processes_of(tmp_path) == []
