"""The tool started as a user starts it, and runs that are kept from one start of a benchmark to the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import ROOT
from harness.artifacts.record import RunFiles, RunRecord, read_record


def bench(*arguments: str) -> None:
    """Run the tool to its end; ends this process with its error if it fails."""
    command = [sys.executable, str(ROOT / "run_bench.py"), *arguments]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"run_bench.py {' '.join(arguments)}: exit code {ended.returncode}\n{ended.stderr}")


def throughput(results: Path, name: str, *options: str) -> RunRecord:
    """The record of a throughput run of that name, which is made unless it is there."""
    file = RunFiles(results, name).record
    if not file.exists():
        bench("--throughput-only", *options, "--results", str(results), "--run-name", name)
    return read_record(file)
