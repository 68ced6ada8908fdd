"""A machine for the tuner whose rates are known: trials of any candidate take no time, and have the noise put in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.tuning.knobs import Scope
from harness.analysis.tuning.trial import Candidate, Trial
from harness.machine.device_kinds import CPU

SCOPE = Scope(cores=2, device=CPU, opencv=True, fused=True)
DEFAULT = Candidate.of(
    amp="off", batch_size=16, compute_threads=2, decode_threads=2, decoder="cpu", hw_decoder_load=0.65, layout="nchw",
    loader="dali", prefetch=2, resize="auto", workers=4,
)  # fmt: skip


@dataclass
class Machine:
    """Rates in images per second by candidate, as a function, and the noise of each trial.

    compute is the rate without data. spread is the standard deviation between runs, error that within a window.
    disturb says by the trial's number what disturbs it, by which it is half as fast. broken candidates fail.
    """

    rate: Callable[[Candidate], float]
    compute: float
    spread: float = 0.013
    error: float = 0.01
    seed: int = 0
    seconds: float = 15.0
    disturb: Callable[[int], Sequence[str]] = lambda _: ()
    broken: Callable[[Candidate], bool] = lambda _: False
    made: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def run(self, candidate: Candidate, purpose: str) -> Trial:
        """A trial of the candidate."""
        number = len(self.made) + 1
        if self.broken(candidate):
            trial = Trial(number, purpose, candidate, self.seconds, failure="it does not fit into memory")
        else:
            disturbed = tuple(self.disturb(number))
            noise = math.hypot(self.spread, self.error) * self._random.standard_normal()
            fps = self.rate(candidate) * math.exp(noise) * (0.5 if disturbed else 1.0)
            trial = Trial(
                number, purpose, candidate, self.seconds, run=f"t{number:03}", settings=candidate.as_dict(), fps=fps,
                relative_standard_error=self.error, degrees_of_freedom=30.0, compute_fps=self.compute,
                pipeline_fps=self.rate(candidate), data_gain=self.compute / fps,
                bottleneck="compute" if fps > 0.8 * self.compute else "pipeline", disturbed=disturbed,
            )  # fmt: skip
        self.made.append(trial)
        return trial


# The fastest of all combinations, in images per second.
BEST = 400.0


def loader_bound(candidate: Candidate) -> float:
    """Rates of a training that waits for its loader: most with three threads, four batches ahead, fused operators."""
    threads = {1: 0.55, 2: 0.9, 3: 1.0, 4: 0.97}[candidate["decode_threads"]]
    ahead = {1: 0.85, 2: 0.96, 3: 1.0, 4: 1.0, 6: 0.99, 8: 0.98, 12: 0.95}[candidate["prefetch"]]
    resize = {"auto": 1.0, "dali": 0.6}[candidate["resize"]]
    return BEST * threads * ahead * resize * (0.3 if candidate["loader"] == "opencv" else 1.0)
