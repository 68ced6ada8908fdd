"""Turns: their order, what a failure keeps from the others, and the figures that they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.analysis.latency.figures import figures_of
from harness.analysis.latency.job import Job
from harness.latency.energy import NoMeter
from harness.latency.measure import MIN_TURN_CALLS, SETTLE_SECONDS, Rounds, in_turn
from harness.latency.processes import EngineFailed
from tests.support.latency import ONEDNN, PLAIN, FakeTimer

JOB = Job(("x0_25", "x1_0"), (ONEDNN, PLAIN), "cpu", rounds=4, turn_seconds=0.5)
FAST, SLOW = {"x0_25": 2.0, "x1_0": 5.0}, {"x0_25": 6.0, "x1_0": 20.0}


class Looker:
    """Notices what is put in, a turn at a time."""

    def __init__(self, *found: tuple[str, ...]) -> None:
        self.found: Iterator[tuple[str, ...]] = iter(found)

    def begin(self) -> None:
        pass

    def end(self) -> tuple[str, ...]:
        return next(self.found, ())


class Meter(NoMeter):
    """Ten joules more at each reading."""

    def __init__(self) -> None:
        self.read = 0.0

    def joules(self) -> float | None:
        self.read += 10.0
        return self.read


def rounds(job: Job = JOB, **more: object) -> tuple[Rounds, dict[str, list[str]]]:
    asked: dict[str, list[str]] = {ONEDNN: [], PLAIN: []}
    timers = {ONEDNN: FakeTimer(FAST, asked[ONEDNN]), PLAIN: FakeTimer(SLOW, asked[PLAIN])}
    values = {"timers": timers, "looker": Looker(), "meter": NoMeter(), **more}
    return Rounds(job, **values), asked  # type: ignore[arg-type]


def test_every_item_has_every_place_and_every_neighbour() -> None:
    assert [in_turn("abcd", number) for number in range(5)] == [
        list("abcd"), list("adcb"), list("cdab"), list("cbad"), list("abcd"),
    ]  # fmt: skip
    orders = [in_turn("abcdefgh", number) for number in range(8)]
    assert all(sorted(order) == list("abcdefgh") for order in orders)
    assert len({order[0] for order in orders}) >= 4
    before_b = {order[place - 1] for order in orders for place in range(1, 8) if order[place] == "b"}
    assert before_b == {"a", "c"}
    assert in_turn(["alone"], 7) == ["alone"]


def test_each_round_has_a_turn_of_each_size_with_each_engine() -> None:
    made, asked = rounds()
    made.load()
    for number in range(4):
        made.make(number)
    assert asked[ONEDNN] == asked[PLAIN] == ["x0_25", "x1_0", "x0_25", "x1_0", "x0_25", "x1_0", "x0_25", "x1_0"]
    turns = made.measured.turns
    assert {(turn.size, turn.engine, turn.round) for turn in turns} == {
        (size, engine, number) for size, engine in JOB.pairs for number in range(4)
    }
    # Those of one size follow one another.
    assert [turn.size for turn in turns[:4]] == ["x0_25", "x0_25", "x1_0", "x1_0"]


def test_the_truth_comes_out_without_the_warm_up() -> None:
    made, _ = rounds()
    made.load()
    for number in range(4):
        made.make(number)
    of_size = made.measured.of(PLAIN)["x1_0"]
    assert [turn.warmup_calls for turn in of_size] == [5] * 4
    assert [len(turn.milliseconds) for turn in of_size] == [MIN_TURN_CALLS] * 4
    assert figures_of(of_size, 1).median.median == pytest.approx(20.02)
    assert figures_of(made.measured.of(ONEDNN)["x0_25"], 1).median.median == pytest.approx(2.0, rel=2e-3)


def test_disturbances_and_energy_belong_to_their_turn() -> None:
    made, _ = rounds(looker=Looker((), ("cpu_steal",)), meter=Meter())
    made.make(0)
    assert [turn.disturbed for turn in made.measured.turns] == [(), ("cpu_steal",), (), ()]
    assert [turn.joules for turn in made.measured.turns] == [10.0] * 4


def test_a_size_that_can_not_be_loaded_is_not_timed_and_the_others_are() -> None:
    def failing(size: str, what: str) -> EngineFailed | None:
        return EngineFailed("no such layer") if (size, what) == ("x1_0", "load") else None

    made, asked = rounds()
    made.timers = {**made.timers, PLAIN: FakeTimer(SLOW, asked[PLAIN], failing)}
    made.load()
    made.make(0)
    assert made.measured.failures == {("x1_0", PLAIN): "no such layer"}
    assert (asked[PLAIN], asked[ONEDNN]) == (["x0_25"], ["x0_25", "x1_0"])


def test_a_crash_in_a_turn_ends_the_engine_and_leaves_the_other() -> None:
    def failing(size: str, what: str) -> EngineFailed | None:
        if what == "time" and asked[PLAIN].count("x1_0") == 2:
            return EngineFailed("crashed by SIGSEGV; its last words: none", is_over=True)
        return None

    made, asked = rounds()
    made.timers = {**made.timers, PLAIN: FakeTimer(SLOW, asked[PLAIN], failing)}
    made.load()
    for number in range(4):
        made.make(number)
    assert made.measured.failures == {
        ("x1_0", PLAIN): "crashed by SIGSEGV; its last words: none",
        ("x0_25", PLAIN): "not timed: with x1_0 the engine crashed by SIGSEGV; its last words: none",
    }
    assert len(asked[ONEDNN]) == 8
    assert made.measured.of(PLAIN) == {}
    assert set(made.measured.of(ONEDNN)) == {"x0_25", "x1_0"}


@pytest.mark.parametrize(("threads", "pauses"), [(1, 0), (2, 4)])
def test_threads_of_the_other_engine_come_to_rest_before_a_turn(threads: int, pauses: int) -> None:
    paused: list[float] = []
    made, _ = rounds(replace(JOB, threads=threads), pause=paused.append)
    made.make(0)
    assert paused == [SETTLE_SECONDS] * pauses
    alone, _ = rounds(replace(JOB, threads=threads, engines=(ONEDNN,)), pause=paused.append)
    alone.make(0)
    assert len(paused) == pauses
