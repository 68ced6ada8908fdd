"""Comparing candidates in interleaved trials: who wins, who is dropped, and how often noise decides."""

from __future__ import annotations

import math

import pytest

from harness.analysis.tuning.race import MAX_ROUNDS, Noise, RaceGain, gain, race
from harness.analysis.tuning.trial import SEARCH, Candidate
from tests.support.tuning import DEFAULT, Machine

FASTER, SLOWER = DEFAULT.but("prefetch", 4), DEFAULT.but("prefetch", 1)


def rates(**by_prefetch: float) -> dict[int, float]:
    return {int(name[1:]): value for name, value in by_prefetch.items()}


def a_machine(by_prefetch: dict[int, float], **options: object) -> Machine:
    return Machine(lambda candidate: by_prefetch[candidate["prefetch"]], 1000.0, **options)  # type: ignore[arg-type]


def run_race(machine: Machine, *rivals: Candidate) -> Candidate | None:
    return race(DEFAULT, rivals, lambda candidate: machine.run(candidate, SEARCH))


def test_a_faster_rival_wins_and_a_slower_one_is_dropped_at_once() -> None:
    machine = a_machine(rates(p2=100.0, p4=130.0, p1=50.0), spread=0.0, error=0.0)
    assert run_race(machine, SLOWER, FASTER) == FASTER
    assert [trial.candidate for trial in machine.made] == [DEFAULT, SLOWER, FASTER]


def test_the_faster_of_two_winners_wins() -> None:
    machine = a_machine(rates(p2=100.0, p4=130.0, p1=150.0), spread=0.0, error=0.0)
    assert run_race(machine, FASTER, SLOWER) == SLOWER


def test_a_gain_below_the_smallest_that_counts_never_wins() -> None:
    machine = a_machine(rates(p2=100.0, p4=102.5), spread=0.0, error=0.0)
    assert run_race(machine, FASTER) is None
    # Without noise it can't be excluded that it is 3 %, so that all rounds are made.
    assert len(machine.made) == 2 * MAX_ROUNDS


def test_the_order_alternates_so_that_drift_affects_all_alike() -> None:
    machine = a_machine(rates(p2=100.0, p4=102.5), spread=0.0, error=0.0)
    run_race(machine, FASTER)
    assert [trial.candidate for trial in machine.made[:6]] == [DEFAULT, FASTER, FASTER, DEFAULT, DEFAULT, FASTER]


def test_equal_rivals_hardly_ever_win() -> None:
    won = sum(
        run_race(a_machine(rates(p2=100.0, p4=100.0, p1=100.0), seed=seed), FASTER, SLOWER) is not None
        for seed in range(300)
    )
    assert won <= 15


@pytest.mark.parametrize(("true", "least"), [(1.05, 270), (1.10, 299)])
def test_a_real_gain_is_seen(true: float, least: int) -> None:
    won = sum(run_race(a_machine(rates(p2=100.0, p4=100 * true), seed=seed), FASTER) == FASTER for seed in range(300))
    assert won >= least


def test_a_rival_that_fails_is_dropped_and_the_others_go_on() -> None:
    machine = a_machine(rates(p2=100.0, p4=130.0, p1=90.0), broken=lambda candidate: candidate == SLOWER)
    assert run_race(machine, SLOWER, FASTER) == FASTER
    assert run_race(machine, SLOWER) is None


def test_nothing_wins_where_the_best_itself_fails() -> None:
    machine = a_machine(rates(p2=100.0, p4=130.0), broken=lambda candidate: candidate == DEFAULT)
    assert run_race(machine, FASTER) is None


def test_the_gain_is_that_of_a_moderated_t_test() -> None:
    machine = a_machine(rates(p2=100.0, p4=110.0), spread=0.0, error=0.0)
    made = {candidate: [machine.run(candidate, SEARCH)] for candidate in (DEFAULT, FASTER)}
    found = gain(made, DEFAULT, FASTER, Noise())
    # One trial each: the assumed spread between runs, 1.5 %, is all that is known.
    assert found.log_ratio == pytest.approx(math.log(1.1))
    assert found.standard_error == pytest.approx(0.015 * math.sqrt(2))
    assert found.degrees_of_freedom == 10


def test_wins_and_losses_are_by_the_stated_probabilities() -> None:
    # With infinitely many degrees of freedom 2.326 and 1.282 standard errors are the quantiles of 1 % and 10 %.
    assert RaceGain(0.0466, 0.02, 1e9).is_win
    assert not RaceGain(0.0464, 0.02, 1e9).is_win
    assert RaceGain(math.log(1.03) - 0.0257, 0.02, 1e9).is_lost
    assert not RaceGain(math.log(1.03) - 0.0255, 0.02, 1e9).is_lost


def test_a_search_learns_how_noisy_the_machine_is() -> None:
    noise = Noise()
    machine = a_machine(rates(p2=100.0, p4=100.0), spread=0.06, error=0.0)
    for _ in range(10):
        race(DEFAULT, [FASTER], lambda candidate: machine.run(candidate, SEARCH), noise)
    assert math.sqrt(noise.squares / noise.degrees) == pytest.approx(0.06, rel=0.3)
    # A win by chance, which the assumed spread would have believed, is then no win.
    made = {DEFAULT: [machine.run(DEFAULT, SEARCH)], FASTER: [machine.run(FASTER, SEARCH)]}
    assert gain(made, DEFAULT, FASTER, noise).standard_error > 2 * gain(made, DEFAULT, FASTER, Noise()).standard_error
