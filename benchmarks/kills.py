"""Kills runs at random moments, resumes them, and compares the result with that of an undisturbed run.

Every kill is a SIGKILL of one process (the launching process, Paddle's launcher or a rank) during training, an
evaluation or a checkpoint. A campaign prints a line per kill, and exits with 1 unless all results are equal, bit for
bit.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from harness import ROOT
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import CHECKPOINT, EVALUATE, STEPS, TRAIN
from harness.launch.launcher import LAUNCHER_COMMAND
from tests.support.data_sets import write_noise
from tests.support.results import Result, result_of

EPOCHS_RUN = 4
OPTIONS = [
    "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--compute-threads", "1",
    "--epochs", str(EPOCHS_RUN), "--checkpoint-minutes", "0.01", "--telemetry-interval", "0.1",
]  # fmt: skip
MOMENTS = (TRAIN, EVALUATE, CHECKPOINT)
VICTIMS = ("run", "launcher", "rank 0", "rank 1")
MAX_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    """What the runs of a campaign share: the kind of device, and the folders of data and results."""

    device: str
    data: Path
    results: Path


def command(job: Job, run: str, ranks: int) -> list[str]:
    """Returns the command line that starts a run, or resumes it if it exists."""
    begin = [sys.executable, str(ROOT / "run_bench.py"), *OPTIONS, "--device", job.device, "--gpus", str(ranks)]
    begin += ["--data", str(job.data)]
    return [*begin, "--results", str(job.results), "--run-name", run, "--resume"]


def finish(job: Job, run: str, ranks: int) -> Result:
    """Run or resume until the end. Returns the result. Raises RuntimeError with the run's output if it fails."""
    done = subprocess.run(command(job, run, ranks), capture_output=True, text=True, timeout=MAX_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr}")
    return result_of(RunFiles(job.results, run))


@dataclass(frozen=True, slots=True)
class Struck:
    """A run that was signalled: what its files say about the moment, and its exit code; missed: why it wasn't."""

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
    signalled: Callable[[Mapping[str, psutil.Process]], bool],
) -> Struck:
    """Start or resume a run, and signal its processes, delay_seconds after the moment has come in that epoch.

    signalled gets them by name and returns whether those that it wanted exist.
    """
    process = subprocess.Popen(command(job, run, ranks), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    files = RunFiles(job.results, run)
    begun_at, saved_rows = time.time(), _saved(files).get("rows", {}).get(STEPS.name, 0)
    deadline = time.monotonic() + MAX_SECONDS
    try:
        while process.poll() is None and not _has_come(files, moment, epoch, saved_rows, begun_at):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {moment} of epoch {epoch} in {MAX_SECONDS:.0f} s")
            time.sleep(0.002)
        time.sleep(delay_seconds)
        if process.poll() is not None:
            return Struck("finished", process.returncode, missed=True)
        if not signalled(processes_of_run(process.pid)):
            return Struck("too early", 0, missed=True)
        seen = _last(files, begun_at)
        return Struck(seen, process.wait(MAX_SECONDS))
    finally:
        process.kill()
        process.wait()


def _killed(victim: str, processes: Mapping[str, psutil.Process]) -> bool:
    if victim in processes:
        processes[victim].send_signal(signal.SIGKILL)
    return victim in processes


def _saved(files: RunFiles) -> Mapping[str, Any]:
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


def campaign(kills: int, seed: int, say: Callable[[str], None], job: Job, ranks: Sequence[int] = (1, 2)) -> int:
    """Kill runs the given number of times. Returns how many results differ from those of undisturbed runs."""
    write_noise(job.data, 160, 96)
    truth = {count: finish(job, f"undisturbed{count}", count) for count in ranks}
    say(f"undisturbed: {len(truth[ranks[0]].steps)} rows on {ranks[0]} ranks")
    wrong, done = 0, 0
    choose = random.Random(seed)  # noqa: S311
    for number in itertools.count():
        if done >= kills:
            break
        count = choose.choice(ranks)
        run = f"run{number}"
        for _ in range(choose.randint(1, 3)):
            moment, victim = choose.choice(MOMENTS), choose.choice(VICTIMS[: 2 + count])
            reached = _saved(RunFiles(job.results, run)).get("progress", {}).get("epoch", 1)
            if reached > EPOCHS_RUN:
                break
            epoch = choose.randint(reached, EPOCHS_RUN)
            delay = 0.0 if moment == CHECKPOINT else choose.uniform(0.0, 0.15)
            struck = strike(job, run, count, moment, epoch, delay, partial(_killed, victim))
            say(f"{run}: {victim} of {count} ranks killed during {moment} of epoch {epoch}: {struck.seen}")
            if struck.seen == "finished":
                break
            done += not struck.missed
        differing = finish(job, run, count).differs(truth[count])
        wrong += bool(differing)
        say(f"{run}: {'not equal: ' + ', '.join(differing) if differing else 'equal'}")
    say(f"{done} processes killed")
    return wrong


def main() -> int:
    """Run a campaign and print each kill. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="kind of device, as run_bench.py knows it")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pplcnet-kills-"))
    job = Job(given.device, folder / "data", folder)
    try:
        wrong = campaign(given.kills, given.seed, lambda line: print(line, flush=True), job)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{wrong} results differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
