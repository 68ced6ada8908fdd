from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable

import pytest

from harness import ROOT
from harness.errors import MachineError
from harness.machine.placement import pinning
from harness.machine.placement.pinning import can_pin, cores_in_use, pin

pytestmark = pytest.mark.skipif(not can_pin(), reason="this system keeps no process on cores")

# In a process of its own, which is kept on the core that its argument names: the cores that it may use in the end.
PROGRAM = """
import json, os, subprocess, sys, threading
from harness.machine.placement.pinning import cores_in_use, pin
core, done = int(sys.argv[1]), threading.Event()
def thread():
    started = threading.Thread(target=done.wait)
    started.start()
    return started.native_id
threads = [thread()]
before = cores_in_use()
pin({core})
threads.append(thread())
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
own = [sorted(os.sched_getaffinity(one)) for one in (0, *threads, child.pid)]
print(json.dumps([sorted(before), own, sorted(cores_in_use())]))
os.sched_setaffinity(child.pid, before)
print(json.dumps(sorted(cores_in_use())))
child.communicate(b"\\n")
done.set()
"""


def test_threads_and_processes_stay_on_the_cores() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    core = allowed[-1]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(core)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    (before, own, after), freed = map(json.loads, done.stdout.splitlines())
    assert before == allowed
    assert own == [[core]] * 4
    assert after == [core]
    # What a child may use counts, too.
    assert freed == allowed


def test_cores_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match=r"can't be kept on cores 1000000 \(Invalid argument\)") as caught:
        pin({1_000_000})
    assert "--affinity none" in caught.value.cure


def test_a_system_that_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(_: int, __: Iterable[int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    with pytest.raises(MachineError, match=r"can't be kept on cores 0-1 \(Operation not permitted\)"):
        pin({0, 1})


def test_cores_that_the_control_group_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    pin({0, 1})
    with pytest.raises(MachineError, match="may only use cores 0-1 of 0-3, which the run was planned with"):
        pin({0, 1, 2, 3})


def test_a_thread_that_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(thread: int) -> set[int]:
        if thread:
            raise ProcessLookupError
        return {5}

    def keep(thread: int, _: Iterable[int]) -> None:
        look(thread)

    monkeypatch.setattr(os, "sched_getaffinity", look)
    monkeypatch.setattr(os, "sched_setaffinity", keep)
    pin({5})
    assert cores_in_use() == {5}


def test_a_system_without_the_call_reports_no_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "can_pin", lambda: False)
    assert cores_in_use() == frozenset()
