"""Where the time of a start goes, by a clock of the test's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.artifacts.liveness import started_unix_seconds
from harness.training.loop import pause
from harness.training.startup import STAGES, Startup, rank_startup


def ticking(*moments: float) -> Startup:
    """A start whose clock shows these moments, one after another."""
    clock: Iterator[float] = iter(moments)
    return Startup(now=lambda: next(clock))


def test_each_stage_begins_where_the_one_before_ended() -> None:
    startup = ticking(10.0, 10.5, 12.0)
    startup.reach("model")
    startup.reach("loader")
    assert startup.seconds == {"model": 0.5, "loader": 1.5}


def test_the_first_step_ends_the_last_three_stages_and_later_ones_none() -> None:
    """The phase starts at 20 s; the step begins 0.25 s later and waits 0.5 of its 2 s for its batch."""
    startup = ticking(17.0)
    step = replace(pause(2.0), end_seconds=2.25, data_wait_seconds=0.5, exchange_seconds=1.5)
    startup.reach_first_step(step, 20.0)
    startup.reach_first_step(replace(step, end_seconds=9.0), 20.0)
    assert startup.seconds == {"loader": 3.25, "first_batch": 0.5, "first_step": 1.5}
    assert startup.reached_at == 22.25


def test_the_stages_of_other_processes_are_told_apart_by_the_time_of_day() -> None:
    started = started_unix_seconds()
    startup = rank_startup({"begun_unix_seconds": started - 3.0, "started_unix_seconds": started - 2.0})
    assert list(startup.seconds) == list(STAGES[:3])
    assert startup.seconds["preparation"] == 1.0
    assert startup.seconds["launcher"] == pytest.approx(2.0, abs=0.1)
    assert startup.seconds["imports"] > 0.0


def test_a_clock_that_is_set_back_leaves_no_negative_stage() -> None:
    later = time.time() + 3600.0
    startup = rank_startup({"begun_unix_seconds": later + 1.0, "started_unix_seconds": later})
    assert (startup.seconds["preparation"], startup.seconds["launcher"]) == (0.0, 0.0)
