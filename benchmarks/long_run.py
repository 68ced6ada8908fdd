"""Measures the seconds and the peak memory of summarizing a run of days, from generated tables of the published length.

usage: long_run.py [--epochs 360] [--steps 626] [--limit-seconds 30] [--limit-megabytes 1000]

Writes the tables of a run on 4 GPUs (360 epochs: 225,360 training steps, 1.8 million telemetry samples), then
summarizes and prints it in a separate process, as run_bench.py does at the end of a run. Exits with 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.analysis.summarize import summarize
from harness.artifacts.record import RunFiles, read_record, write_record
from harness.artifacts.reference_table import append_reference_row
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.shared_tables import append_row
from harness.report.console import Console
from tests.support.long_runs import LongRun


def main() -> int:
    """Generate the tables, summarize them in a new process, and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=360)
    parser.add_argument("--steps", type=int, default=626)
    parser.add_argument("--limit-seconds", type=float, default=30.0)
    parser.add_argument("--limit-megabytes", type=float, default=1000.0)
    parser.add_argument("--summarize", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    resumed_behind = tuple(range(asked.epochs // 4, asked.epochs, max(1, asked.epochs // 4)))
    run = LongRun(epochs=asked.epochs, steps_per_epoch=asked.steps, resumed_behind=resumed_behind)
    if asked.summarize is not None:
        _summarize(asked.summarize, run)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files, _ = run.write(Path(folder))
        size = sum(path.stat().st_size for path in files.existing())
        begun = time.perf_counter()
        subprocess.run([sys.executable, *sys.argv, "--summarize", folder], check=True)
        seconds = time.perf_counter() - begun
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
    print(f"{size / 1e6:.0f} MB of tables: {seconds:.1f} s, {megabytes:.0f} MB at peak")
    return int(seconds > asked.limit_seconds or megabytes > asked.limit_megabytes)


def _summarize(folder: Path, run: LongRun) -> None:
    """Do what `harness.commands.run` does after the workers have ended."""
    files = RunFiles(folder, "long")
    record = read_record(files.record)
    record = replace(record, status="finished", **summarize(files, record, run.breaks).as_record())
    append_row(folder / "summary.csv", SUMMARY, record.summary, unique=("run",))
    append_reference_row(folder, record)
    write_record(files.record, record)
    Console().conclusion(record, files)


if __name__ == "__main__":
    sys.exit(main())
