"""Finds the factor by which two stages' gains must differ to be distinguished, on simulated machines with noise.

usage: verdict_factor.py [--times 10] [--max-seconds 60]

Each machine is simulated without noise, complete and without each stage, for the true gain of removing that stage, and
then measured by the harness with noise: AR(1) of 5 % with phi 0.8 on every step and batch, and a drift of 2 % over
about 100 of them. Prints the table of docs/methodology.md: for each kind of machine and each factor, in per cent of the
measured runs, how often a stage was named that doesn't have the largest gain (wrong; if the two largest gains are equal
to 2 %, any named stage is wrong), how often a wrong result counted as certain, and how often the result was "shared"
although the largest gain is truly at least 1.25 times the next (missed). The last column is how often the rates were
doubtful, though nothing disturbed the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.analysis.remedies import COMMUNICATION_STAGE, COMPUTE_STAGE, PIPELINE_STAGE
from harness.analysis.verdict import SHARED, Bottleneck, find_bottleneck, find_doubts
from tests.support.machines import Machine
from tests.support.simulation import ar1

FACTORS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0)
RATIOS = (0.5, 0.7, 0.8, 0.87, 0.93, 1.0, 1.07, 1.15, 1.25, 1.4, 2.0)
# Seconds for a removed stage: 0 would make its rate infinite.
NOTHING = 1e-9
ALIKE_IN_TRUTH, FAR_APART = 1.02, 1.25
SERIES = 5_000

# Machines by the ratio of the smaller work to the larger, or of communication to computation.
KINDS: dict[str, Callable[[float], Machine]] = {
    "GPU, nothing shared": lambda ratio: Machine("gpu", decode_seconds=0.003 * ratio),
    "GPU, decoding slows training": lambda ratio: Machine(
        "gpu", decode_seconds=0.003 * ratio, decoding_slows_gpu=1.4
    ),
    "GPU, uneven batches": lambda ratio: Machine("gpu", decode_seconds=0.003 * ratio, burst=True),
    "CPU, one core for both": lambda ratio: Machine(cores=1, decode_seconds=0.003 * ratio),
    "CPU, three threads on two cores": lambda ratio: Machine(
        cores=2, compute_threads=2, decode_seconds=0.0015 * ratio
    ),
    "GPUs, exposed communication": lambda ratio: Machine(
        "gpu", ranks=2, decode_seconds=0.001, exchange_seconds=0.096 * ratio
    ),
    "CPU, communication and decoding": lambda ratio: Machine(
        ranks=2, decode_seconds=0.001, exchange_seconds=0.096 * ratio
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """The bottleneck that was found on a machine, by factor, the true gains, and whether the rates were doubtful."""

    truth: dict[str, float]
    found: dict[float, Bottleneck]
    doubted: bool

    @property
    def best(self) -> str:
        """The stage with the largest true gain."""
        return max(self.truth, key=lambda stage: self.truth[stage])

    @property
    def lead(self) -> float:
        """The largest true gain / the next."""
        first, second, *_ = sorted(self.truth.values(), reverse=True)
        return first / second

    def wrong(self, factor: float) -> bool:
        """Returns whether a stage was named that doesn't have the largest gain."""
        name = self.found[factor].name
        return name != SHARED and (name != self.best or self.lead < ALIKE_IN_TRUTH)

    def missed(self, factor: float) -> bool:
        """Returns whether no stage was named although one has a far larger gain than the next."""
        return self.found[factor].name == SHARED and self.lead >= FAR_APART


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--max-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    print("wrong / wrong and certain / missed, per cent")
    print("machine".ljust(33) + "runs  " + "".join(f"{factor:<18}" for factor in FACTORS) + "doubted")
    everything: list[Call] = []
    for kind, machine_of in KINDS.items():
        calls = []
        for ratio in RATIOS:
            machine = machine_of(ratio)
            truth = true_gains(machine)
            calls += [measure(machine, truth, seed, arguments.max_seconds) for seed in range(arguments.times)]
        _print_row(kind, calls)
        everything += calls
    _print_row("all", everything)


def true_gains(machine: Machine) -> dict[str, float]:
    """Returns the gain of removing each stage, on the machine without noise."""
    whole = machine.images_per_second()
    removed = {
        PIPELINE_STAGE: replace(machine, decode_seconds=NOTHING),
        COMPUTE_STAGE: replace(machine, compute_seconds=NOTHING),
    }
    if machine.exchange_seconds:
        removed[COMMUNICATION_STAGE] = replace(machine, exchange_seconds=0.0)
    return {stage: other.images_per_second() / whole for stage, other in removed.items()}


def measure(machine: Machine, truth: dict[str, float], seed: int, max_seconds: float) -> Call:
    """Returns what the harness finds on the machine with noise."""
    series = {
        (part, rank): 1 + ar1(0.8, SERIES, 0.05, 4 * (100 * seed + 10 * rank) + at)
        + ar1(0.99, SERIES, 0.02, 4 * (100 * seed + 10 * rank) + at + 2)
        for at, part in enumerate(("decode", "compute"))
        for rank in range(machine.ranks)
    }  # fmt: skip

    def noise(part: str, rank: int, number: int) -> float:
        return float(series[part, rank][number % SERIES])

    noisy = replace(machine, noise=noise, options={"max_seconds": max_seconds})
    with tempfile.TemporaryDirectory() as folder:
        phases = noisy.simulation().run(Path(folder))[0].phases
    return Call(truth, {factor: find_bottleneck(phases, factor) for factor in FACTORS}, bool(find_doubts(phases)))


def _print_row(kind: str, calls: list[Call]) -> None:
    cells = []
    for factor in FACTORS:
        wrong = [call for call in calls if call.wrong(factor)]
        certain = [call for call in wrong if call.found[factor].certain]
        missed = [call for call in calls if call.missed(factor)]
        shares = (100 * len(those) / len(calls) for those in (wrong, certain, missed))
        cells.append(" / ".join(f"{share:.1f}" for share in shares).ljust(18))
    doubted = 100 * sum(call.doubted for call in calls) / len(calls)
    print(kind.ljust(33) + f"{len(calls):<6}" + "".join(cells) + f"{doubted:.1f}", flush=True)


if __name__ == "__main__":
    main()
