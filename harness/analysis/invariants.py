"""Checks what must hold for a run's figures whatever was measured; a violation is an error in the harness."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from harness.analysis.ledger import MAX_REST, Ledger
from harness.analysis.window import PhaseFigures
from harness.artifacts.schema import TRAIN
from harness.errors import InvariantError
from harness.plan.plan import RunPlan
from models.words import count_of

if TYPE_CHECKING:
    import pandas as pd

# For figures that are written with 6 to 9 decimals.
TOLERANCE = 1e-4


def check_run(
    steps: pd.DataFrame,
    phases: Mapping[str, PhaseFigures],
    ledger: Ledger,
    plan: RunPlan,
) -> None:
    """Raise InvariantError, which lists every contradiction, unless the run's figures are consistent."""
    broken = [
        *_steps(steps, plan),
        *(line for name, figures in phases.items() for line in _phase(name, figures)),
        *_ledger(ledger),
    ]
    if broken:
        raise InvariantError(
            "the run's figures contradict one another: " + "; ".join(broken),
            "This is an error in the harness: no row was written. Please report it, with the run's files.",
        )


def _steps(steps: pd.DataFrame, plan: RunPlan) -> Iterator[str]:
    parts = steps[["data_wait_seconds", "copy_seconds", "compute_seconds", "recording_seconds", "exchange_seconds"]]
    if (parts < -TOLERANCE).any().any():
        yield "a part of a step is negative"
    off = (parts.sum(axis=1) - steps["step_seconds"]).abs() > TOLERANCE
    if off.any():
        first = int(off.idxmax()) + 1
        yield f"the parts of {count_of(int(off.sum()), 'step')} don't add up to step_seconds, first in row {first}"
    if (steps["data_wait_seconds"] > steps["step_seconds"] + TOLERANCE).any():
        yield "a step waited longer for data than it lasted"
    trained = steps[steps["phase"] == TRAIN]
    if (trained["images"] != plan.global_batch).any():
        yield f"training steps had {sorted(set(trained['images']))} images, but {plan.global_batch} were planned"


def _phase(name: str, figures: PhaseFigures) -> Iterator[str]:
    percentiles = [figures.step_seconds_p50, figures.step_seconds_p95, figures.step_seconds_p99]
    known = [value for value in percentiles if value is not None]
    if known != sorted(known):
        yield f"{name}: percentiles {known} don't increase"
    if not math.isclose(figures.fps * figures.window_seconds, figures.images, rel_tol=TOLERANCE):
        yield (
            f"{name}: {figures.fps:.6f} images/s over {figures.window_seconds:.6f} s don't make {figures.images} images"
        )
    if not 0.0 <= figures.data_wait_share <= 1.0 + TOLERANCE:
        yield f"{name}: steps wait for data {figures.data_wait_share:.2%} of the window"
    if figures.fps_low is not None and figures.fps_low > figures.fps:
        yield f"{name}: the interval from {figures.fps_low:.3f} doesn't contain {figures.fps:.3f} images/s"
    if figures.fps_high is not None and figures.fps_high < figures.fps:
        yield f"{name}: the interval to {figures.fps_high:.3f} doesn't contain {figures.fps:.3f} images/s"


def _ledger(ledger: Ledger) -> Iterator[str]:
    if abs(ledger.rest_seconds) > MAX_REST * ledger.wall_seconds:
        yield f"{ledger.rest_seconds:.3f} s of the window's {ledger.wall_seconds:.3f} s are in no bucket, or in two"
