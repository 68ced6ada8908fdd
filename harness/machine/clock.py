"""The clocks of devices: the time of each, read without waiting for it."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

# How often an event that is waited for is asked whether it has passed.
POLL_SECONDS = 0.0002


def _wait_until_passed(event: Any) -> None:
    """Return once Paddle's event has passed; the process's other threads run meanwhile.

    Paddle keeps the interpreter's lock while it synchronises an event or a device, so that no other thread of the rank
    could sample telemetry or read ahead.
    """
    while not event.query():
        time.sleep(POLL_SECONDS)


class Clock(Protocol):
    """The device's time, in seconds since `start`.

    A mark is the moment when the device has finished all work queued so far. Its time is read by `seconds`, not before,
    so that marking never waits. runs_ahead: the host may queue steps that the device works on later.
    """

    started_at: float
    runs_ahead: bool

    def start(self) -> None:
        """Start the clock; started_at becomes the host's time.perf_counter()."""

    def mark(self) -> Any:
        """Returns a mark after the work queued so far."""

    def host_seconds(self) -> float:
        """Returns the host's seconds since the start, whatever the device does."""

    def wait(self, mark: Any) -> None:
        """Return once the device has reached the mark."""

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """Returns when the device reached each mark, in seconds since the start."""


class HostClock:
    """The clock of a CPU, whose work is done when a call returns. now is perf_counter, or a test's clock."""

    runs_ahead = False

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.started_at = now()

    def start(self) -> None:
        """Start the clock."""
        self.started_at = self._now()

    def mark(self) -> float:
        """Returns the seconds since the start."""
        return self._now() - self.started_at

    def host_seconds(self) -> float:
        """Returns the seconds since the start."""
        return self._now() - self.started_at

    def wait(self, mark: float) -> None:
        """Do nothing: the work is done already."""

    def seconds(self, marks: Sequence[float]) -> list[float]:
        """Returns the marks, which are seconds already."""
        return list(marks)


class CudaClock:
    """The clock of a GPU: CUDA events on Paddle's stream, read when they have passed.

    Before Paddle synchronises an event or computes its time, it is asked until it has passed.
    """

    runs_ahead = True

    def __init__(self) -> None:
        from paddle import device

        self._device = device
        self.start()

    def start(self) -> None:
        """Wait until the GPU has finished the work queued so far on Paddle's stream, and start the clock."""
        self.wait(self.mark())
        self.started_at = time.perf_counter()
        self._anchor, self._anchor_seconds = self.mark(), 0.0

    def mark(self) -> Any:
        """Returns an event after the work queued so far."""
        event = self._device.Event(enable_timing=True)
        event.record()
        return event

    def host_seconds(self) -> float:
        """Returns the host's seconds since the start."""
        return time.perf_counter() - self.started_at

    def wait(self, mark: Any) -> None:
        """Block until the event has passed."""
        _wait_until_passed(mark)
        mark.synchronize()

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """Returns when each event passed, in seconds since the start.

        The last event becomes the anchor of later calls, because CUDA measures in float32 milliseconds.
        """
        for mark in marks[-1:]:
            self.wait(mark)
        read = [self._anchor_seconds + self._anchor.elapsed_time(mark) / 1000 for mark in marks]
        if read:
            self._anchor, self._anchor_seconds = marks[-1], read[-1]
        return read


class _Passing:
    """A mark of PollingClock: an event, and when it was seen to have passed."""

    __slots__ = ("error", "event", "passed", "seconds")

    def __init__(self, event: Any) -> None:
        self.event = event
        self.passed = threading.Event()
        self.seconds = math.nan
        self.error: Exception | None = None


class PollingClock:
    """The clock of a device whose events carry no time: a thread asks the next event whether it has passed.

    Events pass in the order in which they were recorded, so that only one is asked at a time, every POLL_SECONDS. A
    time is late by at most that, and by what the thread waits for the interpreter. This class never synchronises the
    device; a plugin may do so where an event is recorded or asked.
    """

    runs_ahead = True

    def __init__(self) -> None:
        from paddle import device

        self._device = device
        self._marks: queue.SimpleQueue[_Passing] = queue.SimpleQueue()
        threading.Thread(target=self._watch, name="device clock", daemon=True).start()
        self.start()

    def _watch(self) -> None:
        while True:
            mark = self._marks.get()
            try:
                _wait_until_passed(mark.event)
            except Exception as error:
                mark.error = error
            mark.seconds = time.perf_counter()
            mark.passed.set()

    def start(self) -> None:
        """Wait until the device has finished the work queued so far on Paddle's stream, and start the clock."""
        self.wait(self.mark())
        self.started_at = time.perf_counter()

    def mark(self) -> _Passing:
        """Returns an event after the work queued so far."""
        mark = _Passing(self._device.Event())
        mark.event.record()
        self._marks.put(mark)
        return mark

    def host_seconds(self) -> float:
        """Returns the host's seconds since the start."""
        return time.perf_counter() - self.started_at

    def wait(self, mark: _Passing) -> None:
        """Block until the event has passed. Raises what the device reported instead."""
        mark.passed.wait()
        if mark.error is not None:
            raise mark.error

    def seconds(self, marks: Sequence[_Passing]) -> list[float]:
        """Returns when each event passed, in seconds since the start."""
        for mark in marks:
            self.wait(mark)
        return [mark.seconds - self.started_at for mark in marks]
