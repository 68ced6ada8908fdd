"""What a measurement of latency leaves: its record, `<name>.json`, and its table, `<name>.latency.csv`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.analysis.comparing.compare import Side
from harness.analysis.latency.claim import Claim
from harness.analysis.latency.figures import Turn
from harness.analysis.latency.job import Job, job_of
from harness.analysis.latency.kernels import KernelProfile, KernelUse
from harness.analysis.latency.medians import MedianEstimate
from harness.analysis.latency.table import LATENCY
from harness.artifacts.atomic import read_whole, write_whole
from harness.artifacts.record import RunFiles
from harness.artifacts.run_lookup import LATENCY as KIND
from harness.artifacts.run_lookup import exists, kind_of
from harness.artifacts.tables import csv_line, format_cell
from harness.errors import UsageError

LATENCY_VERSION = 1
# Of what two measurements must have in common for their times to be times of the same work.
SAME_JOB = ("device", "threads", "batch_size", "image_size", "strides")


@dataclass(frozen=True, slots=True)
class LatencyRecord:
    """A measurement of latency as it is stored.

    rows are those of the table. turns has a row for each turn: size, engine, round, median_ms, p95_ms, calls,
    warmup_calls, disturbed, joules. device_name is the processor's or GPU's; meter names what watts were read from,
    empty without one. weights says whose weights were timed. environment is that of a run.
    """

    name: str
    job: Job
    device_name: str
    weights: str
    meter: str
    begun_unix_seconds: float
    environment: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    turns: tuple[dict[str, Any], ...]
    claims: tuple[Claim, ...]
    profiles: tuple[KernelProfile, ...]
    warnings: tuple[str, ...] = ()
    kind: str = field(default=KIND)
    schema_version: int = LATENCY_VERSION

    def row(self, size: str, engine: str) -> dict[str, Any] | None:
        """Returns the row of a size with an engine, if it has figures."""
        found = (row for row in self.rows if (row["model"], row["engine"]) == (size, engine))
        return next((row for row in found if row.get("median_ms") is not None), None)

    @property
    def measured(self) -> tuple[tuple[str, str], ...]:
        """The sizes and engines that have figures."""
        return tuple(pair for pair in self.job.pairs if self.row(*pair) is not None)


def turn_values(turns: Sequence[Turn]) -> tuple[dict[str, Any], ...]:
    """Returns what a record keeps of turns: all but the time of every call."""
    return tuple(
        {
            "size": turn.size,
            "engine": turn.engine,
            "round": turn.round,
            "median_ms": turn.median_ms,
            "p95_ms": turn.p95_ms,
            "calls": len(turn.counted),
            "warmup_calls": turn.warmup_calls,
            "disturbed": "|".join(turn.disturbed),
            "joules": turn.joules,
        }
        for turn in turns
    )


def write_latency(files: RunFiles, record: LatencyRecord) -> None:
    """Write the table, then the record. Raises MachineError."""
    rows = [[format_cell(row.get(column.name), column) for column in LATENCY.columns] for row in record.rows]
    write_whole(files.table(LATENCY.name), b"".join(map(csv_line, [LATENCY.header, *rows])))
    write_whole(files.record, json.dumps(asdict(record), indent=2, default=str) + "\n")


def read_latency(path: Path) -> LatencyRecord:
    """Read a record. Raises UsageError for a file that is none, MachineError for one that can't be read."""
    try:
        values = json.loads(read_whole(path))
        if kind_of(values) != KIND:
            raise UsageError(f"{path} is not a measurement of latency", "Name one that run_bench.py latency wrote.")
        if values["schema_version"] != LATENCY_VERSION:
            raise UsageError(
                f"{path.name} has schema version {values['schema_version']}; this version reads {LATENCY_VERSION}",
                "Measure again.",
            )
        return LatencyRecord(
            **{
                **values,
                "job": job_of(values["job"]),
                "rows": tuple(values["rows"]),
                "turns": tuple(values["turns"]),
                "warnings": tuple(values["warnings"]),
                "claims": tuple(map(_claim, values["claims"])),
                "profiles": tuple(map(_profile, values["profiles"])),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path} is not the record of a measurement of latency: {error!r}",
            "Name one that run_bench.py latency wrote.",
        ) from error


def _claim(values: dict[str, Any]) -> Claim:
    pairs = {name: tuple((str(a), str(b)) for a, b in values[name]) for name in ("faster", "alike")}
    names = {name: tuple(map(str, values[name])) for name in ("sizes", "by_value", "published_by_value")}
    return Claim(**{**values, **pairs, **names, "growth": MedianEstimate(**values["growth"])})


def _profile(values: dict[str, Any]) -> KernelProfile:
    return KernelProfile(**{**values, "kernels": tuple(KernelUse(**kernel) for kernel in values["kernels"])})


def find_latency(name: str, folder: Path) -> Path | None:
    """Returns the record that a name or path ending in .json means, if it is one of latency."""
    path = Path(name) if name.endswith(".json") else folder / f"{name}.json"
    if not exists(path):
        return None
    try:
        return path if kind_of(json.loads(path.read_text(encoding="utf-8"))) == KIND else None
    except (OSError, ValueError, RecursionError):
        return None


def side_of(record: LatencyRecord, size: str, engine: str) -> Side:
    """Returns a row as one side of `harness.analysis.comparing.compare`: its images per second, as one run."""
    row = record.row(size, engine)
    assert row is not None
    return Side(record.name, (row["images_per_second"],), row["relative_standard_error"], max(1, row["rounds"] - 1))


def unlike(a: LatencyRecord, b: LatencyRecord) -> list[str]:
    """Returns what differs between the jobs of two measurements besides sizes and engines, in words."""
    pairs = ((name, getattr(a.job, name), getattr(b.job, name)) for name in SAME_JOB)
    return [f"{name.replace('_', ' ')} ({left}, {right})" for name, left, right in pairs if left != right]
