"""Measures what the end of a run of days takes, from generated tables of the published length: seconds and peak memory.

usage: long_run.py [--epochs 360] [--steps 626] [--keep FILE]

Writes the tables of a run on 4 GPUs (360 epochs: 225,360 training steps, 1.8 million telemetry samples), then
summarizes and prints it, and then writes its page, each in a process of its own, as run_bench.py does. Exits with 1
beyond a limit: 30 s and 1,000 MB for the first, 20 s, 1,000 MB and a page of 6 MB for the second. --keep has the page
written there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import ROOT
from harness.analysis.summarize import summarize
from harness.artifacts.record import RunFiles, read_record, write_record
from harness.artifacts.reference_table import append_reference_row
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.shared_tables import append_row
from harness.report.console import Console
from tests.support.long_runs import LongRun

SUMMARY_SECONDS, PAGE_SECONDS, MAX_MEGABYTES, PAGE_MEGABYTES = 30.0, 20.0, 1000.0, 6.0


def main() -> int:
    """Generate the tables, summarize them and write the page in new processes, and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=360)
    parser.add_argument("--steps", type=int, default=626)
    parser.add_argument("--keep", type=Path)
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
        seconds, megabytes = _measured([sys.executable, *sys.argv, "--summarize", folder])
        print(f"{size / 1e6:.0f} MB of tables summarized: {seconds:.1f} s, {megabytes:.0f} MB at peak")
        page = asked.keep or files.page
        report = [sys.executable, str(ROOT / "run_bench.py"), "report", files.run, "--results", folder]
        page_seconds, page_peak = _measured([*report, "--output", str(page)])
        page_size = page.stat().st_size / 1e6
        print(f"its page of {page_size:.2f} MB: {page_seconds:.1f} s, {page_peak:.0f} MB at peak")
    return int(
        seconds > SUMMARY_SECONDS
        or page_seconds > PAGE_SECONDS
        or max(megabytes, page_peak) > MAX_MEGABYTES
        or page_size > PAGE_MEGABYTES
    )


def _measured(command: list[str]) -> tuple[float, float]:
    """The seconds and the peak megabytes of a command. Ends with its exit code if it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    return time.perf_counter() - begun, usage.ru_maxrss * 1024 / 1e6  # Linux counts in KiB


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
