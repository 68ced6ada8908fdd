"""Where the time of a measured window went: every second in exactly one bucket."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

import pandas as pd

from harness.artifacts.schema import CHECKPOINT, EVALUATE, TRAIN

# What may lie in no bucket, as a share of the window.
MAX_REST = 0.005


@dataclass(frozen=True, slots=True)
class Ledger:
    """Seconds of the window's wall-clock time. compute_seconds is what a step's consumer didn't tell apart.

    The window is training's, from its first measured step on: of a throughput run its measured blocks, of a run of
    epochs all that followed, evaluation included. recording and other are what lies between two steps (the ranks'
    exchange of records, the change from one phase to the next). rest_seconds is the wall-clock time that no row and no
    gap between rows accounts for.
    """

    wall_seconds: float
    data_wait_seconds: float
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
    """The ledger of a marked steps table whose training window isn't empty.

    breaks are the first blocks of a resumed run's later attempts: the time before them belongs to nobody.
    """
    training = steps[(steps["phase"] == TRAIN) & (steps["warmup"] == 0)]
    # A throughput run's other phases are measured for themselves; what follows an epoch's training belongs to the run.
    window = steps.loc[training.index[0] :]
    window = window[window["phase"].isin((TRAIN, EVALUATE, CHECKPOINT)) & (window["warmup"] == 0)]
    wall, between = _wall_seconds(window, breaks)
    train = window[window["phase"] == TRAIN]
    parts = ("forward_seconds", "backward_seconds", "optimizer_seconds")
    told_apart = train[list(parts)].notna().all(axis=1)

    def seconds_of(phase: str) -> float:
        return math.fsum(window.loc[window["phase"] == phase, "step_seconds"])

    return Ledger(
        wall_seconds=wall,
        data_wait_seconds=math.fsum(train["data_wait_seconds"]),
        forward_seconds=math.fsum(train.loc[told_apart, "forward_seconds"]),
        backward_seconds=math.fsum(train.loc[told_apart, "backward_seconds"]),
        optimizer_seconds=math.fsum(train.loc[told_apart, "optimizer_seconds"]),
        compute_seconds=math.fsum(train.loc[~told_apart, "compute_seconds"]),
        evaluation_seconds=seconds_of(EVALUATE),
        checkpoint_seconds=seconds_of(CHECKPOINT),
        recording_seconds=math.fsum(train["recording_seconds"]),
        exchange_seconds=math.fsum(train["exchange_seconds"]) + between,
    )


def _wall_seconds(window: pd.DataFrame, breaks: Collection[int]) -> tuple[float, float]:
    """Wall-clock seconds by the rows' times of day, and those of them between one block and the next."""
    segments = window.groupby("segment", sort=False)
    begins = segments["time_unix_seconds"].first() - segments["step_seconds"].first()
    ends = segments["time_unix_seconds"].last()
    # Of blocks that follow one another the time between belongs to the run; otherwise another phase lies there, or a
    # warm-up, or the time in which the run was stopped.
    numbers = begins.index.to_series()
    follows = ((numbers.diff() == 1) & ~numbers.isin(list(breaks))).to_numpy()[1:]
    gaps = (begins.to_numpy()[1:] - ends.to_numpy()[:-1])[follows]
    between = math.fsum(gaps)
    return math.fsum(ends - begins) + between, between
