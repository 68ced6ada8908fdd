"""Runs that are disturbed on their way: what campaigns share, the moment to disturb a run at, and its processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness import ROOT
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import CHECKPOINT, STEPS
from harness.launch.paddle_launcher import LAUNCHER_COMMAND
from tests.support.results import Result, result_of

EPOCHS_RUN = 4
OPTIONS = [
    "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--compute-threads", "1",
    "--epochs", str(EPOCHS_RUN), "--checkpoint-minutes", "0.01", "--telemetry-interval", "0.1",
]  # fmt: skip
MAX_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    """What the runs of a campaign share: the kind of device, and the folders of data and results.

    prefix is a command that runs each of them, such as one that takes privileges away.
    """

    device: str
    data: Path
    results: Path
    prefix: tuple[str, ...] = ()


def command(job: Job, run: str, ranks: int) -> list[str]:
    """Returns the command line that starts a run, or resumes it if it exists."""
    begin = [*job.prefix, sys.executable, str(ROOT / "run_bench.py"), *OPTIONS, "--device", job.device]
    begin += ["--gpus", str(ranks), "--data", str(job.data)]
    return [*begin, "--results", str(job.results), "--run-name", run, "--resume"]


def finish(job: Job, run: str, ranks: int) -> Result:
    """Run or resume until the end. Returns the result. Raises RuntimeError with the run's output if it fails."""
    done = subprocess.run(command(job, run, ranks), capture_output=True, text=True, timeout=MAX_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr}")
    return result_of(RunFiles(job.results, run))


@dataclass(frozen=True, slots=True)
class Struck:
    """A run that was disturbed: what its files say about the moment, and its exit code; missed: why it wasn't."""

    seen: str
    code: int
    missed: bool = False


def strike(
    job: Job,
    run: str,
    ranks: int,
    moment: str,
    epoch: int,
    delay_seconds: float,
    disturb: Callable[[Mapping[str, psutil.Process]], bool],
) -> Struck:
    """Start or resume a run, and disturb it, delay_seconds after the moment has come in that epoch.

    disturb gets the run's processes by name and returns whether it could do what it wanted.
    """
    process = subprocess.Popen(command(job, run, ranks), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    files = RunFiles(job.results, run)
    begun_at, saved_rows = time.time(), saved_values(files).get("rows", {}).get(STEPS.name, 0)
    deadline = time.monotonic() + MAX_SECONDS
    try:
        while process.poll() is None and not _has_come(files, moment, epoch, saved_rows, begun_at):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {moment} of epoch {epoch} in {MAX_SECONDS:.0f} s")
            time.sleep(0.002)
        time.sleep(delay_seconds)
        if process.poll() is not None:
            return Struck("finished", process.returncode, missed=True)
        if not disturb(processes_of_run(process.pid)):
            return Struck("too early", 0, missed=True)
        seen = _last(files, begun_at)
        return Struck(seen, process.wait(MAX_SECONDS))
    finally:
        process.kill()
        process.wait()


def saved_values(files: RunFiles) -> Mapping[str, Any]:
    """Returns the values of the newest checkpoint; empty if there is none."""
    return (newest_checkpoint(files.checkpoints) or ("", {}))[1]


def _writing(files: RunFiles, since: float) -> bool:
    """Returns whether a checkpoint is being written, ignoring those that earlier kills left unfinished."""
    for path in files.checkpoints.glob(".*.safetensors*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= since:
                return True
    return False


def _has_come(files: RunFiles, moment: str, epoch: int, saved_rows: int, begun_at: float) -> bool:
    steps = files.table(STEPS.name)
    lines = steps.read_text(errors="replace").splitlines()[1 + saved_rows :] if steps.exists() else []
    made = [line for line in lines if line.count(",") > 3 and line.split(",")[2] == str(epoch)]
    if moment == CHECKPOINT:
        return bool(made) and _writing(files, begun_at)
    return any(line.startswith(f"{moment},") for line in made)


def _last(files: RunFiles, begun_at: float) -> str:
    lines = files.table(STEPS.name).read_text(errors="replace").splitlines()
    writing = "while writing a checkpoint, " if _writing(files, begun_at) else ""
    return f"{writing}after {len(lines) - 1} rows, the last of {lines[-1].split(',')[0]}"


def processes_of_run(pid: int) -> dict[str, psutil.Process]:
    """Returns the launching process of that id, Paddle's launcher and the ranks, as far as they exist."""
    run = psutil.Process(pid)
    launcher = next((child for child in run.children() if LAUNCHER_COMMAND in child.cmdline()), None)
    ranks = launcher.children() if launcher is not None else []
    found = {"run": run}
    if launcher is not None:
        found["launcher"] = launcher
    for rank in ranks:
        number = rank.environ().get("PADDLE_TRAINER_ID")
        if number is not None:
            found[f"rank {number}"] = rank
    return found
