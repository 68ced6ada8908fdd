"""What the page of a run of days takes: seconds, peak memory and bytes, from generated tables of the published length.

usage: long_page.py [--epochs 360] [--steps 626] [--limit-seconds 20] [--limit-megabytes 1000] [--limit-bytes 6000000]

Writes the tables of a run on 4 GPUs (360 epochs: 225,360 training steps, 1.8 million telemetry samples), concludes it,
and has `run_bench.py report` write its page in a separate process. Exits with 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import ROOT
from tests.support.finished_runs import epochs_run
from tests.support.long_runs import LongRun


def main() -> int:
    """Generate the tables, write the page in a new process, and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=360)
    parser.add_argument("--steps", type=int, default=626)
    parser.add_argument("--limit-seconds", type=float, default=20.0)
    parser.add_argument("--limit-megabytes", type=float, default=1000.0)
    parser.add_argument("--limit-bytes", type=int, default=6_000_000)
    parser.add_argument("--keep", type=Path, help="file for the page, to look at it")
    asked = parser.parse_args()
    resumed_behind = tuple(range(asked.epochs // 4, asked.epochs, max(1, asked.epochs // 4)))
    with tempfile.TemporaryDirectory() as folder:
        run = LongRun(epochs=asked.epochs, steps_per_epoch=asked.steps, resumed_behind=resumed_behind)
        epochs_run(Path(folder), "long", run)
        page = asked.keep or Path(folder) / "long.html"
        command = [sys.executable, str(ROOT / "run_bench.py"), "report", "long", "--results", folder]
        begun = time.perf_counter()
        subprocess.run([*command, "--output", str(page)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        size = page.stat().st_size
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
    print(f"{size / 1e6:.2f} MB of page: {seconds:.1f} s, {megabytes:.0f} MB at peak")
    return int(seconds > asked.limit_seconds or megabytes > asked.limit_megabytes or size > asked.limit_bytes)


if __name__ == "__main__":
    sys.exit(main())
