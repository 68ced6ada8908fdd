"""Runs as a user starts them, and what they leave.

`launch` starts run_bench.py as a user does: a new interpreter, Paddle's launcher, and an interpreter for each rank.
`fork` does the same in milliseconds, without these (see tests/support/forked_launcher.py), for what is not about them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import psutil
import pytest

from harness import ROOT
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import read_table
from tests.support.seen import python_path

ENTRY = ROOT / "run_bench.py"
# A run that hangs ends the test rather than the suite.
MAX_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Started(Protocol):
    """A command that runs."""

    @property
    def pid(self) -> int:
        """The launching process."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def send_signal(self, number: int) -> None:
        """Send the launching process a signal."""

    def end(self, timeout: float = MAX_SECONDS) -> Ended:
        """Wait for its end. Raises TimeoutExpired, and kills it then."""


class _Launched:
    """run_bench.py in a new interpreter."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=dict(environment),
        )  # fmt: skip
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, timeout: float = MAX_SECONDS) -> Ended:
        try:
            out, err = self._process.communicate(timeout=timeout)
        finally:
            self._process.kill()
            self._process.communicate()
        return Ended(self._process.returncode, out, err)


class _Forked:
    """run_bench.py in a child of the process that has loaded everything."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], address_bytes: int | None) -> None:
        # Imported where it is needed: it loads Paddle and DALI.
        from tests.support.forked_launcher import run_command_line

        self._folder = Path(tempfile.mkdtemp(prefix="forked-run-"))
        self._process = _fork_server().Process(
            target=run_command_line,
            args=(arguments, dict(environment), str(Path.cwd()), str(self._folder), address_bytes),
            daemon=True,
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, timeout: float = MAX_SECONDS) -> Ended:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        out, err = ((self._folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        shutil.rmtree(self._folder)
        if code is None:
            raise subprocess.TimeoutExpired("run_bench.py", timeout, out, err)
        return Ended(code, out, err)


@cache
def _fork_server() -> ForkServerContext:
    """The process that runs are forked from; it has one thread, and ends with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.forked_launcher"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path(ROOT))
        patch.setenv("PYTHONWARNINGS", "ignore")
        # Libraries that would start threads when they are loaded.
        patch.setenv("OMP_NUM_THREADS", "1")
        ensure_running()
    return context


def launch(*arguments: str, prefix: tuple[str, ...] = (), environment: Mapping[str, str] = os.environ) -> Started:
    """Start run_bench.py as a user does; prefix is a command that runs it."""
    return _Launched([*prefix, sys.executable, str(ENTRY), *arguments], environment)


def fork(*arguments: str, environment: Mapping[str, str] = os.environ, address_bytes: int | None = None) -> Started:
    """Start what run_bench.py does, in a forked process; each of its processes may have so much address space."""
    return _Forked(arguments, environment, address_bytes)


Start = Callable[..., Started]


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, and its files."""

    code: int
    out: str
    err: str
    files: RunFiles

    @property
    def folder(self) -> Path:
        return self.files.folder

    def table(self, name: str) -> pd.DataFrame:
        """One of its tables."""
        table = {one.name: one for one in (STEPS, DEVICES, EPOCHS, BAD_IMAGES)}[name]
        return read_table(self.files.table(name), table)

    def train_steps(self) -> pd.DataFrame:
        """The rows of its training's steps."""
        steps = self.table(STEPS.name)
        train: pd.DataFrame = steps[steps["phase"] == "train"]
        return train

    @property
    def record(self) -> dict[str, Any]:
        """Its record, as JSON has it."""
        record: dict[str, Any] = json.loads(self.files.record.read_text(encoding="utf-8"))
        return record


def run(folder: Path, *options: str, name: str = "it", start: Start = fork) -> Run:
    """A run with that folder and name, from its start to its end."""
    ended = start(*options, "--results", str(folder), "--run-name", name).end()
    return Run(ended.code, ended.out, ended.err, RunFiles(folder, name))


def wait_until(come: Callable[[], bool], process: Started, seconds: float = 120.0) -> None:
    """Return once something has come. Raises AssertionError when the process ends before."""
    deadline = time.monotonic() + seconds
    while not come():
        assert process.poll() is None, process.end()
        assert time.monotonic() < deadline, f"it hasn't come in {seconds:g} s"
        time.sleep(0.01)


def wait_for_steps(files: RunFiles, rows: int, process: Started, phase: str = "") -> None:
    """Return once the run has recorded so many steps, one of them of the phase."""
    path = files.table(STEPS.name)

    def come() -> bool:
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return len(lines) > rows and any(line.startswith(phase) for line in lines[1:])

    wait_until(come, process)


def wait_for_checkpoint(files: RunFiles, process: Started) -> None:
    """Return once the run has saved a checkpoint."""
    wait_until(lambda: newest_checkpoint(files.checkpoints) is not None, process)


def kill(process: Started) -> None:
    """Kill the launching process, and wait for those that end with it."""
    others = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.end()
    _, alive = psutil.wait_procs(others, timeout=30)
    assert alive == []
