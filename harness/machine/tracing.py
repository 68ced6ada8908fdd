"""A trace of some training steps, with a range for each part of a step: for a browser, or for Nsight Systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from harness.machine.clock import Clock

# The parts of a batch's time, which begin at the loop's marks in this order; the last mark of a batch ends the last.
PARTS = ("data", "copy", "forward", "backward", "optimizer")
# Set by Nsight Systems in the processes that it records.
NSIGHT = "NSYS_PROFILING_SESSION_ID"


class Trace(Protocol):
    """What is recorded between start and stop, with ranges that don't overlap."""

    def start(self) -> None:
        """Start to record."""

    def stop(self) -> None:
        """End the recording, and save it."""

    def begin(self, name: str) -> None:
        """Begin a range."""

    def end(self) -> None:
        """End the range that was begun."""


class PaddleTrace:
    """Paddle's own profiler: the host's operators, and where Paddle supports it the device's kernels.

    The trace is written to path in Chrome's format.
    """

    def __init__(self, path: Path) -> None:
        from paddle import profiler

        self._event = profiler.RecordEvent
        self._profiler = profiler.Profiler(on_trace_ready=lambda made: made.export(str(path), format="json"))
        self._range: Any = None

    def start(self) -> None:
        """Start to record."""
        self._profiler.start()

    def stop(self) -> None:
        """End the recording, and write it."""
        self._profiler.stop()

    def begin(self, name: str) -> None:
        """Begin a range."""
        self._range = self._event(name)
        self._range.begin()

    def end(self) -> None:
        """End the range that was begun."""
        self._range.end()


class NsightTrace:
    """NVTX ranges, also of Paddle's operators, between cudaProfilerStart and cudaProfilerStop.

    Nsight Systems records them. Paddle's own profiler would compete with it for the GPU's counters. core is
    paddle.base.core of a build for GPUs.
    """

    def __init__(self, core: Any) -> None:
        self._core = core

    def start(self) -> None:
        """Let Nsight Systems record, if it waits for that."""
        self._core.nvprof_start()
        self._core.nvprof_enable_record_event()

    def stop(self) -> None:
        """End what Nsight Systems records, if it waits for that."""
        self._core.nvprof_disable_record_event()
        self._core.nvprof_stop()

    def begin(self, name: str) -> None:
        """Begin a range."""
        self._core.nvprof_nvtx_push(name)

    def end(self) -> None:
        """End the range that was begun."""
        self._core.nvprof_nvtx_pop()


def open_trace(path: Path, environment: Mapping[str, str]) -> Trace:
    """Returns Nsight Systems' trace where that records this process and Paddle can mark ranges for it, else Paddle's.

    Paddle's is written to path, whose folder must exist.
    """
    from paddle.base import core

    return NsightTrace(core) if NSIGHT in environment and hasattr(core, "nvprof_nvtx_push") else PaddleTrace(path)


class TracedClock:
    """A clock whose marks are also the ends of the ranges of a trace.

    The first `skipped` batches after it was made are not traced, the next `batches` are. Each must have one mark for
    each of PARTS and one at its end, as a training step's have.
    """

    def __init__(self, clock: Clock, trace: Trace, skipped: int, batches: int) -> None:
        self._clock, self._trace = clock, trace
        self._first, self._end = skipped, skipped + batches
        self._marks = 0
        self._recording = False

    def __getattr__(self, name: str) -> Any:
        """Everything but marks is the clock's own."""
        return getattr(self._clock, name)

    def mark(self) -> Any:
        """Returns the clock's mark, and goes on to the next range."""
        batch, part = divmod(self._marks, len(PARTS) + 1)
        self._marks += 1
        if part == 0 and batch == self._first:
            self._trace.start()
            self._recording = True
        elif part == 0:
            self._stop_at(batch)
        elif self._recording:
            self._trace.end()
        mark = self._clock.mark()
        if self._recording and part < len(PARTS):
            self._trace.begin(PARTS[part])
        return mark

    def close(self) -> int:
        """Save the trace of a run that ended before all batches were traced. Returns the number that were."""
        self._stop_at(self._end)
        return min(max(self._marks // (len(PARTS) + 1), self._first), self._end) - self._first

    def _stop_at(self, batch: int) -> None:
        if self._recording and batch == self._end:
            self._recording = False
            self._trace.stop()
