"""A run's processes in a folder that stands in for /proc, and in the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.machine.processes import ProcessUsage, RunProcesses
from tests.support.fake_proc import FakeProc

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """A bench (10), its launcher (20), two ranks (31, 32), and a process of somebody else's (11)."""
    fake = FakeProc(tmp_path)
    (tmp_path / "vmstat").write_text("")
    fake.write(1, 0, 5000)
    fake.write(10, 1, 100, 20, read_bytes=1000)
    fake.write(11, 1, 7000)
    fake.write(20, 10, 30, 10, read_bytes=200)
    fake.write(31, 20, 400, 40, read_bytes=30_000)
    fake.write(32, 20, 500, 50, read_bytes=40_000)
    return fake


def ticks(usage: ProcessUsage) -> int:
    assert usage.cpu_seconds is not None
    return round(usage.cpu_seconds * TICKS)


def test_the_root_and_its_descendants_are_added_up(proc: FakeProc) -> None:
    assert proc.processes(10).usage() == ProcessUsage(1150 / TICKS, 71_200.0)
    assert proc.processes(20).usage() == ProcessUsage(1030 / TICKS, 70_200.0)
    assert proc.processes(32).usage() == ProcessUsage(550 / TICKS, 40_000.0)


def test_a_name_may_hold_anything(proc: FakeProc) -> None:
    proc.write(31, 20, 401, 40, name="a) R 1 (b c")
    assert ticks(proc.processes(20).usage()) == 1031


def test_what_they_use_is_read_each_time(proc: FakeProc) -> None:
    processes = proc.processes(10)
    assert ticks(processes.usage()) == 1150
    proc.write(31, 20, 450, 45, read_bytes=35_000)
    proc.write(11, 1, 9000)
    assert processes.usage() == ProcessUsage(1205 / TICKS, 76_200.0)


def test_new_processes_are_looked_for_every_two_seconds(proc: FakeProc) -> None:
    processes = proc.processes(10)
    processes.usage()
    proc.write(33, 32, 5, read_bytes=3)
    proc.write(12, 11, 5)
    proc.now = 1.5
    assert processes.usage() == ProcessUsage(1150 / TICKS, 71_200.0)
    proc.now = 2.0
    assert processes.usage() == ProcessUsage(1155 / TICKS, 71_203.0)


def test_a_child_and_its_own_child_are_found_together_whatever_their_ids(proc: FakeProc) -> None:
    processes = proc.processes(10)
    processes.usage()
    proc.write(52, 20, 3)
    proc.write(51, 52, 2)
    proc.now = 2.0
    assert ticks(processes.usage()) == 1155


def test_a_child_that_was_waited_for_is_in_its_parents_figures_and_counts_once(proc: FakeProc) -> None:
    processes = proc.processes(10)
    processes.usage()
    proc.end(32)
    # It had used 10 ticks and 1000 bytes more when it ended.
    proc.write(20, 10, 30, 10, waited=(510, 50), read_bytes=200 + 41_000)
    assert processes.usage() == ProcessUsage(1160 / TICKS, 72_200.0)
    assert processes.usage() == ProcessUsage(1160 / TICKS, 72_200.0)


def test_a_child_that_ends_while_its_parent_is_being_read_counts_once(proc: FakeProc) -> None:
    processes = proc.processes(10)
    processes.usage()
    # The launcher's reads come from a pipe: the reading waits there, with the launcher's times read already.
    pipe = proc.folder / "20" / "io"
    pipe.unlink()
    os.mkfifo(pipe)

    def end_child() -> None:
        with pipe.open("w") as stream:
            proc.end(32)
            proc.write(20, 10, 30, 10, waited=(500, 50), read_bytes=200 + 40_000)
            stream.write("read_bytes: 200\n")

    thread = threading.Thread(target=end_child)
    thread.start()
    assert processes.usage() == ProcessUsage(1150 / TICKS, 71_200.0)
    thread.join()
    proc.write(31, 20, 405, 40, read_bytes=30_001)
    assert processes.usage() == ProcessUsage(1155 / TICKS, 71_201.0)


def test_whole_branches_that_were_waited_for_count_once(proc: FakeProc) -> None:
    processes = proc.processes(10)
    processes.usage()
    for pid in (20, 31, 32):
        proc.end(pid)
    proc.write(10, 1, 100, 20, waited=(930, 100), read_bytes=71_200)
    assert processes.usage() == ProcessUsage(1150 / TICKS, 71_200.0)


def test_an_orphan_that_ended_counts_with_what_was_last_seen(proc: FakeProc) -> None:
    processes = proc.processes(10)
    proc.write(32, 1, 500, 50, read_bytes=40_000)
    proc.write(33, 20, 60, read_bytes=7)
    # Seen as a child of the launcher's at first, taken over by process 1 when that lost it.
    processes.usage()
    proc.write(33, 1, 61, read_bytes=8)
    assert processes.usage() == ProcessUsage(661 / TICKS, 31_208.0)
    proc.end(33)
    proc.write(31, 20, 490, 40, read_bytes=30_000)
    assert processes.usage() == ProcessUsage(751 / TICKS, 31_208.0)


def test_a_child_that_nobody_waits_for_counts_with_what_was_last_seen(proc: FakeProc) -> None:
    """Its parent ignores SIGCHLD: the kernel adds nothing to the parent's figures."""
    processes = proc.processes(10)
    processes.usage()
    proc.end(32)
    assert processes.usage() == ProcessUsage(1150 / TICKS, 71_200.0)
    proc.write(31, 20, 410, 40, read_bytes=30_100)
    assert processes.usage() == ProcessUsage(1160 / TICKS, 71_300.0)


def test_another_process_under_an_old_id_is_not_taken_for_the_old_one(proc: FakeProc) -> None:
    processes = proc.processes(10)
    processes.usage()
    proc.write(20, 10, 30, 10, waited=(500, 50), read_bytes=40_200)
    proc.write(32, 11, 80_000, started=99, read_bytes=5)
    assert processes.usage() == ProcessUsage(1150 / TICKS, 71_200.0)
    proc.now = 2.0
    assert processes.usage() == ProcessUsage(1150 / TICKS, 71_200.0)


def test_reads_are_unknown_as_soon_as_those_of_one_process_are_and_known_again_later(proc: FakeProc) -> None:
    processes = proc.processes(10)
    processes.usage()
    proc.write(31, 20, 401, 40, read_bytes=None)
    assert processes.usage() == ProcessUsage(1151 / TICKS, None)
    proc.write(31, 20, 402, 40, read_bytes=30_500)
    assert processes.usage() == ProcessUsage(1152 / TICKS, 71_700.0)


def test_nothing_is_known_without_the_root(proc: FakeProc, tmp_path: Path) -> None:
    assert proc.processes(77).usage() == ProcessUsage()
    assert RunProcesses(10, proc=tmp_path / "missing").usage() == ProcessUsage()


SPINNER = """
import os, sys, time
ends = float(sys.argv[1])
while time.process_time() < ends:
    pass
print(flush=True)
if sys.argv[2] == "stay":
    sys.stdin.read()
"""


def spin(cpu_seconds: float, then: str) -> subprocess.Popen[str]:
    """A process that has used this much CPU time when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", SPINNER, str(cpu_seconds), then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
def test_the_kernel_gives_a_parent_what_its_child_had() -> None:
    """The real /proc: a child's time is in the sum while it lives, while nobody has waited for it, and after that."""
    moment = iter(range(0, 1000, 10))
    processes = RunProcesses(os.getpid(), clock=lambda: float(next(moment)))

    def used() -> float:
        seconds = processes.usage().cpu_seconds
        assert seconds is not None
        return seconds

    def own() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    # Children of other tests, like the server that forks runs, rest meanwhile.
    others = used() - own()
    child = spin(0.3, "stay")
    assert used() - own() - others >= 0.25
    child.send_signal(signal.SIGKILL)
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert used() - own() - others >= 0.25
    with child:
        pass
    assert used() - own() == pytest.approx(others, abs=0.1)
