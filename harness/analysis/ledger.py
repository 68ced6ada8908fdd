"""Where the time of a measured window went: every second in exactly one bucket."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.artifacts.schema import CHECKPOINT, EVALUATE, TRAIN

if TYPE_CHECKING:
    import pandas as pd

# The maximum share of the window that may be in no bucket.
MAX_REST = 0.005


@dataclass(frozen=True, slots=True)
class Ledger:
    """Seconds of the window's wall-clock time. compute_seconds is the part without a split into passes.

    The window is that of training, from its first measured step on: the measured segments of a throughput run, or
    everything that followed in a run of epochs, including evaluation. recording_seconds and exchange_seconds lie
    between two steps (the ranks' exchange of records, the change from one phase to the next). rest_seconds is the
    wall-clock time that neither a row nor a gap between rows accounts for.
    """

    wall_seconds: float
    data_wait_seconds: float
    copy_seconds: float
    forward_seconds: float
    backward_seconds: float
    optimizer_seconds: float
    compute_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float
    recording_seconds: float
    exchange_seconds: float

    @property
    def rest_seconds(self) -> float:
        """Wall-clock time in no bucket."""
        return self.wall_seconds - math.fsum(value for name, value in asdict(self).items() if name != "wall_seconds")


def time_ledger(steps: pd.DataFrame, breaks: Collection[int] = ()) -> Ledger:
    """Returns the ledger of a marked steps table whose training window isn't empty.

    breaks are the first segments of a resumed run's later attempts: the time before them isn't part of the run.
    """
    training = steps[(steps["phase"] == TRAIN) & (steps["warmup"] == 0)]
    # A throughput run's other phases are separate measurements; what follows an epoch's training is part of the run.
    window = steps.loc[training.index[0] :]
    window = window[window["phase"].isin((TRAIN, EVALUATE, CHECKPOINT)) & (window["warmup"] == 0)]
    wall, between = _wall_seconds(window, breaks)
    train = window[window["phase"] == TRAIN]
    parts = ("forward_seconds", "backward_seconds", "optimizer_seconds")
    split = train[list(parts)].notna().all(axis=1)

    def seconds_of(phase: str) -> float:
        return math.fsum(window.loc[window["phase"] == phase, "step_seconds"])

    return Ledger(
        wall_seconds=wall,
        data_wait_seconds=math.fsum(train["data_wait_seconds"]),
        copy_seconds=math.fsum(train["copy_seconds"]),
        forward_seconds=math.fsum(train.loc[split, "forward_seconds"]),
        backward_seconds=math.fsum(train.loc[split, "backward_seconds"]),
        optimizer_seconds=math.fsum(train.loc[split, "optimizer_seconds"]),
        compute_seconds=math.fsum(train.loc[~split, "compute_seconds"]),
        evaluation_seconds=seconds_of(EVALUATE),
        checkpoint_seconds=seconds_of(CHECKPOINT),
        recording_seconds=math.fsum(train["recording_seconds"]),
        exchange_seconds=math.fsum(train["exchange_seconds"]) + between,
    )


def _wall_seconds(window: pd.DataFrame, breaks: Collection[int]) -> tuple[float, float]:
    """Returns the wall-clock seconds by the rows' times of day, and those between one segment and the next."""
    segments = window.groupby("segment", sort=False)
    begins = segments["time_unix_seconds"].first() - segments["step_seconds"].first()
    ends = segments["time_unix_seconds"].last()
    # The time between consecutive segments is part of the run; other gaps hold another phase, a warm-up, or the time in
    # which the run was stopped.
    numbers = begins.index.to_series()
    follows = ((numbers.diff() == 1) & ~numbers.isin(list(breaks))).to_numpy()[1:]
    gaps = (begins.to_numpy()[1:] - ends.to_numpy()[:-1])[follows]
    between = math.fsum(gaps)
    return math.fsum(ends - begins) + between, between
