"""Where the time of a start goes: the seconds of each stage, from the command to the end of the first step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.artifacts.liveness import started_unix_seconds
from harness.training.loop import GlobalStep

PREPARATION, LAUNCHER, IMPORTS, RENDEZVOUS = "preparation", "launcher", "imports", "rendezvous"
DATA_SET, MODEL, LOADER, FIRST_BATCH, FIRST_STEP = "data_set", "model", "loader", "first_batch", "first_step"
# In the order in which they follow one another; docs/record.md has their meaning.
STAGES = (PREPARATION, LAUNCHER, IMPORTS, RENDEZVOUS, DATA_SET, MODEL, LOADER, FIRST_BATCH, FIRST_STEP)


@dataclass(slots=True)
class Startup:
    """The stages that are over, with their seconds, and when the last of them ended by the clock `now`.

    Each stage begins where the one before ended, so that their sum is the time from the command.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    now: Callable[[], float] = time.perf_counter
    reached_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.reached_at = self.now()

    def reach(self, stage: str, at: float | None = None) -> None:
        """End a stage, now or at a moment of the clock."""
        at = self.now() if at is None else at
        self.seconds[stage] = max(0.0, at - self.reached_at)
        self.reached_at = at

    def reach_first_step(self, step: GlobalStep, phase_started_at: float) -> None:
        """End the last three stages, if the step is this rank's first; phase_started_at is that of its phase."""
        if FIRST_STEP not in self.seconds:
            end = phase_started_at + step.end_seconds
            self.reach(LOADER, end - step.step_seconds)
            self.reach(FIRST_BATCH, end - step.step_seconds + step.data_wait_seconds)
            self.reach(FIRST_STEP, end)


def rank_startup(attempt: Mapping[str, Any]) -> Startup:
    """The start of this rank's process, whose modules are loaded, in the run's last attempt.

    The stages of other processes are told apart by the time of day, which the attempt has.
    """
    begun, recorded, rank = (
        attempt["begun_unix_seconds"], attempt["started_unix_seconds"], started_unix_seconds()
    )  # fmt: skip
    moments = {PREPARATION: (begun, recorded), LAUNCHER: (recorded, rank), IMPORTS: (rank, time.time())}
    return Startup({stage: max(0.0, end - begin) for stage, (begin, end) in moments.items()})
