"""Creates known bottlenecks in real runs on this machine's CPU, and compares the verdict with them.

usage: bottlenecks.py [--times 4] [--max-seconds 60]

Each repetition has three runs, with this expected result:

  slow decoding   12-megapixel JPEGs, one DALI thread, x0_25 at 32 px     pipeline; more threads, if there are cores
  slow compute    x2_5 at 224 px on the built-in photos                   compute
  a neighbour     x0_5 at 224 px, half of the cores taken by others       disturbed by foreign_cpu
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.large_photos import write_large_photos
from harness.report.findings import GAINS, gain_text

ROOT = Path(__file__).parents[1]
IMAGES = 32


def main() -> None:
    """Run and print; the exit code is the number of wrong results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--max-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        large = write_large_photos(folder / "large", IMAGES)
        cores = os.cpu_count() or 1
        # Options, number of neighbours, expected result, and the option that the first remedy must name.
        cases: dict[str, tuple[Sequence[str], int, str, str]] = {
            "slow decoding": (
                ["--model", "x0_25", "--image-size", "32", "--gpus", "1", "--decode-threads", "1", "--batch-size", "8",
                 "--data", str(large)], 0, "pipeline", "Raise --decode-threads" if cores > 1 else "--data",
            ),
            "slow compute": (["--model", "x2_5", "--data", "photos"], 0, "compute", "--model"),
            "a neighbour": (["--model", "x0_5", "--data", "photos"], cores // 2, "foreign_cpu", ""),
        }  # fmt: skip
        for time in range(arguments.times):
            for name, (options, neighbours, expected, cure) in cases.items():
                with _busy(neighbours):
                    record = _run(
                        folder / "results", f"{name.replace(' ', '-')}-{time}", arguments.max_seconds, options
                    )
                verdict = record["verdict"]
                called = str(record["summary"]["interference"] if neighbours else verdict["bottleneck"])
                right = expected in called.split("|") and cure in "".join(verdict["remedies"][:1])
                wrong += not right
                rates = ", ".join(f"{phase} {figures['fps']:.1f}" for phase, figures in record["phases"].items())
                certain = "certain" if verdict["certain"] else "uncertain"
                gains = ", ".join(f"{GAINS[name]} {gain_text(verdict[name])}" for name in GAINS if verdict[name])
                disturbed = record["summary"]["interference"]
                print(
                    f"{name}: {'right' if right else 'WRONG'}: {called}, {certain}, disturbed by {disturbed};"
                    f" images/s: {rates}; {gains}; try: {verdict['remedies'][:1]}",
                    flush=True,
                )
    sys.exit(wrong)


def _run(results: Path, name: str, seconds: float, options: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "run_bench.py"), "--throughput-only", "--device", "cpu", "--results",
               str(results), "--run-name", name, "--max-seconds", str(seconds), *options]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    record: dict[str, Any] = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    return record


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    """Run the given number of processes that each keep a core busy."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
