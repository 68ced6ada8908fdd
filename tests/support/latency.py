"""Measurements of latency whose truth is put in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.analysis.latency.claim import claim_of
from harness.analysis.latency.figures import Turn
from harness.analysis.latency.job import Job
from harness.analysis.latency.kernels import KernelProfile, KernelUse
from harness.analysis.latency.stored import LatencyRecord, turn_values
from harness.analysis.latency.table import rows_of
from harness.latency.processes import EngineFailed, Timed

ONEDNN, PLAIN = "paddle-onednn", "paddle"
JOB = Job(("x0_25", "x1_0"), (ONEDNN, PLAIN), "cpu", rounds=10, turn_seconds=0.1, cores=(1,))
# Milliseconds of a call, by size and engine.
TRUTH = {("x0_25", ONEDNN): 2.0, ("x1_0", ONEDNN): 5.0, ("x0_25", PLAIN): 5.0, ("x1_0", PLAIN): 25.0}


def a_turn(size: str = "x1_0", engine: str = ONEDNN, number: int = 0, ms: float = 5.0, **more: Any) -> Turn:
    """A turn of 40 calls of this length, every tenth of which takes twice as long."""
    values = {"milliseconds": tuple(2 * ms if call % 10 == 9 else ms for call in range(40)), "warmup_calls": 0,
              "seconds": 0.3, **more}  # fmt: skip
    return Turn(size=size, engine=engine, round=number, **values)


def turns_of(size: str, engine: str, medians: Sequence[float], **more: Any) -> list[Turn]:
    """A turn for each of these medians, in rounds one after another."""
    return [a_turn(size, engine, number, ms, **more) for number, ms in enumerate(medians)]


def spread(middle: float, share: float = 0.001, count: int = 10) -> list[float]:
    """Values around a middle, which is their median, from 1 - share to 1 + share of it."""
    return [middle * (1 + share * (2 * place / (count - 1) - 1)) for place in range(count)]


def a_record(
    job: Job = JOB, truth: Mapping[tuple[str, str], float] = TRUTH, name: str = "it", share: float = 0.001, **more: Any
) -> LatencyRecord:
    """A record of a measurement in which each size takes as long as the truth says."""
    turns = [turn for pair in job.pairs for turn in turns_of(*pair, spread(truth[pair], share, job.rounds))]
    by_size: dict[str, dict[str, list[Turn]]] = {engine: {size: [] for size in job.sizes} for engine in job.engines}
    for turn in turns:
        by_size[turn.engine][turn.size].append(turn)
    claims = [claim_of(engine, by_size[engine], job) for engine in job.engines]
    values = {
        "device_name": "AMD EPYC",
        "weights": "random weights",
        "meter": "",
        "begun_unix_seconds": 1_795_000_000.0,
        "environment": {"cpu": "AMD EPYC"},
        "rows": tuple(rows_of(job, turns, {})),
        "turns": turn_values(turns),
        "claims": tuple(claim for claim in claims if claim is not None),
        "profiles": (
            KernelProfile("x1_0", ONEDNN, "Intel AVX2", 6.0, (KernelUse("convolution", "jit:avx2", 28.0, 4.5),)),
            KernelProfile("x1_0", PLAIN, "", 26.0, ()),
        ),
        **more,
    }  # fmt: skip
    return LatencyRecord(name=name, job=job, **values)


# What a size's load or turn raises, if anything.
Failing = Callable[[str, str], EngineFailed | None]


def never(size: str, what: str) -> None:
    """Nothing fails."""


class FakeTimer:
    """An engine whose calls take what is put in; asked are the sizes in the order in which they were timed."""

    def __init__(self, truth: Mapping[str, float], asked: list[str], failing: Failing = never) -> None:
        self.truth, self.asked = truth, asked
        self.failing = failing

    def load(self, size: str) -> None:
        """Load nothing."""
        if failed := self.failing(size, "load"):
            raise failed

    def time(self, size: str, seconds: float, min_calls: int) -> Timed:
        """Calls as long as the truth says, the first five of which take three times as long."""
        self.asked.append(size)
        if failed := self.failing(size, "time"):
            raise failed
        ms = self.truth[size]
        count = max(min_calls, int(1000 * seconds / ms))
        return Timed(tuple(3 * ms if call < 5 else ms * (1 + call % 3 / 1000) for call in range(count)), 1e-6)
