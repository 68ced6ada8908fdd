"""Starts run_bench.py from a row of the first GPU day, and reads what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from harness import ROOT
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import Table
from harness.artifacts.tables import read_table
from harness.doctor.check import FAIL, Context, Finding
from harness.launch.launcher import WORKER_COMMAND
from harness.launch.paddle_launcher import LAUNCHER_COMMAND
from harness.launch.process_tree import die_with_parent
from harness.machine.device import choose_devices
from harness.machine.device_kinds import DeviceKind, device_kind

NAME = "it"
POLL_SECONDS = 0.05
# Where nothing but the host computes, or an unknown accelerator: so small that a row ends in its time.
SMALL = ("--model", "x0_25", "--image-size", "32", "--batch-size", "16", "--compute-threads", "1")


@dataclass(frozen=True, slots=True)
class Ended:
    """How run_bench.py ended: its exit code, and the lines that it printed to standard error."""

    code: int
    errors: list[str] = field(default_factory=list)

    @property
    def error(self) -> str:
        """Its error in one line."""
        return next((line for line in self.errors if line.startswith("error:")), " ".join(self.errors[-1:]))


class Bench:
    """Runs of one row in its own folder, on this kind and number of devices."""

    def __init__(self, context: Context, count: int | None = None, device: str | None = None) -> None:
        devices, _ = choose_devices(context.device, context.gpus, os.environ)
        self.kind: DeviceKind = device_kind(device or devices.kind)
        self.count = min(devices.count, count or devices.count)
        self.files = RunFiles(Path(tempfile.mkdtemp()), NAME)
        self._words = ["--device", self.kind.name, "--gpus", str(self.count), "--results", str(self.files.folder),
                       "--run-name", NAME]  # fmt: skip

    def start(self, *words: str, environment: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
        """Start a run with these options and those of the row's devices."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run_bench.py"), *self._words, *words],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.files.folder / "stderr").open("w"),
            text=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for a run's end."""
        code = process.wait()
        return Ended(code, (self.files.folder / "stderr").read_text(encoding="utf-8", errors="replace").splitlines())

    def run(self, *words: str, environment: Mapping[str, str] = os.environ) -> Ended:
        """Start a run, and wait for its end."""
        return self.end(self.start(*words, environment=environment))

    @property
    def record(self) -> dict[str, Any]:
        """The run's record."""
        values: dict[str, Any] = json.loads(self.files.record.read_text(encoding="utf-8"))
        return values

    def table(self, table: Table) -> pd.DataFrame:
        """One of the run's tables."""
        return read_table(self.files.table(table.name), table)

    def rows(self, table: Table) -> int:
        """The rows that a running run has written."""
        with suppress(OSError):
            return max(0, self.files.table(table.name).read_bytes().count(b"\n") - 1)
        return 0


def wait_for(come: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Returns True once something has come, False when the process ends before."""
    while not come():
        if process.poll() is not None:
            return False
        time.sleep(POLL_SECONDS)
    return True


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Returns a run's ranks, in no order."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if WORKER_COMMAND in child.cmdline() and LAUNCHER_COMMAND not in child.cmdline():
                found.append(child)
    return found


def failed(what: str, ended: Ended, expected: str) -> Finding:
    """Returns the finding of a run that ended otherwise than expected."""
    return Finding(FAIL, f"{what}: exit code {ended.code}", expected, ended.error)
