"""Which rates make a verdict doubtful; what is scripted here is put into whole runs in test_stopped_runs.py."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.outliers import Outliers
from harness.analysis.verdict import MEASURE_AGAIN, Verdict, find_doubts, judge
from harness.analysis.window import PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN
from tests.support.plans import GPU_SETTING, rate


def disturbed(fps: float, share: float, error: float | None = 0.002) -> PhaseFigures:
    """A phase of which one step took that share of the time."""
    usual = fps / (1 - share)
    return rate(fps, error, outliers=Outliers(1, 1000 / fps * share, share, 1, share, usual))


def phases(pipeline: float, compute: float, train: float, error: float | None = 0.002) -> dict[str, PhaseFigures]:
    return {PIPELINE: rate(pipeline, error), COMPUTE: rate(compute, error), TRAIN: rate(train, error)}


def names(found: dict[str, PhaseFigures]) -> list[str]:
    return [doubt.name for doubt in find_doubts(found)]


def verdict(found: dict[str, PhaseFigures]) -> Verdict:
    return judge(found, GPU_SETTING)


@pytest.mark.parametrize(
    ("found", "doubts"),
    [
        (phases(1000, 300, 290), []),
        # noise: within the interval, or so little that one interval in twenty misses it
        (phases(1000, 300, 303), []),
        (phases(1000, 300, 350, error=0.1), []),
        (phases(1000, 300, 305, error=0.0), []),
        (phases(1000, 300, 350), ["compute_too_slow"]),
        (phases(250, 300, 280), ["pipeline_too_slow"]),
        (phases(250, 270, 290), ["pipeline_too_slow", "compute_too_slow"]),
        # without intervals only a clear difference
        (phases(1000, 300, 350, error=None), []),
        (phases(1000, 300, 370, error=None), ["compute_too_slow"]),
    ],
)
def test_a_phase_with_less_to_do_can_not_be_slower(found: dict[str, PhaseFigures], doubts: list[str]) -> None:
    assert names(found) == doubts
    made = verdict(found)
    assert (made.bottleneck == "uncertain") == bool(doubts)
    assert not (made.certain and doubts)
    if doubts:
        assert made.remedies == (MEASURE_AGAIN,)


def test_without_exchange_is_not_slower_than_with_it() -> None:
    found = {**phases(1000, 300, 290), COMPUTE_NO_SYNC: rate(250)}
    assert names(found) == ["compute_no_sync_too_slow"]
    assert verdict(found).bottleneck == "uncertain"
    assert names({**found, COMPUTE_NO_SYNC: rate(298)}) == []


@pytest.mark.parametrize(
    ("share", "error", "doubts"),
    [
        (0.04, 0.002, []),
        (0.06, 0.002, ["compute_disturbed"]),
        # of a few steps without an interval any may stand out a little
        (0.06, None, []),
        (0.2, None, ["compute_disturbed"]),
    ],
)
def test_steps_that_took_much_of_a_phase_disturb_it(share: float, error: float | None, doubts: list[str]) -> None:
    assert names({**phases(1000, 300, 150), COMPUTE: disturbed(300, share, error)}) == doubts


def test_the_interval_of_a_disturbed_phase_excuses_nothing() -> None:
    """A stop makes its phase's interval so wide that any rate would lie in it."""
    found = {**phases(1600, 300, 321), COMPUTE: disturbed(78.7, 0.756, error=0.5)}
    assert names(found) == ["compute_disturbed", "compute_too_slow"]


def test_a_disturbance_that_leaves_the_answer_makes_it_uncertain_and_no_more() -> None:
    found = {**phases(100, 1000, 90), COMPUTE: disturbed(700, 0.3)}
    made = verdict(found)
    assert (made.bottleneck, made.certain) == ("pipeline", False)
    assert made.remedies[0] == MEASURE_AGAIN
    assert len(made.remedies) > 1
    assert [doubt.reason for doubt in made.doubts] == ["compute only was disturbed"]
    assert made.doubts[0].detail == (
        "1 step of compute only took 0.4 s longer than usual, 30.0% of the phase's time. Without: 1000.0 images/s."
    )


def test_a_disturbance_that_changes_the_answer_leaves_none() -> None:
    """Compute-only would be the faster one without the steps that disturbed it."""
    found = {**phases(500, 300, 200), COMPUTE: disturbed(300, 0.7)}
    made = verdict(found)
    assert (made.bottleneck, made.certain, made.remedies) == ("uncertain", False, (MEASURE_AGAIN,))
    assert verdict(phases(500, 300, 200)).bottleneck == "compute"


def test_rates_that_can_not_be_right_are_named_with_their_figures() -> None:
    (doubt,) = find_doubts(phases(1000, 300, 350))
    assert doubt.reason == "can't be right: compute only was slower than end to end"
    assert doubt.detail == (
        "Compute only has less to do than end to end, but was slower (300.0 and 350.0 images/s): one of them was"
        " disturbed, or has too few steps."
    )


def test_phases_that_were_not_measured_are_not_doubted() -> None:
    found: dict[str, Any] = {TRAIN: rate(100)}
    assert find_doubts(found) == ()
