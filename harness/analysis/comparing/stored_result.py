"""Finds the throughput of an earlier run, a series of repeats or the reference row by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.comparing.compare import Side
from harness.analysis.comparing.run_diff import REFERENCE_JOB, Job, job_of
from harness.artifacts.file_names import REFERENCE
from harness.artifacts.liveness import RUNNING, shown_status
from harness.artifacts.record import SCHEMA_VERSION, RunFiles, RunRecord, read_record
from harness.artifacts.reference_table import ReferenceRow, read_reference
from harness.artifacts.run_lookup import (
    NAME_A_RECORD,
    SERIES,
    exists,
    find_stored,
    is_name,
    kind_of,
    listed,
    read_stored,
)
from harness.artifacts.schema import REPEATS, TRAIN
from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class StoredResult:
    """The result behind a name: one finished run, the finished runs of a series of repeats, or the reference row.

    Either records or reference is set. name is that of the file, without .json.
    """

    name: str
    records: tuple[RunRecord, ...]
    reference: ReferenceRow | None = None

    @property
    def side(self) -> Side:
        """Its rates for `harness.analysis.comparing.compare`; the spread of the reference is unknown."""
        if self.reference is not None:
            return Side(self.name, (float(self.reference.cells[2]),), None, None, exact=True)
        single = self.records[0].phases[TRAIN] if len(self.records) == 1 else {}
        return Side(
            self.name,
            tuple(record.phases[TRAIN]["fps"] for record in self.records),
            single.get("relative_standard_error"),
            single.get("degrees_of_freedom"),
        )

    @property
    def job(self) -> Job:
        """The job that its runs did; that of the first run for a series."""
        return REFERENCE_JOB if self.reference is not None else job_of(self.records[0])


def find_result(name: str, folder: Path) -> StoredResult:
    """Returns the result of a name: the reference, a path that ends in .json, or a run or series in the folder.

    Raises UsageError for a result that doesn't exist, can't be read, isn't finished, or is a series other than repeats.
    """
    if name == REFERENCE:
        if exists(own := folder / f"{REFERENCE}.json"):
            raise UsageError(
                f"{name!r} is the published row, and there is a file {str(own)!r}",
                f"For the run, name that file: {str(own.absolute())!r}; for the published row, move it elsewhere.",
            )
        return StoredResult(name, (), read_reference())
    path = find_stored(name, folder, (REFERENCE,))
    values = read_stored(path)
    if kind_of(values) is None:
        raise UsageError(f"{str(path)!r} is not the record of a run or series", NAME_A_RECORD)
    if kind_of(values) != SERIES:
        return StoredResult(path.stem, (_finished(path),))
    members = series_runs(path, values)
    if values["kind"] != REPEATS:
        raise UsageError(
            f"{path.stem!r} is a series of kind {values['kind']!r}; only the runs of {REPEATS!r} all do the same job",
            f"Compare its runs instead: {listed(members)}.",
        )
    if values.get("status") != "finished":
        raise UsageError(
            f"the series {path.stem!r} is not finished; its status is {shown_status(values)!r}",
            f"Compare its runs instead: {listed(members)}." if members else "Measure the series again.",
        )
    return StoredResult(path.stem, tuple(map(_finished, series_records(path, members))))


def series_runs(path: Path, values: dict[str, Any]) -> list[str]:
    """Returns the names of a series' runs. Raises UsageError unless they are valid."""
    version, runs = values.get("schema_version"), values.get("runs")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"the series {path.stem!r} has schema version {version!r}; this version reads {SCHEMA_VERSION}",
            "Read it with the version of this project that wrote it.",
        )
    if not isinstance(runs, list) or not runs or not all(isinstance(run, str) and is_name(run) for run in runs):
        raise UsageError(
            f"the series {path.stem!r} names no runs: {runs!r}", "Compare single runs, or measure the series again."
        )
    if len(set(runs)) < len(runs):
        raise UsageError(f"the series {path.stem!r} names a run twice: {listed(runs)}", "Measure the series again.")
    return runs


def series_records(path: Path, runs: Sequence[str]) -> list[Path]:
    """Returns the records of a series' runs, which lie beside it. Raises UsageError if one is missing."""
    records = [path.with_name(f"{run}.json") for run in runs]
    if missing := [record.stem for record in records if not exists(record)]:
        raise UsageError(
            f"runs of the series {path.stem!r} are missing in {str(path.parent)!r}: {listed(missing)}",
            "Put their files next to the series' file, or name single runs.",
        )
    return records


def _check_edited(record: RunRecord) -> None:
    """Raise ValueError for figures that no run can have written, as somebody has edited them."""
    train, top1 = record.phases[TRAIN], record.summary.get("top1")
    low, high = train.get("fps_low"), train.get("fps_high")
    if (low is not None and train["fps"] < low) or (high is not None and train["fps"] > high):
        raise ValueError(f"{train['fps']} images/s are outside of their own interval, {low} to {high}")
    if top1 is not None and not 0 <= top1 <= 1:
        raise ValueError(f"top-1 is {top1}")


def _finished(path: Path) -> RunRecord:
    """Returns the record of a finished run with a valid throughput. Raises UsageError for anything else."""
    values = read_stored(path)
    record = read_record(path)
    if record.status != "finished":
        status = shown_status(values, RunFiles(path.parent, path.stem).lock)
        cure = "Wait for its end." if status == RUNNING else "Run it again, under another --run-name."
        raise UsageError(f"run {path.stem!r} is not finished; its status is {status!r}", cure)
    if TRAIN not in record.phases:
        raise UsageError(
            f"run {path.stem!r}, which {record.plan.kind.does}, has no training throughput", "Name a run that trains."
        )
    try:
        train = record.phases[TRAIN]
        Side(path.stem, (train["fps"],), train.get("relative_standard_error"), train.get("degrees_of_freedom"))
        _check_edited(record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{str(path)!r} has no valid training throughput: {error}", "Run it again, under another --run-name."
        ) from error
    return record
