"""Measures what keeping ranks on their cores does to throughput: whole runs with --affinity none and pin, in turns.

usage: placement.py [--rounds 2] -- OPTIONS

OPTIONS are those of run_bench.py, such as `--gpus 2 --model x0_25 --image-size 64 --data digits --max-seconds 40`. Each
round has four runs, in the order none, pin, pin, none, so that a machine that slows down slows both alike. Prints the
medians of each phase's rate, and for the training what `compare` concludes. Other programs on the machine disturb it,
and ranks that are kept on their cores more than others: what disturbed each run's training is printed with its rate.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.whole_runs import throughput
from harness.analysis.comparing.compare import Side, compare
from harness.artifacts.schema import TRAIN
from harness.machine.placement.shares import NONE, PIN

ORDER = (NONE, PIN, PIN, NONE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("options", nargs="+")
    arguments = parser.parse_args()
    rates: dict[str, dict[str, list[float]]] = {affinity: {} for affinity in ORDER}
    with tempfile.TemporaryDirectory() as folder:
        for number, affinity in enumerate(ORDER * arguments.rounds):
            phases = throughput(Path(folder), f"run{number}", "--affinity", affinity, *arguments.options).phases
            for phase, figures in phases.items():
                rates[affinity].setdefault(phase, []).append(figures["fps"])
            train = phases[TRAIN]
            print(f"{affinity}: {train['fps']:.1f} images/s, disturbed by: {train['interference']}", flush=True)
    for phase, without in rates[NONE].items():
        medians = [statistics.median(fps) for fps in (without, rates[PIN][phase])]
        print(f"{phase}: none {medians[0]:.1f}, pin {medians[1]:.1f} images/s, ratio {medians[1] / medians[0]:.3f}")
    difference = compare(*(Side(name, tuple(rates[name][TRAIN]), None, None) for name in (NONE, PIN)))
    interval = "" if difference.low is None else f", {difference.low:+.1%} to {difference.high:+.1%}"
    print(f"{TRAIN} with pin: {difference.verdict} ({difference.change:+.1%}{interval}; {difference.how})")


if __name__ == "__main__":
    main()
