"""What rank 0 writes during a run: step, epoch and device rows, joined with telemetry by time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from harness.artifacts.bad_image import BadImage, bad_image_row
from harness.artifacts.record import RunFiles, read_record, write_record
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter
from harness.errors import MachineError
from harness.launch.process_tree import run_root
from harness.machine.host import HostProbe
from harness.machine.nvml import Gpu, Nvml, NvmlUnavailable
from harness.machine.processes import RunProcesses
from harness.machine.sampler import DeviceSample, Sampler
from harness.machine.telemetry import Telemetry
from harness.training.loop import GlobalStep
from models.errors import ActionableError
from models.notes import Note

if TYPE_CHECKING:
    from typing_extensions import Self


class Recorder(Protocol):
    """Where a rank's rows go."""

    def step(self, step: GlobalStep, phase_started_at: float, /, **columns: Any) -> None:
        """Record one global step; phase_started_at is the clock's host time at its phase's start."""

    def epoch(self, **columns: Any) -> None:
        """Record one epoch."""

    def bad_image(self, image: BadImage, /) -> None:
        """Record an image that is left out."""

    def rows(self) -> dict[str, int]:
        """The number of rows of every table, by its name."""

    def cut(self, rows: Mapping[str, int], /) -> None:
        """Remove the rows of steps and epochs after these numbers of rows."""

    def sync(self) -> None:
        """Flush the rows of steps, epochs and bad images to the disk itself."""

    def read_energy(self) -> None:
        """Have the devices' energy counters read now, at the edge of a burst of steps, without waiting for it."""


class NoRecorder:
    """The recorder of a rank that records nothing."""

    def step(self, step: GlobalStep, phase_started_at: float, /, **columns: Any) -> None:
        """Do nothing."""

    def epoch(self, **columns: Any) -> None:
        """Do nothing."""

    def bad_image(self, image: BadImage, /) -> None:
        """Do nothing."""

    def rows(self) -> dict[str, int]:
        """An empty dictionary."""
        return {}

    def cut(self, rows: Mapping[str, int], /) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def read_energy(self) -> None:
        """Do nothing."""


# A node that doesn't record keeps at most so many of the last steps, some megabytes.
MAX_FOLLOWED_STEPS = 10_000


class StepsRecorder(NoRecorder):
    """Lets the launching process of a node that doesn't record follow the run: the last steps, in a private table.

    The run can do without it: after a row that can't be written, there are no more.
    """

    def __init__(self, steps: TableWriter, max_steps: int = MAX_FOLLOWED_STEPS) -> None:
        self._steps: TableWriter | None = steps
        self._max_steps = max_steps

    def step(self, step: GlobalStep, _: float, /, **columns: Any) -> None:
        """Write what the progress bar shows of a step."""
        if self._steps is None:
            return
        try:
            if self._steps.rows >= self._max_steps:
                self._steps.cut(0)
            shown = {name: columns.get(name) for name in ("phase", "epoch", "step")}
            self._steps.write({**shown, "step_seconds": step.step_seconds, "fps": step.fps})
        except MachineError:
            self._steps = None


@contextmanager
def open_steps_recorder(files: RunFiles) -> Iterator[Recorder]:
    """A recorder for the first rank of a node that doesn't record."""
    with TableWriter(files.table(STEPS.name), STEPS) as steps:
        yield StepsRecorder(steps)


# The fields of a step that the steps table doesn't have.
NO_COLUMNS = ("index", "end_seconds", "nonfinite_rank")


class TableRecorder:
    """Writes rows to the run's tables as they come."""

    def __init__(
        self,
        steps: TableWriter,
        epochs: TableWriter,
        sampler: Sampler,
        unix_offset_seconds: float | None = None,
        others: Sequence[TableWriter] = (),
        bad_images: TableWriter | None = None,
    ) -> None:
        self._steps, self._epochs, self._sampler = steps, epochs, sampler
        self._bad_images = bad_images
        self._tables = [table for table in (steps, epochs, bad_images, *others) if table is not None]
        self._unix_offset_seconds = _unix_offset_seconds() if unix_offset_seconds is None else unix_offset_seconds

    def step(self, step: GlobalStep, phase_started_at: float, /, **columns: Any) -> None:
        """Record one global step with the telemetry of its time."""
        end = phase_started_at + step.end_seconds
        telemetry = self._sampler.window(end - step.step_seconds, end)
        measured = {name: value for name, value in asdict(step).items() if name not in NO_COLUMNS}
        self._steps.write(
            {
                **measured,
                "time_unix_seconds": self._unix_offset_seconds + end,
                "fps": step.fps,
                **asdict(telemetry),
                # All that is known during a run; only the finished run shows where its warm-up ends.
                "transition": columns.pop("warmup", None),
                **columns,
            }
        )

    def epoch(self, **columns: Any) -> None:
        """Record one epoch."""
        self._epochs.write(columns)

    def bad_image(self, image: BadImage, /) -> None:
        """Record an image that is left out."""
        if self._bad_images is not None:
            self._bad_images.write(bad_image_row(image))

    def rows(self) -> dict[str, int]:
        """The number of rows of every table, by its name."""
        return {table.name: table.rows for table in self._tables}

    def cut(self, rows: Mapping[str, int], /) -> None:
        """Remove the rows of steps and epochs after these numbers of rows."""
        for table in (self._steps, self._epochs):
            table.cut(rows[table.name])

    def sync(self) -> None:
        """Flush the rows of steps, epochs and bad images to the disk itself."""
        for table in (self._steps, self._epochs, self._bad_images):
            if table is not None:
                table.sync()

    def read_energy(self) -> None:
        """Have the devices' energy counters read now, at the edge of a burst of steps, without waiting for it."""
        self._sampler.read_energy()


@contextmanager
def open_recorder(
    files: RunFiles, telemetry: Telemetry | None, interval_seconds: float, environment: Mapping[str, str]
) -> Iterator[Recorder]:
    """A recorder with its tables open and its sampler running.

    telemetry says which devices are sampled besides the host; None samples the host only. Every problem with telemetry
    becomes a warning in the run's record, at once.
    """

    with ExitStack() as stack:
        warn = stack.enter_context(_Warnings(files))
        steps = stack.enter_context(TableWriter(files.table(STEPS.name), STEPS))
        epochs = stack.enter_context(TableWriter(files.table(EPOCHS.name), EPOCHS))
        devices = stack.enter_context(TableWriter(files.table(DEVICES.name), DEVICES))
        # One offset for steps and samples: setting the system's clock during the run would shift them apart.
        unix_offset = _unix_offset_seconds()
        nvml, gpus = (None, ()) if telemetry is None else _open_gpus(stack, warn, telemetry, environment)
        sampler = Sampler(
            devices=[(f"gpu{rank}", gpu) for rank, gpu in enumerate(gpus)],
            nvml=nvml,
            host=HostProbe(processes=RunProcesses(run_root(environment, os.getpid()))),
            on_sample=partial(_write_sample, devices, warn),
            warn=warn,
            interval_seconds=interval_seconds,
            clock=time.perf_counter,
            unix_clock=lambda: unix_offset + time.perf_counter(),
        )
        stack.enter_context(sampler)
        bad_images = stack.enter_context(TableWriter(files.table(BAD_IMAGES.name), BAD_IMAGES))
        yield TableRecorder(steps, epochs, sampler, unix_offset, [devices], bad_images)


class _Warnings:
    """Adds warnings to the run's record, each message once.

    One that can't be written, such as on a full disk, is tried again with the next one and at the end, and then
    dropped: a warning never ends a run.
    """

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._seen: set[str] = set()
        self._waiting: list[str] = []

    def __call__(self, message: str) -> None:
        if message not in self._seen:
            self._seen.add(message)
            self._waiting.append(message)
            self._write()

    def _write(self) -> None:
        with suppress(ActionableError):
            record = read_record(self._files.record)
            write_record(self._files.record, replace(record, warnings=(*record.warnings, *self._waiting)))
            self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            self._write()


def _write_sample(devices: TableWriter, warn: Callable[[str], None], sample: DeviceSample) -> None:
    """Add a row to the devices table. The run can do without it: a full disk gives one warning for all devices."""
    try:
        devices.write(_device_row(sample))
    except MachineError as error:
        warn(
            Note(f"telemetry: rows are missing in {devices.path.name}: {error}", "Make room on the disk of --results.")
        )


def _unix_offset_seconds() -> float:
    """The seconds by which time.time() is ahead of time.perf_counter()."""
    return time.time() - time.perf_counter()


def _open_gpus(
    stack: ExitStack, warn: Callable[[str], None], telemetry: Telemetry, environment: Mapping[str, str]
) -> tuple[Nvml | None, Sequence[Gpu]]:
    try:
        nvml = stack.enter_context(Nvml(warn, library=telemetry.library))
        gpus = telemetry.sampled(nvml, environment)
    except NvmlUnavailable as error:
        warn(Note(f"no GPU telemetry: {error}", "run_bench.py doctor says what NVML lacks."))
        return None, ()
    if telemetry.devices is not None and len(gpus) < telemetry.devices:
        reported = (
            f"telemetry of {len(gpus)} of {telemetry.devices} devices only: {telemetry.library} reports no others"
        )
        warn(Note(reported, "Check with the vendor's own tool that it lists all of them."))
    return nvml, gpus


def _device_row(sample: DeviceSample) -> dict[str, Any]:
    row = asdict(sample)
    if row["throttle_reasons"] == "":
        row["throttle_reasons"] = "none"  # known, unlike an empty cell
    return row
