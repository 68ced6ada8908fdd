"""Times every size with every engine in turns; an engine that fails is kept from the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from harness.analysis.latency.figures import MIN_CALLS, Turn, warmup_of
from harness.analysis.latency.job import Job
from harness.latency.energy import Meter
from harness.latency.processes import EngineFailed, Timer

Item = TypeVar("Item")
# What a turn has at least, so that some of its calls may be warm-up and the others have a 95th percentile.
MIN_TURN_CALLS = MIN_CALLS + 10
# Longer than Intel's OpenMP keeps the threads of an engine busy whose turn has ended (KMP_BLOCKTIME, 0.2 s).
SETTLE_SECONDS = 0.25


class Looker(Protocol):
    """What notices disturbances of a turn."""

    def begin(self) -> None:
        """Start to look."""

    def end(self) -> tuple[str, ...]:
        """Returns what has disturbed the time since `begin`."""


@dataclass(slots=True)
class Measured:
    """The turns that were made, and by size and engine why one has no figures."""

    turns: list[Turn] = field(default_factory=list)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, engine: str) -> dict[str, list[Turn]]:
        """The turns of an engine by size, without the sizes that failed."""
        found: dict[str, list[Turn]] = {}
        for turn in self.turns:
            if turn.engine == engine and (turn.size, engine) not in self.failures:
                found.setdefault(turn.size, []).append(turn)
        return found


def in_turn(items: Sequence[Item], number: int) -> list[Item]:
    """Returns the items in the order of a round: it begins with the next item each time, and every other goes backward.

    So no item is always first, and each comes after either of its neighbours.
    """
    place = number % len(items)
    order = [*items[place:], *items[:place]]
    return order[::-1] if number % 2 else order


@dataclass(slots=True)
class Rounds:
    """A measurement that is carried out: timers by engine, what looks at the host, and what counts energy."""

    job: Job
    timers: Mapping[str, Timer]
    looker: Looker
    meter: Meter
    measured: Measured = field(default_factory=Measured)
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def load(self) -> None:
        """Load every size into every engine. What fails is noted, and not timed."""
        for size, engine in self.job.pairs:
            if (size, engine) not in self.measured.failures:
                try:
                    self.timers[engine].load(size)
                except EngineFailed as failed:
                    self._failed(size, engine, failed)

    def make(self, number: int) -> None:
        """Make a round, from 0: each size with each engine has a turn.

        The engines of a size follow one another, so that their ratio is of moments close in time.
        """
        for size in in_turn(self.job.sizes, number):
            for engine in in_turn(self.job.engines, number):
                if (size, engine) in self.measured.failures:
                    continue
                try:
                    self.measured.turns.append(self._turn(size, engine, number))
                except EngineFailed as failed:
                    self._failed(size, engine, failed)

    def _turn(self, size: str, engine: str, number: int) -> Turn:
        if self.job.threads > 1 and len(self.job.engines) > 1:
            self.pause(SETTLE_SECONDS)
        self.looker.begin()
        begun, before = self.clock(), self.meter.joules()
        timed = self.timers[engine].time(size, self.job.turn_seconds, MIN_TURN_CALLS)
        after, seconds = self.meter.joules(), self.clock() - begun
        disturbed = self.looker.end()
        return Turn(
            size=size,
            engine=engine,
            round=number,
            milliseconds=timed.milliseconds,
            warmup_calls=warmup_of(timed.milliseconds),
            seconds=seconds,
            logits_error=timed.logits_error,
            disturbed=disturbed,
            joules=None if before is None or after is None else after - before,
        )

    def _failed(self, size: str, engine: str, failed: EngineFailed) -> None:
        """Note why a size has no figures with an engine; a process that is over can't time the other sizes either."""
        failures = self.measured.failures
        failures[size, engine] = failed.reason
        if failed.is_over:
            for other in self.job.sizes:
                failures.setdefault((other, engine), f"not timed: with {size} the engine {failed.reason}")
