"""What rank 0 writes while it runs: step, epoch and device rows, joined with telemetry by time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any, Protocol

from harness.launch import run_root
from harness.loop import GlobalStep
from harness.record import RunFiles, read_record, write_record
from harness.tables.files import TableWriter
from harness.tables.schema import DEVICES, EPOCHS, STEPS
from harness.telemetry.host import HostProbe
from harness.telemetry.nvml import Gpu, Nvml, NvmlUnavailable, visible_gpus
from harness.telemetry.processes import RunProcesses
from harness.telemetry.sampler import DeviceSample, Sampler


class Recorder(Protocol):
    """Where a worker's rows go."""

    def step(self, step: GlobalStep, phase_started_at: float, /, **columns: Any) -> None:
        """Record one global step; phase_started_at is the clock's host time at its phase's start."""

    def epoch(self, **columns: Any) -> None:
        """Record one epoch."""


class NoRecorder:
    """The recorder of a rank that records nothing."""

    def step(self, step: GlobalStep, phase_started_at: float, /, **columns: Any) -> None:
        """Nothing."""

    def epoch(self, **columns: Any) -> None:
        """Nothing."""


class TableRecorder:
    """Writes rows to the run's tables as they come."""

    def __init__(
        self, steps: TableWriter, epochs: TableWriter, sampler: Sampler, unix_offset_seconds: float | None = None
    ) -> None:
        self._steps, self._epochs, self._sampler = steps, epochs, sampler
        self._unix_offset_seconds = _unix_offset_seconds() if unix_offset_seconds is None else unix_offset_seconds

    def step(self, step: GlobalStep, phase_started_at: float, /, **columns: Any) -> None:
        """Record one global step with the telemetry of its time."""
        end = phase_started_at + step.end_seconds
        telemetry = self._sampler.window(end - step.step_seconds, end)
        measured = {name: value for name, value in asdict(step).items() if name not in ("index", "end_seconds")}
        self._steps.write(
            {
                **measured,
                "time_unix_seconds": self._unix_offset_seconds + end,
                "fps": step.fps,
                **asdict(telemetry),
                **columns,
            }
        )

    def epoch(self, **columns: Any) -> None:
        """Record one epoch."""
        self._epochs.write(columns)


@contextmanager
def open_recorder(
    files: RunFiles, on_gpu: bool, interval_seconds: float, environment: Mapping[str, str]
) -> Iterator[Recorder]:
    """A recorder with its tables open and its sampler running.

    What goes wrong with telemetry becomes a warning in the run's record, at once.
    """

    def warn(message: str) -> None:
        write_record(files.record, read_record(files.record).warned(message))

    with ExitStack() as stack:
        steps = stack.enter_context(TableWriter(files.table(STEPS.name), STEPS))
        epochs = stack.enter_context(TableWriter(files.table(EPOCHS.name), EPOCHS))
        devices = stack.enter_context(TableWriter(files.table(DEVICES.name), DEVICES))
        # One offset for steps and samples: a clock that is set while the run lasts would part them.
        unix_offset = _unix_offset_seconds()
        nvml, gpus = _open_gpus(stack, warn, environment) if on_gpu else (None, ())
        sampler = Sampler(
            devices=[(f"gpu{rank}", gpu) for rank, gpu in enumerate(gpus)],
            nvml=nvml,
            host=HostProbe(processes=RunProcesses(run_root(environment, os.getpid()))),
            on_sample=lambda sample: devices.write(_device_row(sample)),
            warn=warn,
            interval_seconds=interval_seconds,
            clock=time.perf_counter,
            unix_clock=lambda: unix_offset + time.perf_counter(),
        )
        stack.enter_context(sampler)
        yield TableRecorder(steps, epochs, sampler, unix_offset)


def _unix_offset_seconds() -> float:
    """What time.time() is ahead of time.perf_counter()."""
    return time.time() - time.perf_counter()


def _open_gpus(stack: ExitStack, warn: Any, environment: Mapping[str, str]) -> tuple[Nvml | None, Sequence[Gpu]]:
    try:
        nvml = stack.enter_context(Nvml(warn))
        return nvml, visible_gpus(nvml.gpus(), environment.get("CUDA_VISIBLE_DEVICES"))
    except NvmlUnavailable as error:
        warn(f"no GPU telemetry: {error}")
        return None, ()


def _device_row(sample: DeviceSample) -> dict[str, Any]:
    row = asdict(sample)
    if row["throttle_reasons"] == "":
        row["throttle_reasons"] = "none"  # known, unlike an empty cell
    return row
