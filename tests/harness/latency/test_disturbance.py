"""What disturbs a turn, from readings of the host that are put in."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import harness.latency.disturbance
from harness.latency.disturbance import CoreSeconds, Disturbances, _core_times, core_seconds, reasons
from harness.machine.host import HostSample

QUIET = CoreSeconds(1.0, 1, 0.0, 0.0)
IDLE = HostSample(cpu_util_percent=50.0, foreign_util_percent=1.0, swap_bytes=0.0, quota_throttled_seconds=0.0)
Times = namedtuple("Times", ["user", "system", "idle", "iowait", "steal", "guest"])  # noqa: PYI024 - as psutil's


@pytest.mark.parametrize(
    ("cores", "host", "found"),
    [
        (QUIET, IDLE, ()),
        (QUIET, HostSample(), ()),
        (replace(QUIET, foreign=0.09), IDLE, ()),
        (replace(QUIET, foreign=0.11), IDLE, ("foreign_cpu",)),
        # Of two cores it is half as much.
        (replace(QUIET, foreign=0.11, cores=2), IDLE, ()),
        # Others have another core, and with it memory and caches: that counts where the whole host is busy.
        (QUIET, replace(IDLE, foreign_util_percent=40.0), ()),
        (QUIET, replace(IDLE, foreign_util_percent=40.0, cpu_util_percent=90.0), ("foreign_cpu",)),
        (replace(QUIET, stolen=0.06), IDLE, ("cpu_steal",)),
        (QUIET, replace(IDLE, quota_throttled_seconds=0.02), ("cpu_quota",)),
        (QUIET, replace(IDLE, swap_bytes=4096.0), ("swap",)),
        (replace(QUIET, foreign=0.5, stolen=0.5), replace(IDLE, swap_bytes=1.0), ("foreign_cpu", "cpu_steal", "swap")),
    ],
)
def test_what_disturbs_a_turn(cores: CoreSeconds, host: HostSample, found: tuple[str, ...]) -> None:
    assert reasons(cores, host) == found


def test_a_turn_of_no_time_is_not_disturbed() -> None:
    assert reasons(CoreSeconds(0.0, 1, 1.0, 1.0), IDLE) == ()


def test_what_others_had_of_the_cores() -> None:
    """Core 1 was busy for 1.9 s, of which 0.3 s were stolen and 1.2 s the measurement's own."""
    before = {1: Times(10.0, 5.0, 100.0, 1.0, 2.0, 0.0)}
    now = {1: Times(11.2, 5.4, 100.1, 1.0, 2.3, 0.7)}
    found = core_seconds(2.0, before, now, own=1.2)
    assert (found.wall, found.cores) == (2.0, 1)
    assert found.foreign == pytest.approx(0.4)
    assert found.stolen == pytest.approx(0.3)
    assert found.share(found.foreign) == pytest.approx(0.2)


def test_what_is_unknown_does_not_disturb() -> None:
    before, now = {1: Times(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)}, {1: Times(2.0, 0.0, 0.0, 0.0, 0.0, 0.0)}
    assert core_seconds(2.0, before, now, own=None).foreign == 0.0
    assert core_seconds(2.0, {}, now, own=0.0) == CoreSeconds(2.0, 1, 0.0, 0.0)


def test_cores_that_are_offline_do_not_shift_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    online = tmp_path / "online"
    monkeypatch.setattr(harness.latency.disturbance, "ONLINE", online)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: ["first", "second", "third"])
    online.write_text("0,2-3\n", encoding="ascii")
    assert _core_times((2, 7)) == {2: "second"}
    assert _core_times(()) == {0: "first", 2: "second", 3: "third"}
    online.write_text("0-7\n", encoding="ascii")
    assert _core_times((2,)) == {2: "third"}


def test_this_machine_is_looked_at() -> None:
    looker = Disturbances((0,))
    looker.begin()
    assert set(looker.end()) <= {"foreign_cpu", "cpu_steal", "cpu_quota", "swap"}
