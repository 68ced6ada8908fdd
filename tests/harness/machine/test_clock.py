"""What the clocks of devices say. No GPU is touched: CUDA's and a plugin's events are stand-ins."""

from __future__ import annotations

import ctypes
import itertools
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType

import pytest

from harness.machine.clock import CudaClock, HostClock, PollingClock
from harness.machine.device import open_device
from harness.machine.sampler import DeviceSample, Sampler
from tests.support.scripted_sampler import ScriptedHost


def test_the_host_clock_counts_from_its_start() -> None:
    times = iter([100.0, 200.0, 200.25, 203.0, 300.0, 300.5])
    clock = HostClock(lambda: next(times))
    assert clock.started_at == 100.0
    clock.start()
    assert clock.started_at == 200.0
    marks = [clock.mark(), clock.mark()]
    clock.wait(marks[1])
    assert clock.seconds(marks) == [0.25, 3.0]
    assert clock.seconds([]) == []
    clock.start()
    assert clock.mark() == 0.5


class StandInGpu:
    """paddle.device with a GPU whose time is set by hand; like CUDA it gives spans as float32 milliseconds.

    An event has passed once it was asked `queries` times. calls are those of events, in order.
    """

    def __init__(self) -> None:
        self.milliseconds = 0.0
        self.queries = 3
        self.calls: list[tuple[str, StandInEvent]] = []
        self.current = ""

    @property
    def waited_for(self) -> list[StandInEvent]:
        return [event for call, event in self.calls if call == "synchronize"]

    def set_device(self, name: str) -> None:
        self.current = name

    def Event(self, enable_timing: bool) -> StandInEvent:  # noqa: N802 - Paddle's name
        assert enable_timing
        return StandInEvent(self)


class StandInEvent:
    def __init__(self, gpu: StandInGpu) -> None:
        self.gpu = gpu
        self.milliseconds: float | None = None

    def record(self) -> None:
        self.milliseconds = self.gpu.milliseconds

    def query(self) -> bool:
        self.gpu.calls.append(("query", self))
        return self.gpu.calls.count(("query", self)) >= self.gpu.queries

    def synchronize(self) -> None:
        self.gpu.calls.append(("synchronize", self))

    def elapsed_time(self, later: StandInEvent) -> float:
        self.gpu.calls.append(("elapsed_time", later))
        assert self.milliseconds is not None
        assert later.milliseconds is not None
        (span,) = struct.unpack("f", struct.pack("f", later.milliseconds - self.milliseconds))
        return float(span)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandInGpu:
    paddle, gpu = ModuleType("paddle"), StandInGpu()
    paddle.device = gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paddle", paddle)
    return gpu


def test_the_arithmetic_of_the_cuda_clock(gpu: StandInGpu) -> None:
    """Milliseconds become seconds since the start, and only the last mark is waited for. Checks no GPU."""
    gpu.milliseconds = 5000.0
    clock = CudaClock()
    assert len(gpu.waited_for) == 1
    gpu.calls.clear()
    marks = []
    for gpu.milliseconds in (5250.0, 5500.0, 7000.0):
        marks.append(clock.mark())
    assert gpu.waited_for == []
    assert clock.seconds(marks) == [0.25, 0.5, 2.0]
    assert gpu.waited_for == [marks[2]]
    assert clock.seconds([]) == []
    gpu.milliseconds = 8000.0
    last = clock.mark()
    assert clock.seconds([last]) == [3.0]
    assert gpu.waited_for == [marks[2], last]
    clock.wait(marks[0])
    assert gpu.waited_for == [marks[2], last, marks[0]]


def test_an_event_has_passed_before_it_is_synchronised_or_read(gpu: StandInGpu) -> None:
    """Paddle keeps the interpreter's lock while it waits for an event, so that nothing else of the rank would run."""
    clock = CudaClock()
    gpu.calls.clear()
    first, last = clock.mark(), clock.mark()
    clock.wait(first)
    assert gpu.calls == [("query", first)] * 3 + [("synchronize", first)]
    gpu.calls.clear()
    clock.seconds([first, last])
    asked = [("query", last)] * 3
    assert gpu.calls == [*asked, ("synchronize", last), ("elapsed_time", first), ("elapsed_time", last)]


class GreedyEvent:
    """An event that passes after some seconds, and keeps the interpreter's lock while it is waited for."""

    seconds = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.passes_at = time.perf_counter()

    def record(self) -> None:
        self.passes_at = time.perf_counter() + self.seconds

    def query(self) -> bool:
        return time.perf_counter() >= self.passes_at

    def synchronize(self) -> None:
        # Unlike CDLL, PyDLL calls a function without giving the interpreter's lock to other threads.
        remaining = self.passes_at - time.perf_counter()
        ctypes.PyDLL(None).usleep(max(0, round(1e6 * remaining)))

    def elapsed_time(self, later: GreedyEvent) -> float:
        later.synchronize()
        return 1000 * (later.passes_at - self.passes_at)


def samples_beside(wait: Callable[[], None]) -> list[float]:
    """When the sampler read the host while wait() ran, in seconds; it is asked to do so every 0.1 s."""
    rows: list[DeviceSample] = []
    host = ScriptedHost(lambda: 50.0)
    with Sampler((), None, host, rows.append, warn=pytest.fail, interval_seconds=0.1, unix_clock=time.perf_counter):
        began = time.perf_counter()
        wait()
        ended = time.perf_counter()
    return [row.time_unix_seconds for row in rows if began < row.time_unix_seconds < ended]


def test_the_sampler_keeps_its_interval_beside_an_event_that_keeps_the_interpreter_s_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """20 samples are due while an event is waited for; an event that is synchronised at once lets none through."""
    paddle, device = ModuleType("paddle"), ModuleType("device")
    device.Event = GreedyEvent  # type: ignore[attr-defined]
    paddle.device = device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paddle", paddle)
    clock = CudaClock()
    monkeypatch.setattr(GreedyEvent, "seconds", 2.0)
    unpolled = clock.mark()
    assert len(samples_beside(unpolled.synchronize)) <= 2
    mark = clock.mark()
    sampled = samples_beside(lambda: clock.wait(mark))
    assert len(sampled) >= 10
    between = [later - earlier for earlier, later in itertools.pairwise(sampled)]
    assert 0.08 <= statistics.median(between) <= 0.12


def test_a_cuda_clock_that_starts_again_counts_from_there(gpu: StandInGpu) -> None:
    clock = CudaClock()
    gpu.milliseconds = 1000.0
    assert clock.seconds([clock.mark()]) == [1.0]
    first_start = clock.started_at
    clock.start()
    assert clock.started_at > first_start
    gpu.milliseconds = 1500.0
    assert clock.seconds([clock.mark()]) == [0.5]


def test_the_cuda_clock_stays_exact_over_a_day(gpu: StandInGpu) -> None:
    """A float32 of a day's milliseconds has steps of 8 ms; the anchor that moves with each reading avoids them.

    Checks arithmetic, no GPU.
    """
    clock = CudaClock()
    seconds = []
    for _ in range(864):
        gpu.milliseconds += 100_000.0
        seconds = clock.seconds([clock.mark()])
    assert seconds == [86_400.0]
    gpu.milliseconds += 0.25
    before = clock.mark()
    gpu.milliseconds += 0.25
    assert clock.seconds([before, clock.mark()]) == [86_400.00025, 86_400.0005]


def test_opening_a_device_makes_it_paddle_s_current_one(gpu: StandInGpu) -> None:
    clock = open_device("gpu", 3)
    assert (gpu.current, type(clock)) == ("gpu:3", CudaClock)
    clock = open_device("cpu", 3)
    assert (gpu.current, type(clock)) == ("cpu", HostClock)


class PluginEvent:
    """An event that passes at once or when it is let, or reports that its device failed."""

    at_once = True

    def __init__(self) -> None:
        self.has_passed = threading.Event()
        if self.at_once:
            self.has_passed.set()
        self.fails = False

    def record(self) -> None:
        pass

    def query(self) -> bool:
        if self.fails:
            raise OSError("CustomDevice error")
        return self.has_passed.is_set()


@pytest.fixture
def polling(monkeypatch: pytest.MonkeyPatch) -> PollingClock:
    paddle, device = ModuleType("paddle"), ModuleType("device")
    device.Event = PluginEvent  # type: ignore[attr-defined]
    paddle.device = device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paddle", paddle)
    clock = PollingClock()
    monkeypatch.setattr(PluginEvent, "at_once", False)
    return clock


def test_events_without_a_time_are_asked_until_they_pass(polling: PollingClock) -> None:
    first, second = polling.mark(), polling.mark()
    before = polling.host_seconds()
    first.event.has_passed.set()
    (first_seconds,) = polling.seconds([first])
    assert not second.passed.is_set()
    between = polling.host_seconds()
    second.event.has_passed.set()
    polling.wait(second)
    assert before <= first_seconds <= between <= polling.seconds([second])[0] <= polling.host_seconds()


def test_who_waits_for_an_event_gets_the_device_s_error(polling: PollingClock) -> None:
    mark = polling.mark()
    mark.event.fails = True
    with pytest.raises(OSError, match="CustomDevice error"):
        polling.wait(mark)
    with pytest.raises(OSError, match="CustomDevice error"):
        polling.seconds([mark])
