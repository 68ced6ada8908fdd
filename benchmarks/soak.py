"""A long run of a tiny model, monitored from outside: its memory and its open files must not grow.

20,000 steps on two ranks, with an evaluation and a checkpoint in each epoch. Every second the resident memory and the
number of file descriptors of the launching process and of both ranks are read. For each process the means of the second
and of the last quarter of the run are compared, because the first quarter fills caches; the script exits with 1 if the
memory of any process has grown by more than 2 %, or its descriptors by more than one.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.disturbed import processes_of_run
from harness import ROOT
from tests.support.data_sets import write_noise

GROWTH = 0.02
TRAIN_IMAGES, VAL_IMAGES, BATCH = 1600, 64, 2


def main() -> int:
    """Run, monitor, and print a line for every process. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    given = parser.parse_args()
    steps_per_epoch = TRAIN_IMAGES // (2 * BATCH)
    epochs = -(-given.steps // steps_per_epoch)
    with tempfile.TemporaryDirectory(prefix="pplcnet-soak-") as name:
        folder = Path(name)
        write_noise(folder / "data", TRAIN_IMAGES, VAL_IMAGES)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run_bench.py"), "--device", "cpu", "--gpus", "2", "--model", "x0_25",
             "--image-size", "32", "--batch-size", str(BATCH), "--compute-threads", "1", "--epochs", str(epochs),
             "--data", str(folder / "data"), "--results", str(folder), "--run-name", "soak"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        memory, files = watch(process)
        if process.returncode:
            print(f"the run ended with {process.returncode}")
            return 1
    print(f"{epochs * steps_per_epoch:,} steps in {epochs} epochs")
    return report(memory, files)


def watch(process: subprocess.Popen[bytes]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns the resident bytes and open descriptors of each process of a run, read once a second until it ends."""
    memory: dict[str, list[float]] = defaultdict(list)
    files: dict[str, list[float]] = defaultdict(list)
    while process.poll() is None:
        with suppress(psutil.Error):
            for name, one in processes_of_run(process.pid).items():
                with suppress(psutil.Error):
                    memory[name].append(one.memory_info().rss)
                    files[name].append(one.num_fds())
        time.sleep(1.0)
    return memory, files


def report(memory: dict[str, list[float]], files: dict[str, list[float]]) -> int:
    """Print the growth of each process. Returns 1 if any of them has grown, otherwise 0."""
    grown = 0
    for name in sorted(memory):
        before, after = quarters(memory[name])
        open_before, open_after = quarters(files[name])
        bad = after > (1 + GROWTH) * before or open_after > open_before + 1
        grown += bad
        print(
            f"{name:9} {before / 2**20:7.1f} MiB -> {after / 2**20:7.1f} MiB ({after / before - 1:+.2%}),"
            f" descriptors {open_before:.1f} -> {open_after:.1f}{'  GROWN' if bad else ''}"
        )
    return 1 if grown else 0


def quarters(series: list[float]) -> tuple[float, float]:
    """Returns the means of the second and the last quarter, without the last two readings, when the run ends."""
    series = series[:-2]
    quarter = max(1, len(series) // 4)
    return statistics.fmean(series[quarter : 2 * quarter]), statistics.fmean(series[-quarter:])


if __name__ == "__main__":
    sys.exit(main())
