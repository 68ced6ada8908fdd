"""How often the 95 % interval holds the truth: AR(1) series whose mean is known, of fixed length and stopped early.

usage: coverage.py [--series 2000]

Prints docs/methodology.md's table, then the same for windows that end as a throughput run's does: looked at every 40
steps from the 120th on, until they are steady and known to 2 % (noise of 8 %, steps of one second).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.analysis.interval import mean_estimate
from harness.analysis.steady import find_steady_state
from harness.plan.plan import WindowPlan
from harness.training.phases import is_precise
from tests.support.simulation import ar1

MEMORIES = (0.0, 0.5, 0.8)
LENGTHS = (10, 20, 30, 60, 100, 200, 500, 1000, 3000)
WINDOW = WindowPlan(warmup_steps=3, warmup_given=False, target_ci=0.02, max_seconds=1e9)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=2000)
    series = parser.parse_args().series
    print("steps " + " ".join(f"phi {memory}" for memory in MEMORIES))
    for length in LENGTHS:
        shares = [sum(_holds(1 + ar1(memory, length, 0.05, seed)) for seed in range(series)) for memory in MEMORIES]
        print(length, " ".join(f"{100 * share / series:.1f}" for share in shares), flush=True)
    shares = [sum(_stopped(memory, seed) for seed in range(series // 5)) for memory in MEMORIES]
    print("stopped", " ".join(f"{100 * share / (series // 5):.1f}" for share in shares))


def _holds(steps: object) -> bool:
    estimate = mean_estimate(steps)
    return estimate.half_width is not None and abs(estimate.mean - 1) <= estimate.half_width


def _stopped(memory: float, seed: int) -> bool:
    steps = 1 + ar1(memory, 6000, 0.08, seed)
    end = next((end for end in range(120, len(steps), 40) if is_precise(steps[:end].tolist(), WINDOW)), len(steps))
    return _holds(steps[find_steady_state(steps[:end], WINDOW.warmup_steps).warmup_steps : end])


if __name__ == "__main__":
    main()
