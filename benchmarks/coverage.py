"""Measures how often the 95 % interval contains the true mean, for AR(1) series of fixed length and stopped early.

usage: coverage.py [--series 2000]

Prints the tables of docs/methodology.md: for single series; for windows that end like those of a throughput run
(checked every 40 steps from the 120th on, until they are steady and known to 2 %; noise of 8 %, steps of one second);
and for the gains if data, training or communication cost nothing, from four series of different lengths.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.analysis.gains import gain, without_communication, without_data, without_training
from harness.analysis.interval import mean_estimate
from harness.analysis.outliers import CAUSES
from harness.analysis.steady import find_steady_state
from harness.analysis.window import measure_phase
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN
from harness.plan.plan import WindowPlan
from harness.training.phases import is_precise
from tests.support.simulation import ar1

MEMORIES = (0.0, 0.5, 0.8)
LENGTHS = (10, 20, 30, 60, 100, 200, 500, 1000, 3000)
# Seconds of a step in each phase, and numbers of its steps, in the same order.
SECONDS = {TRAIN: 1.0, COMPUTE: 0.9, PIPELINE: 0.5, COMPUTE_NO_SYNC: 0.6}
PHASE_LENGTHS = ((20, 15, 100, 15), (40, 30, 300, 20), (60, 60, 60, 60), (200, 150, 500, 100), (400, 300, 1000, 200))
UNUSED = {"rank_skew_seconds": 0.0, "slowest_rank": 0, "gpu_util_percent": None, "cpu_util_percent": None,
          "segment": 1, "interference": "none", **dict.fromkeys(CAUSES, 0.0)}  # fmt: skip
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
    for lengths in PHASE_LENGTHS:
        for memory in MEMORIES:
            held = np.sum([_gains_hold(lengths, memory, seed) for seed in range(series // 5)], axis=0)
            print(lengths, f"phi {memory}", " ".join(f"{500 * count / series:.1f}" for count in held), flush=True)


def _holds(steps: object) -> bool:
    estimate = mean_estimate(steps)
    return estimate.half_width is not None and abs(estimate.mean - 1) <= estimate.half_width


def _gains_hold(lengths: Sequence[int], memory: float, seed: int) -> list[bool]:
    """Returns whether the intervals of the gains from removing data, training and communication contain the truth."""
    phases = {}
    for at, (name, seconds) in enumerate(SECONDS.items()):
        steps = pd.DataFrame({"step_seconds": seconds * (1 + ar1(memory, lengths[at], 0.05, 4 * seed + at))})
        phases[name] = measure_phase(steps.assign(phase=name, warmup=0, images=1, **UNUSED), name)
    held = []
    for removal in (without_data, without_training, without_communication):
        found = gain(removal, phases)
        truth = SECONDS[TRAIN] / removal(SECONDS)
        held.append(found.low is not None and found.high is not None and found.low <= truth <= found.high)
    return held


def _stopped(memory: float, seed: int) -> bool:
    steps = 1 + ar1(memory, 6000, 0.08, seed)
    end = next((end for end in range(120, len(steps), 40) if is_precise(steps[:end].tolist(), WINDOW)), len(steps))
    return _holds(steps[find_steady_state(steps[:end], WINDOW.warmup_steps).warmup_steps : end])


if __name__ == "__main__":
    main()
