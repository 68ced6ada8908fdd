"""A run with those columns of its tables that are drawn, or written for other programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artifacts.liveness import shown_status
from harness.artifacts.record import RunFiles, RunRecord, read_record
from harness.artifacts.run_lookup import read_stored
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS, Table
from harness.artifacts.tables import read_table
from harness.report.findings import BUCKETS

if TYPE_CHECKING:
    import pandas as pd

# The parts of a step, in the order in which they are stacked.
PARTS = tuple(name for name in BUCKETS if name in STEPS.header)
STEP_COLUMNS = (
    "phase", "segment", "epoch", "step", "time_unix_seconds", "images", "step_seconds", "fps", "loss", "warmup",
    "interference", *PARTS,
)  # fmt: skip
# The series of the devices table that have a chart, with title and axis.
DEVICE_SERIES = {
    "util_percent": ("Utilisation", "%", 1.0),
    "memory_used_bytes": ("Memory", "GiB in use", 2.0**30),
    "power_watts": ("Power", "W", 1.0),
    "temperature_celsius": ("Temperature", "°C", 1.0),
    "jpeg_util_percent": ("JPEG engine", "% busy", 1.0),
    "sm_util_percent": ("Busy SMs", "%", 1.0),
    "dram_util_percent": ("Memory bandwidth", "% in use", 1.0),
    "sm_clock_mhz": ("SM clock", "MHz", 1.0),
}
DEVICE_COLUMNS = ("time_unix_seconds", "device", *DEVICE_SERIES)


@dataclass(frozen=True, slots=True)
class RunData:
    """A run: its record, with the status to show, and its tables, which are empty if the run has none.

    begin is the time of day from which the time axis counts, in seconds.
    """

    record: RunRecord
    steps: pd.DataFrame
    devices: pd.DataFrame
    epochs: pd.DataFrame
    bad_images: pd.DataFrame

    @property
    def name(self) -> str:
        """The run's name."""
        return self.record.run

    @property
    def begin(self) -> float:
        """The beginning of the first step, else the run's start."""
        if len(self.steps):
            return float(self.steps["time_unix_seconds"].iloc[0] - self.steps["step_seconds"].iloc[0])
        attempts = self.record.attempts
        return float(attempts[0]["started_unix_seconds"]) if attempts else 0.0

    @property
    def is_concluded(self) -> bool:
        """Whether the run has ended as planned, so that its figures are known."""
        return self.record.status == "finished"


def read_run(path: Path) -> RunData:
    """Returns the run of a record. Raises UsageError or MachineError where it can't be read."""
    files, record = RunFiles(path.parent, path.stem), read_record(path)
    return with_tables(files, replace(record, status=shown_status(read_stored(path), files.lock)))


def with_tables(files: RunFiles, record: RunRecord) -> RunData:
    """Returns a record with the run's tables."""
    return RunData(
        record=record,
        steps=_read(files, STEPS, STEP_COLUMNS),
        devices=_read(files, DEVICES, DEVICE_COLUMNS),
        epochs=_read(files, EPOCHS, EPOCHS.header),
        bad_images=_read(files, BAD_IMAGES, BAD_IMAGES.header),
    )


def _read(files: RunFiles, table: Table, columns: tuple[str, ...] | list[str]) -> pd.DataFrame:
    path = files.table(table.name)
    if path.exists() and path.stat().st_size:
        return read_table(path, table, columns)
    from pandas import DataFrame, Series

    empty: pd.DataFrame = DataFrame({name: Series(dtype="float64") for name in columns})
    return empty
