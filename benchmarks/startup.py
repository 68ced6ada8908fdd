"""Measures where the time goes from the command to the first training step, in real runs.

usage: startup.py [--runs 5] [--max-others CORES] [--tree FOLDER ...] [options of run_bench.py]

Starts `run_bench.py --device cpu --gpus 1 --throughput-only --max-seconds 5` with the further options, which take
precedence, and reads the stages of rank 0's start from the record (docs/record.md, attempts.startup). With several
folders, each a checkout of this project with its .venv, their runs take turns. Prints the median and the range of each
stage, and of the processor time that each kind of process has used when the first step's row is there (that of the
ranks includes the step): other programs change it less than the seconds. A start in which they used more than
--max-others of a core is not counted, and made again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from harness import ROOT
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import STEPS
from harness.launch.paddle_launcher import LAUNCHER_COMMAND
from harness.training.startup import STAGES

OPTIONS = ("--device", "cpu", "--gpus", "1", "--throughput-only", "--max-seconds", "5")
TOTAL, OTHERS = "command to first step", "cores that other programs used"
POLL_SECONDS = 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", type=int, default=5, help="of each checkout")
    parser.add_argument("--tree", type=Path, nargs="+", default=[ROOT], help="checkouts to compare")
    parser.add_argument(
        "--max-others", type=float, default=math.inf, metavar="CORES", help="that other programs may use"
    )
    given, options = parser.parse_known_args()
    starts: dict[Path, list[Mapping[str, float]]] = {tree: [] for tree in given.tree}
    while min(map(len, starts.values())) < given.runs:
        for tree, found in starts.items():
            with tempfile.TemporaryDirectory(prefix="pplcnet-startup-") as folder:
                start = one_start(tree, RunFiles(Path(folder), "startup"), options)
            print(f"{tree}: {start[TOTAL]:.2f} s, others {start[OTHERS]:.2f} cores", file=sys.stderr, flush=True)
            if start[OTHERS] <= given.max_others:
                found.append(start)
    for tree, found in starts.items():
        print("", f"{tree}, {len(found)} runs", *rows(found), sep="\n")


def one_start(tree: Path, files: RunFiles, options: Sequence[str]) -> dict[str, float]:
    """Carry out a run of a checkout. Returns the seconds of each stage, of all of them, and of the processors."""
    command = [str(tree / ".venv/bin/python"), str(tree / "run_bench.py"), *OPTIONS, *options]
    began, busy = time.monotonic(), busy_seconds()
    process = psutil.Popen(
        [*command, "--results", str(files.folder), "--run-name", files.run],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not has_a_step(files):
        time.sleep(POLL_SECONDS)
    used = processor_seconds(process) if process.poll() is None else {}
    others = (busy_seconds() - busy - sum(used.values())) / (time.monotonic() - began)
    printed = process.communicate()[1]
    # A run that is too short for a measured step fails, but has made its first step.
    stages = json.loads(files.record.read_bytes())["attempts"][-1]["startup"] if files.record.exists() else {}
    if list(stages) != list(STAGES):
        sys.exit(f"a run ended with exit code {process.returncode} before it could tell its stages:\n{printed}")
    return {**stages, TOTAL: sum(stages.values()), **used, OTHERS: others}


def has_a_step(files: RunFiles) -> bool:
    """Whether the table of steps has a row."""
    with suppress(FileNotFoundError):
        return files.table(STEPS.name).read_bytes().count(b"\n") > 1
    return False


def busy_seconds() -> float:
    """The time for which this machine's processors have worked since its start, or wanted to, as another guest did."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def processor_seconds(process: psutil.Process) -> dict[str, float]:
    """The processor time of a launching process, of Paddle's launcher and of its ranks, if they still run."""
    launchers = [child for child in process.children() if LAUNCHER_COMMAND in child.cmdline()]
    kinds = {
        "launching process": [process],
        "Paddle's launcher": launchers,
        "ranks": [rank for launcher in launchers for rank in launcher.children()],
    }
    found = {kind: [one.cpu_times() for one in processes] for kind, processes in kinds.items()}
    return {f"processor time, {kind}": sum(sum(times[:4]) for times in of_kind) for kind, of_kind in found.items()}


def rows(starts: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """A line for each stage: its median in seconds, and the range."""
    for name in starts[0]:
        values = [start[name] for start in starts]
        yield f"{name:33} {statistics.median(values):7.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
