"""Every second of a window in one bucket."""

from __future__ import annotations

import math

import pytest

from harness.analysis.ledger import time_ledger
from harness.artifacts.schema import CHECKPOINT, COMPUTE, EVALUATE, PIPELINE
from tests.support.frames import steps_frame


def test_buckets_of_one_block() -> None:
    ledger = time_ledger(steps_frame(*[{}] * 10))
    assert ledger.wall_seconds == pytest.approx(1.0)
    assert ledger.data_wait_seconds == pytest.approx(0.2)
    assert (ledger.forward_seconds, ledger.backward_seconds, ledger.optimizer_seconds) == pytest.approx((0.2, 0.4, 0.2))
    assert ledger.compute_seconds == ledger.evaluation_seconds == ledger.checkpoint_seconds == 0.0
    assert ledger.rest_seconds == pytest.approx(0.0, abs=1e-9)


def test_the_warm_up_is_not_in_it() -> None:
    ledger = time_ledger(steps_frame({"warmup": 1, "step_seconds": 5.0}, *[{}] * 10))
    assert ledger.wall_seconds == pytest.approx(1.0)


def test_recording_and_what_else_lies_between_steps() -> None:
    row = {"step_seconds": 0.13, "recording_seconds": 0.01, "exchange_seconds": 0.02}
    ledger = time_ledger(steps_frame(*[row] * 10))
    assert ledger.recording_seconds == pytest.approx(0.1)
    assert ledger.exchange_seconds == pytest.approx(0.2)
    assert ledger.rest_seconds == pytest.approx(0.0, abs=1e-9)


def test_steps_whose_parts_nobody_marked_are_compute() -> None:
    unmarked = dict.fromkeys(("forward_seconds", "backward_seconds", "optimizer_seconds"), math.nan)
    ledger = time_ledger(steps_frame(*[{}] * 5, *[unmarked] * 5))
    assert ledger.compute_seconds == pytest.approx(0.4)
    assert ledger.forward_seconds == pytest.approx(0.1)


def test_other_phases_of_a_throughput_run_are_not_in_it() -> None:
    rows = [{"segment": 1}] * 5 + [{"segment": 2, "phase": COMPUTE}] * 7 + [{"segment": 3, "phase": PIPELINE}] * 2
    ledger = time_ledger(steps_frame(*rows, *[{"segment": 4}] * 5))
    assert ledger.wall_seconds == pytest.approx(1.0)
    assert ledger.rest_seconds == pytest.approx(0.0, abs=1e-9)


def test_a_run_of_epochs_has_its_evaluations_its_checkpoints_and_what_lies_between() -> None:
    frame = steps_frame(
        *[{"segment": 1}] * 5,
        *[{"segment": 2, "phase": EVALUATE, "step_seconds": 0.3}] * 2,
        {"segment": 3, "phase": CHECKPOINT, "step_seconds": 0.25},
        *[{"segment": 4}] * 5,
    )
    frame.loc[frame["segment"] == 4, "time_unix_seconds"] += 0.07  # an epoch's row, averages, a barrier
    ledger = time_ledger(frame)
    assert ledger.evaluation_seconds == pytest.approx(0.6)
    assert ledger.checkpoint_seconds == pytest.approx(0.25)
    assert ledger.exchange_seconds == pytest.approx(0.07)
    assert ledger.wall_seconds == pytest.approx(1.0 + 0.6 + 0.25 + 0.07)
    assert ledger.rest_seconds == pytest.approx(0.0, abs=1e-9)


def test_the_time_for_which_a_run_was_stopped_is_nobodys() -> None:
    """Two hours before block 4, of which a step is warm-up again, and 0.07 s before block 2."""
    frame = steps_frame(
        *[{"segment": 1}] * 5,
        *[{"segment": 2, "phase": EVALUATE, "step_seconds": 0.3}] * 2,
        *[{"segment": 3}] * 5,
        {"segment": 4, "warmup": 1, "step_seconds": 4.0},
        *[{"segment": 4}] * 5,
        *[{"segment": 5, "phase": EVALUATE, "step_seconds": 0.3}] * 2,
    )
    frame.loc[frame["segment"] >= 2, "time_unix_seconds"] += 0.07
    frame.loc[frame["segment"] >= 4, "time_unix_seconds"] += 7200.0
    ledger = time_ledger(frame, breaks=[4])
    assert ledger.wall_seconds == pytest.approx(1.5 + 4 * 0.3 + 0.07)
    assert ledger.exchange_seconds == pytest.approx(0.07)
    assert ledger.rest_seconds == pytest.approx(0.0, abs=1e-6)
    # Without being told, it would be time between two phases.
    assert time_ledger(frame).exchange_seconds == pytest.approx(7200.0 + 4.0 + 0.07)


def test_an_attempt_that_is_all_warm_up_is_nobodys_either() -> None:
    frame = steps_frame(*[{"segment": 1}] * 5, *[{"segment": 2, "warmup": 1}] * 3, *[{"segment": 3}] * 5)
    frame.loc[frame["segment"] >= 2, "time_unix_seconds"] += 100.0
    frame.loc[frame["segment"] >= 3, "time_unix_seconds"] += 1000.0
    ledger = time_ledger(frame, breaks=[2, 3])
    assert (ledger.wall_seconds, ledger.exchange_seconds) == pytest.approx((1.0, 0.0))


def test_a_row_that_is_missing_shows_as_a_rest() -> None:
    whole = steps_frame(*[{}] * 10)
    assert time_ledger(whole.drop(index=4)).rest_seconds == pytest.approx(0.1)
