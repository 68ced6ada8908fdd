"""What turns come to: percentiles of known calls, the warm-up, energy, what was disturbed, and ratios."""

from __future__ import annotations

import pytest

from harness.analysis.latency.figures import UNSTEADY, figures_of, ratio_of, warmup_of
from tests.support.latency import PLAIN, a_turn, spread, turns_of


def test_percentiles_of_a_turn() -> None:
    """1 to 100 ms: the 95th percentile lies between the 95th and the 96th value, at 0.05 of the way."""
    turn = a_turn(milliseconds=tuple(float(value) for value in range(100, 0, -1)))
    assert turn.median_ms == 50.5
    assert turn.p95_ms == pytest.approx(95.05)


def test_first_calls_that_are_warm_up_count_for_nothing() -> None:
    turn = a_turn(milliseconds=(90.0, 40.0, *[5.0] * 30), warmup_calls=2)
    assert turn.counted == (5.0,) * 30
    assert (turn.median_ms, turn.p95_ms) == (5.0, 5.0)
    assert figures_of([turn] * 6, 1).warmup_calls == 12


def test_fewer_than_20_calls_have_no_95th_percentile() -> None:
    turns = [a_turn(number=number, milliseconds=(5.0,) * 19) for number in range(10)]
    assert figures_of(turns, 1).p95 is None
    assert figures_of([*turns, a_turn(number=10)], 1).p95 is None


def test_the_warm_up_is_found_in_the_calls() -> None:
    """Caches still have another network's data: calls get faster until they are as fast as the others."""
    falling = [20.0, 15.0, 12.0, 9.0, 7.0, 6.0]
    calls = [*falling, *(5.0 + 0.01 * (call % 7) for call in range(200))]
    assert warmup_of(calls) == len(falling)
    assert warmup_of([5.0 + 0.01 * (call % 7) for call in range(200)]) == 0
    assert warmup_of([5.0] * 8) == 0


def test_a_few_slow_turns_move_neither_median_nor_percentile() -> None:
    turns = turns_of("x1_0", PLAIN, [5.0] * 8 + [50.0, 60.0])
    found = figures_of(turns, 1)
    assert (found.median.median, found.median.low, found.median.high) == (5.0, 5.0, 50.0)
    assert found.p95 is not None
    assert found.p95.median == 10.0
    assert found.calls == 400


def test_a_median_that_is_not_known_to_one_and_a_half_percent_is_unsteady() -> None:
    """Of ten values the second and the ninth bound it: 7/9 of the spread."""
    assert figures_of(turns_of("x1_0", PLAIN, spread(5.0, 0.018)), 1).disturbed == ()
    assert figures_of(turns_of("x1_0", PLAIN, spread(5.0, 0.021)), 1).disturbed == (UNSTEADY,)
    assert figures_of(turns_of("x1_0", PLAIN, spread(5.0, 0.5, 5)), 1).disturbed == ()


@pytest.mark.parametrize(("turns", "disturbed"), [(1, ()), (2, ("cpu_steal", "foreign_cpu"))])
def test_a_fifth_of_the_turns_makes_a_row_disturbed(turns: int, disturbed: tuple[str, ...]) -> None:
    made = turns_of("x1_0", PLAIN, [5.0] * (10 - turns))
    made += [a_turn(number=20 + one, disturbed=("foreign_cpu", "cpu_steal")) for one in range(turns)]
    found = figures_of(made, 1)
    assert (found.disturbed, found.disturbed_turns) == (disturbed, turns)


def test_energy_is_that_of_all_calls_of_all_turns() -> None:
    """10 turns of 40 calls with 4 images each, in 0.3 s and for 6 J each: 20 W, 26.67 images for a joule."""
    found = figures_of(turns_of("x1_0", PLAIN, [5.0] * 10, joules=6.0), 4)
    assert found.watts == pytest.approx(20.0)
    assert found.images_per_joule == pytest.approx(160 / 6)


@pytest.mark.parametrize("joules", [None, 0.0])
def test_a_meter_that_reads_nothing_gives_no_energy(joules: float | None) -> None:
    turns = [*turns_of("x1_0", PLAIN, [5.0] * 9, joules=joules and 1.0), a_turn(number=9, joules=joules)]
    found = figures_of(turns, 1)
    assert (found.watts, found.images_per_joule) == (None, None)


def test_the_largest_error_of_all_turns_counts() -> None:
    turns = [a_turn(number=number, logits_error=number * 1e-7) for number in range(6)]
    assert figures_of(turns, 1).logits_error == 5e-7


def test_a_ratio_is_of_turns_of_the_same_round() -> None:
    """The machine gets ten times slower meanwhile: the ratio stays what it is."""
    drift = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0, 10.0]
    base = turns_of("x1_0", PLAIN, drift)
    found = ratio_of(turns_of("x1_0", PLAIN, [3 * ms for ms in drift]), base)
    assert found is not None
    assert found.median == pytest.approx(3.0)
    assert [found.low, found.high] == pytest.approx([3.0, 3.0])


def test_rounds_that_only_one_of_both_has_are_left_out() -> None:
    found = ratio_of(turns_of("x1_0", PLAIN, [2.0] * 3), turns_of("x1_0", PLAIN, [1.0, 4.0]))
    assert found is not None
    assert (found.values, found.median) == (2, 1.25)
    assert ratio_of([a_turn(number=1)], [a_turn(number=2)]) is None
