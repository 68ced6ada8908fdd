"""Measures where the time goes from the command to the first training step, in real runs.

usage: startup.py [--runs 5] [--tree FOLDER ...] [options of run_bench.py]

Starts `run_bench.py --device cpu --gpus 1 --throughput-only --max-seconds 5` with the further options, which take
precedence, and reads the stages of rank 0's start from the record (docs/record.md, attempts.startup). With several
folders, each a checkout of this project with its .venv, their runs take turns. Prints the median and the range of each
stage, and of the processor time that all of a run's processes have used when the first step's row is there: other
programs change it less than the seconds.
"""

from __future__ import annotations

import argparse
import json
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
from harness.training.startup import STAGES

OPTIONS = ("--device", "cpu", "--gpus", "1", "--throughput-only", "--max-seconds", "5")
TOTAL, PROCESSORS = "command to first step", "processor time"
POLL_SECONDS = 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", type=int, default=5, help="of each checkout")
    parser.add_argument("--tree", type=Path, nargs="+", default=[ROOT], help="checkouts to compare")
    given, options = parser.parse_known_args()
    starts: dict[Path, list[Mapping[str, float]]] = {tree: [] for tree in given.tree}
    for number in range(given.runs):
        for tree, found in starts.items():
            with tempfile.TemporaryDirectory(prefix="pplcnet-startup-") as folder:
                found.append(one_start(tree, RunFiles(Path(folder), "startup"), options))
            print(f"run {number + 1} of {tree}: {found[-1][TOTAL]:.2f} s", file=sys.stderr, flush=True)
    for tree, found in starts.items():
        print("", f"{tree}, {given.runs} runs", *rows(found), sep="\n")


def one_start(tree: Path, files: RunFiles, options: Sequence[str]) -> dict[str, float]:
    """Carry out a run of a checkout. Returns the seconds of each stage, of all of them, and of the processors."""
    command = [str(tree / ".venv/bin/python"), str(tree / "run_bench.py"), *OPTIONS, *options]
    process = psutil.Popen(
        [*command, "--results", str(files.folder), "--run-name", files.run],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not has_a_step(files):
        time.sleep(POLL_SECONDS)
    used = processor_seconds(process)
    printed = process.communicate()[1]
    # A run that is too short for a measured step fails, but has made its first step.
    stages = json.loads(files.record.read_bytes())["attempts"][-1]["startup"] if files.record.exists() else {}
    if list(stages) != list(STAGES):
        sys.exit(f"a run ended with exit code {process.returncode} before it could tell its stages:\n{printed}")
    return {**stages, TOTAL: sum(stages.values()), PROCESSORS: used}


def has_a_step(files: RunFiles) -> bool:
    """Whether the table of steps has a row."""
    with suppress(FileNotFoundError):
        return files.table(STEPS.name).read_bytes().count(b"\n") > 1
    return False


def processor_seconds(process: psutil.Process) -> float:
    """The processor time of a process and its descendants, those that have ended included."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def rows(starts: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """A line for each stage: its median, and the range."""
    for name in starts[0]:
        values = [start[name] for start in starts]
        yield f"{name:22} {statistics.median(values):7.2f} s ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
