"""Nothing that lives as long as a run grows with it: days of steps and samples on clocks that are told the time."""

from __future__ import annotations

import gc
import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cached_cell_len
from rich.console import Console as RichConsole
from rich.segment import Segment
from rich.style import Style

from harness import ROOT
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter
from harness.machine.host import HostProbe, HostSample
from harness.machine.processes import RunProcesses
from harness.machine.sampler import DeviceSample, Sampler
from harness.report.console import Console
from harness.report.live.feed import Feed
from harness.report.live.shown import Shown
from harness.training.recorder import TableRecorder
from tests.support.fake_proc import FakeProc
from tests.support.frames import global_step
from tests.support.plans import a_plan
from tests.support.scripted_sampler import START, FakeTime, ScriptedHost

# Of memory between a fifth of the way and the end; 8 bytes more with each of 10,000 steps would be 64,000.
GROWTH_BYTES = 50_000
OF_HARNESS, FRAMES = str(ROOT / "harness" / "*"), 6


class Forgetful(io.StringIO):
    """A terminal, as far as memory is concerned."""

    written = 0

    def write(self, text: str) -> int:
        self.written += len(text)
        return len(text)


class Watch:
    """The memory that the harness holds and the files that are open, at a fifth of the way and at the end.

    Memory is the harness's if one of its functions was called where it was allocated: other threads of this process may
    be what tests before this one have left.
    """

    def __init__(self, count: int) -> None:
        self._early, self._late = count // 5, count
        self._seen: list[tuple[int, int]] = []

    def __call__(self, number: int) -> None:
        if number in (self._early, self._late):
            # How much garbage waits for Python to look for cycles depends on how large the process is otherwise; how
            # many widths rich remembers, on which texts it has shown, up to a limit.
            gc.collect()
            for remembers in (cached_cell_len, Style.parse, Segment._split_cells):
                remembers.cache_clear()
            held = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, OF_HARNESS, all_frames=True)])
            held_bytes = sum(trace.size for trace in held.traces)
            self._seen.append((held_bytes, len(os.listdir("/proc/self/fd"))))  # noqa: PTH208

    def check(self) -> None:
        (early_bytes, early_files), (late_bytes, late_files) = self._seen
        assert late_bytes - early_bytes < GROWTH_BYTES
        assert late_files == early_files


def traced(work: Callable[[Watch], object], count: int) -> None:
    watch = Watch(count)
    tracemalloc.start(FRAMES)
    try:
        work(watch)
    finally:
        tracemalloc.stop()
    watch.check()


def test_a_sampler_keeps_its_history_and_no_more() -> None:
    """10,000 samples, one every half second, of which it keeps ten minutes."""
    count = 10_000
    samplers = []

    def sample(watch: Watch) -> None:
        time = FakeTime(START + (count - 1) * 0.5)
        numbers = iter(range(1, count + 1))

        def on_sample(row: DeviceSample) -> None:
            number = next(numbers)
            watch(number)
            if number % 2:
                raise OSError(f"failure {number}")

        sampler = Sampler(
            (), None, ScriptedHost(lambda: 50.0), on_sample, warn=lambda message: None, interval_seconds=0.5,
            history_seconds=600.0, clock=time.clock, wait=time.wait,
        )  # fmt: skip
        samplers.append(sampler)
        with sampler:
            assert time.ended.wait(240)

    traced(sample, count)
    history = samplers[0]._of_host
    assert len(history._times) == len(history._samples) == 1201
    assert len(samplers[0]._warned) == 50


@pytest.mark.slow
def test_a_recorder_and_the_bar_that_follows_it_hold_nothing(tmp_path: Path) -> None:
    """10,000 steps and as many samples, written and shown on a terminal."""
    count = 10_000
    files = RunFiles(tmp_path, "it")
    terminal = Forgetful()
    rich = RichConsole(file=terminal, force_terminal=True, width=120)
    time = FakeTime(START)
    sampler = Sampler((), None, ScriptedHost(lambda: 50.0), lambda row: None, warn=print, clock=time.clock)
    sample: dict[str, Any] = {"time_unix_seconds": START, "device": "cpu", "util_percent": 50.0}

    def record(watch: Watch) -> None:
        with (
            TableWriter(files.table("steps"), STEPS) as steps,
            TableWriter(files.table("epochs"), EPOCHS) as epochs,
            TableWriter(files.table("devices"), DEVICES) as devices,
        ):
            recorder = TableRecorder(steps, epochs, sampler)
            feed = Feed(a_plan(epochs=count, steps_per_epoch=1), files, 0.0)
            now = iter(range(10 * count))
            with Shown(Console(rich), feed, lambda: float(next(now))) as shown:
                for number in range(1, count + 1):
                    step = global_step(number, 0.1 * number, 0.1)
                    recorder.step(step, START, phase="train", segment=1, epoch=1, step=number)
                    devices.write(sample)
                    if number % 100 == 0:
                        shown.poll()
                    watch(number)
            assert steps.rows == devices.rows == count
            assert feed.now().step == count
            assert terminal.written > count

    traced(record, count)


def test_a_probe_forgets_processes_that_have_ended(tmp_path: Path) -> None:
    """3,000 readings a second apart; every fifth a worker has ended and another begun, and so have strangers."""
    count = 3_000
    proc = FakeProc(tmp_path)
    (tmp_path / "vmstat").write_text("pswpin 1\npswpout 2\n")
    proc.write(10, 1, 100, 20)
    processes = proc.processes(10)
    probe = HostProbe(proc.clock, processes, proc=tmp_path, cgroups=tmp_path)
    samples: list[HostSample] = []

    def read(watch: Watch) -> None:
        for number in range(1, count + 1):
            if number % 5 == 1:
                pid = 100 + 2 * (number // 5)
                if number > 5:
                    proc.end(pid - 2)
                    proc.end(pid - 1)
                proc.write(pid, 10, 5)
                proc.write(pid + 1, 1, 5)
            proc.now += 1.0
            samples[:] = [probe.sample()]
            watch(number)

    traced(read, count)
    assert isinstance(processes, RunProcesses)
    assert len(processes._known) == 2
    assert len(processes._foreign) == 1
    assert samples[0].swap_bytes == 0.0
