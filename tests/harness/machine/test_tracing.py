"""Ranges of a step's parts: in a trace that Paddle's profiler writes, and as NVTX ranges for Nsight Systems."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paddle
import pytest

from harness.machine.clock import HostClock
from harness.machine.tracing import NSIGHT, PARTS, NsightTrace, PaddleTrace, TracedClock, open_trace
from harness.training.loop import GlobalStep, run_steps
from harness.training.ranks import Ranks
from pipelines.batch import Batch

NVPROF = ("nvprof_start", "nvprof_stop", "nvprof_enable_record_event", "nvprof_disable_record_event",
          "nvprof_nvtx_push", "nvprof_nvtx_pop")  # fmt: skip


class Core:
    """Paddle's calls for NVTX, which no build for CPUs has; calls are kept."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        for name in NVPROF:
            setattr(self, name, lambda *given, name=name: self.calls.append(" ".join([name, *given])))


class Batches:
    """Batches of two images without end."""

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return Batch(paddle.ones([2, 4]), paddle.zeros([2], "int64"), 2)


def consume(batch: Batch, mark_split: Any) -> Any:
    """A step with all its parts, each of an operator of its own."""
    images = batch.images
    images.stop_gradient = False
    product = paddle.tanh(images)
    mark_split()
    product.sum().backward()
    mark_split()
    return paddle.exp(images.mean())


def traced_steps(trace: Any, skipped: int, batches: int, steps: int, segments: int = 1) -> TracedClock:
    """Make steps in our own loop, with a clock that traces some of them."""
    clock = TracedClock(HostClock(), trace, skipped, batches)
    for _ in range(segments):
        made: list[GlobalStep] = []
        run_steps(Batches(), consume, clock, Ranks(0, 1), made.append, max_steps=steps)
        assert len(made) == steps
    return clock


def events(path: Path) -> list[dict[str, Any]]:
    """The events of a trace in Chrome's format that last a time, in order of their beginning."""
    found = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return sorted((event for event in found if event.get("ph") == "X"), key=lambda event: float(event["ts"]))


def called(event: dict[str, Any]) -> str:
    """An event's name without its duration."""
    return str(event["name"]).partition("[")[0]


def parts_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ranges that we set; Paddle calls one of its own "backward", too."""
    return [event for event in found if event["cat"] == "PythonUserDefined"]


def test_paddle_s_trace_has_every_part_of_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    clock = traced_steps(PaddleTrace(path), skipped=2, batches=3, steps=8)
    assert clock.close() == 3
    found = events(path)
    ranges = parts_of(found)
    assert [called(event) for event in ranges] == 3 * list(PARTS)
    ends = [float(event["ts"]) + float(event["dur"]) for event in ranges]
    # Times are in microseconds, of which Paddle writes some parts as whole ones.
    assert all(end <= float(after["ts"]) + 2 for end, after in zip(ends, ranges[1:], strict=False))
    for operator, part in (("tanh", "forward"), ("tanh_grad", "backward"), ("exp", "optimizer")):
        inside = [event for event in found if called(event) == f"{operator} kernel launch"]
        assert len(inside) == 3
        for event, within in zip(inside, (one for one in ranges if called(one) == part), strict=True):
            assert float(within["ts"]) - 2 <= float(event["ts"]) <= float(within["ts"]) + float(within["dur"]) + 2


def test_a_trace_goes_on_in_the_next_segment_and_is_saved_when_the_run_ends_before(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    clock = traced_steps(PaddleTrace(path), skipped=1, batches=9, steps=2, segments=2)
    assert not path.exists()
    assert clock.close() == 3
    assert [called(event) for event in parts_of(events(path))] == 3 * list(PARTS)
    written = path.read_bytes()
    assert clock.close() == 3
    assert path.read_bytes() == written


def test_nsight_systems_gets_ranges_between_start_and_stop() -> None:
    core = Core()
    traced_steps(NsightTrace(core), skipped=1, batches=1, steps=4)
    ranges = [call for part in PARTS for call in (f"nvprof_nvtx_push {part}", "nvprof_nvtx_pop")]
    assert core.calls == [
        "nvprof_start", "nvprof_enable_record_event", *ranges, "nvprof_disable_record_event", "nvprof_stop",
    ]  # fmt: skip


def test_the_clock_s_times_are_its_own(tmp_path: Path) -> None:
    times = iter(range(100))
    clock = TracedClock(HostClock(lambda: float(next(times))), PaddleTrace(tmp_path / "trace.json"), 5, 1)
    clock.start()
    assert clock.started_at == 1.0
    assert [clock.mark(), clock.mark(), clock.host_seconds()] == [1.0, 2.0, 3.0]
    assert clock.seconds([1.0, 2.0]) == [1.0, 2.0]


@pytest.mark.parametrize("environment", [{}, {NSIGHT: "1"}])
def test_which_trace_is_made(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build for CPUs has nothing for Nsight Systems, so that its own trace is made there in any case."""
    core = paddle.base.core
    assert not any(hasattr(core, name) for name in NVPROF)
    assert isinstance(open_trace(tmp_path / "trace.json", environment), PaddleTrace)
    for name in NVPROF:
        monkeypatch.setattr(core, name, SimpleNamespace(), raising=False)
    assert isinstance(open_trace(tmp_path / "trace.json", environment), NsightTrace) == bool(environment)
