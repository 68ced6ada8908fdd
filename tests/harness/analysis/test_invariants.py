"""A run whose figures contradict one another is the harness's error and leaves no row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from harness.analysis.invariants import check_run
from harness.analysis.ledger import time_ledger
from harness.analysis.window import PhaseFigures, measure_phase
from harness.artifacts.schema import TRAIN
from harness.errors import InvariantError
from harness.machine.device import Devices
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import DataFacts, RunPlan
from pipelines.augmentation import Augmentation
from tests.support.frames import steps_frame

CONFIG = RunConfig(throughput_only=True, batch_size=32, decode_threads=3, prefetch=2, hw_decoder_load=0.75)


def plan() -> RunPlan:
    data = DataFacts("made", "made", 1000, 0, 10, Augmentation(), False, False)
    return make_plan(CONFIG, Devices("gpu", 1, "GPU"), data, {})


def check(steps: pd.DataFrame | None = None, figures: dict[str, Any] | None = None) -> None:
    table = steps_frame(*[{}] * 30)
    phase: PhaseFigures = replace(measure_phase(table), **(figures or {}))
    used = table if steps is None else steps
    check_run(used, {TRAIN: phase}, time_ledger(used), plan())


def test_figures_that_agree_pass() -> None:
    check()


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"step_seconds_p50": 0.2, "step_seconds_p95": 0.1}, "percentiles"),
        ({"step_seconds_p95": 0.3, "step_seconds_p99": 0.2}, "percentiles"),
        ({"fps": 400.0}, "don't make 960 images"),
        ({"data_wait_share": 1.2}, "steps wait for data"),
        ({"fps_low": 330.0}, "doesn't contain 320"),
        ({"fps_high": 310.0}, "doesn't contain 320"),
    ],
)
def test_a_phase_s_figures(figures: dict[str, Any], said: str) -> None:
    with pytest.raises(InvariantError, match=said) as caught:
        check(figures=figures)
    assert "no row was written" in caught.value.cure


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"data_wait_seconds": 0.03}, r"the parts of 1 step don't add up to step_seconds, first in row 6"),
        ({"data_wait_seconds": 0.12, "compute_seconds": -0.02}, "negative"),
        ({"data_wait_seconds": 0.12, "compute_seconds": -0.02}, "waited longer for data than it lasted"),
        ({"images": 31}, r"training steps had \[31, 32\] images, but 32 were planned"),
    ],
)
def test_a_step_s_parts(row: dict[str, Any], said: str) -> None:
    with pytest.raises(InvariantError, match=said):
        check(steps_frame(*[{}] * 5, row, *[{}] * 5))


def test_time_in_no_bucket() -> None:
    with pytest.raises(InvariantError, match=r"0.100 s of the window's 3.000 s are in no bucket, or in two"):
        check(steps_frame(*[{}] * 30).drop(index=7))
