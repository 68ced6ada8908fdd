"""The published claim, judged on latencies that are put in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from harness.analysis.latency.claim import Claim, claim_of, exponent, top1_per_ms
from harness.analysis.latency.figures import Turn
from models.flops import macs
from models.sizes import SIZES
from tests.support.latency import JOB, ONEDNN, spread, turns_of

PUBLISHED = {size: one.latency_ms for size, one in SIZES.items()}


def judged(milliseconds: Mapping[str, float], share: float = 0.001, rounds: int = 10) -> Claim:
    turns = {size: turns_of(size, ONEDNN, spread(ms, share, rounds)) for size, ms in milliseconds.items()}
    found = claim_of(ONEDNN, turns, JOB)
    assert found is not None
    return found


def test_the_published_latencies_fulfil_the_claim() -> None:
    found = judged(PUBLISHED)
    assert found.sizes == tuple(SIZES)
    assert found.in_order
    assert (found.faster, found.alike) == ((), ())
    assert found.growth.median == pytest.approx(5.39 / 1.74, rel=1e-3)
    assert found.published_growth == pytest.approx(3.0977, abs=1e-4)
    assert found.macs_growth == pytest.approx(893.72 / 16.77, rel=1e-3)
    assert found.exponent == pytest.approx(found.published_exponent, rel=1e-3)
    assert 0.25 < found.published_exponent < 0.3
    assert found.by_value == found.published_by_value == (
        "x0_5", "x0_35", "x0_25", "x0_75", "x1_0", "x1_5", "x2_0", "x2_5"
    )  # fmt: skip
    assert found.agreeing == found.pairs == 28


def test_twice_the_published_latencies_fulfil_it_as_well() -> None:
    found = judged({size: 2 * ms for size, ms in PUBLISHED.items()})
    assert (found.in_order, found.agreeing) == (True, 28)
    assert found.growth.median == pytest.approx(found.published_growth, rel=1e-3)


def test_latency_in_proportion_to_the_work_does_not() -> None:
    found = judged({size: macs(size) / 1e7 for size in SIZES})
    assert found.in_order
    assert found.almost_constant is False
    assert found.exponent == pytest.approx(1.0, abs=1e-3)
    assert found.growth.median == pytest.approx(found.macs_growth, rel=1e-3)
    # The less work, the more accuracy in a millisecond: as published only among those from x0_5 on, and with them.
    assert found.by_value == tuple(SIZES)
    assert found.agreeing < 28


def test_constant_latency_fulfils_it_better_than_published() -> None:
    found = judged(dict.fromkeys(SIZES, 3.0))
    assert found.almost_constant is True
    assert found.in_order
    assert len(found.alike) == 7
    assert found.exponent == pytest.approx(0.0, abs=1e-3)
    assert found.by_value[0] == "x2_5"


def test_noise_may_leave_it_open() -> None:
    found = judged({"x0_25": 1.74, "x2_5": 5.39}, rounds=5)
    assert found.almost_constant is None
    assert found.in_order
    turns = {
        "x0_25": turns_of("x0_25", ONEDNN, [1.74] * 10),
        "x2_5": turns_of("x2_5", ONEDNN, spread(5.39, 0.1)),
    }
    open_still = claim_of(ONEDNN, turns, JOB)
    assert open_still is not None
    assert open_still.almost_constant is None


def test_a_more_accurate_size_that_is_quicker_is_out_of_order() -> None:
    found = judged({**PUBLISHED, "x0_75": 1.9})
    assert not found.in_order
    assert found.faster == (("x0_5", "x0_75"),)
    turns = {
        "x0_5": turns_of("x0_5", ONEDNN, [2.0] * 10),
        "x0_75": turns_of("x0_75", ONEDNN, [1.8, 1.9, 1.95, 1.9, 1.9, 1.95, 2.2, 2.1, 2.3, 2.2]),
    }
    unsure = claim_of(ONEDNN, turns, JOB)
    assert unsure is not None
    assert (unsure.faster, unsure.alike) == ((), (("x0_5", "x0_75"),))


def test_one_size_is_no_claim() -> None:
    one: dict[str, list[Turn]] = {"x1_0": turns_of("x1_0", ONEDNN, [5.0] * 10), "x2_0": []}
    assert claim_of(ONEDNN, one, JOB) is None
    assert claim_of(ONEDNN, {}, JOB) is None
    apart = {"x0_5": turns_of("x0_5", ONEDNN, [2.0]), "x1_0": turns_of("x1_0", ONEDNN, [5.0, 5.0])[1:]}
    assert claim_of(ONEDNN, apart, JOB) is None


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_the_exponent_of_a_power_law(power: float) -> None:
    work = [1.0, 4.0, 9.0, 100.0]
    assert exponent(work, [7.0 * one**power for one in work]) == pytest.approx(power)


def test_accuracy_in_a_millisecond() -> None:
    assert top1_per_ms("x1_0", 2.46) == pytest.approx(71.32 / 2.46)
    assert math.isclose(max(top1_per_ms(size, ms) for size, ms in PUBLISHED.items()), 63.14 / 2.05)
