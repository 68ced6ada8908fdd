"""Ranks seen from outside. This process stands for the launcher, and waits for none of its children meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.launch.rank_monitor import Pulse, RankExit, RankMonitor


class Ranks:
    """Starts processes that look like ranks."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, rank: int, script: str, offset: int = 0) -> None:
        names = {"PADDLE_TRAINER_ID": str(rank), "PADDLE_LOCAL_RANK": str(rank - offset)}
        self.processes.append(subprocess.Popen([sys.executable, "-c", script], env={**os.environ, **names}))


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    made = Ranks()
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def watch_until(expected: int, exits: int) -> RankMonitor:
    watch = RankMonitor(os.getpid(), expected)
    for _ in range(200):
        watch.wait(0.05)
        if len(watch.exits) >= exits and len(watch._seen) == expected:
            return watch
    raise AssertionError(f"{watch.exits}, {watch._seen}")


SLEEP = "import time; time.sleep(60)"
# Long enough to be seen.
BRIEF = "import time; time.sleep(1)"


def test_who_ended_first_and_of_what(ranks: Ranks) -> None:
    ranks.start(4, SLEEP, offset=4)
    ranks.start(5, "import time; time.sleep(1.5); raise SystemExit(3)", offset=4)
    ranks.start(6, "import os, time; time.sleep(0.5); os.kill(os.getpid(), 9)", offset=4)
    watch = watch_until(3, 2)
    assert watch.exits == [RankExit(6, 2, -9), RankExit(5, 1, 3)]
    assert watch.first_failed == RankExit(6, 2, -9)
    assert watch.send(0)
    watch.close()


def test_a_rank_that_ends_well_has_not_failed(ranks: Ranks) -> None:
    ranks.start(0, BRIEF)
    watch = watch_until(1, 1)
    assert watch.exits == [RankExit(0, 0, 0)]
    assert watch.first_failed is None
    watch.close()


def test_of_two_found_at_once_the_killed_one_was_first(ranks: Ranks) -> None:
    """What a rank whose peer is gone does is to raise or to abort."""
    ranks.start(0, SLEEP)
    ranks.start(1, SLEEP)
    watch = watch_until(2, 0)
    ranks.processes[0].send_signal(signal.SIGABRT)
    ranks.processes[1].kill()
    for process in ranks.processes:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    watch.look()
    assert watch.exits == [RankExit(1, 1, -9), RankExit(0, 0, -signal.SIGABRT)]
    watch.close()


def test_a_signal_reaches_living_ranks_only(ranks: Ranks) -> None:
    ranks.start(0, BRIEF)
    ranks.start(1, SLEEP)
    watch = watch_until(2, 1)
    assert watch.send(signal.SIGTERM)
    while watch.send(0):
        watch.wait(0.1)
    assert watch.exits == [RankExit(0, 0, 0), RankExit(1, 1, -signal.SIGTERM)]
    assert not watch.send(signal.SIGTERM)
    watch.close()


def test_children_that_are_no_ranks_are_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as other:
        watch = RankMonitor(os.getpid(), 1)
        watch.wait(0.3)
        assert (watch.exits, watch.send(signal.SIGKILL)) == ([], False)
        assert other.poll() is None
        watch.close()
        other.kill()


def test_silence_is_measured_from_the_last_change(tmp_path: Path) -> None:
    at = [0.0]
    pulse = Pulse(tmp_path, lambda: at[0])
    assert pulse.max_silence_seconds() is None
    for rank in (0, 1):
        (tmp_path / f"pulse.{rank}").touch()
    at[0] = 10.0
    assert pulse.max_silence_seconds() == 0.0
    os.utime(tmp_path / "pulse.0", ns=(1, 1))
    at[0] = 14.0
    # Rank 1 has been still since it was first seen, though rank 0 makes progress.
    assert pulse.max_silence_seconds() == 4.0
    os.utime(tmp_path / "pulse.1", ns=(2, 2))
    at[0] = 15.5
    assert pulse.max_silence_seconds() == 1.5
