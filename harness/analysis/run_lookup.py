"""Finding what earlier runs left: a run, a series of repeats or the reference row, by its name."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.compare import Side
from harness.analysis.run_diff import REFERENCE_JOB, Job, job_of
from harness.artifacts.record import SCHEMA_VERSION, RunRecord, read_record
from harness.artifacts.reference_table import REFERENCE_FILE, ReferenceRow, read_reference
from harness.artifacts.schema import REPEATS, TRAIN
from harness.errors import UsageError

REFERENCE = REFERENCE_FILE.stem
MAX_NAMED = 5  # runs in a cure


@dataclass(frozen=True, slots=True)
class StoredResult:
    """What a name stands for: one finished run, the finished runs of a series of repeats, or the reference row.

    Either records or reference is there. name is the file's, without .json.
    """

    name: str
    records: tuple[RunRecord, ...]
    reference: ReferenceRow | None = None

    @property
    def side(self) -> Side:
        """Its rates, as `harness.analysis.compare` takes them; nothing is known of the reference's spread."""
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
        """What its runs did; of a series, the first one."""
        return REFERENCE_JOB if self.reference is not None else job_of(self.records[0])


def find_result(name: str, folder: Path) -> StoredResult:
    """What name stands for: the reference, a path that ends in .json, or a run or series in the folder.

    Raises UsageError for what isn't there, can't be read, isn't finished, or is a series of anything but repeats.
    """
    if name == REFERENCE:
        return StoredResult(name, (), read_reference())
    path = _path(name, folder)
    values = _values(path)
    if "kind" not in values:
        return StoredResult(path.stem, (_finished(path),))
    members = _members(path, values)
    if values["kind"] != REPEATS:
        raise UsageError(
            f"{path.stem!r} is a series of kind {values['kind']!r}; only the runs of {REPEATS!r} do the same job",
            f"Compare its runs instead: {_listed(members)}.",
        )
    if values.get("status") != "finished":
        raise UsageError(
            f"the series {path.stem!r} is not finished, its status is {values.get('status')!r}",
            f"Compare its runs instead: {_listed(members)}." if members else "Measure the series again.",
        )
    missing = [member for member in members if not _exists(path.parent / f"{member}.json")]
    if missing:
        raise UsageError(
            f"the series {path.stem!r} lacks its runs {_listed(missing)} in {str(path.parent)!r}",
            "Put their files beside the series', or compare single runs.",
        )
    return StoredResult(path.stem, tuple(_finished(path.parent / f"{member}.json") for member in members))


def _path(name: str, folder: Path) -> Path:
    if name.endswith(".json"):
        path = Path(name)
        if _exists(path):
            return path
        if "/" in name:
            raise UsageError(f"no file {name!r}", _hint(path.stem, path.parent))
    if not _is_name(name):
        raise UsageError(
            f"{name!r} names no run",
            "Give the name of a run in --results, or the path of its record, which ends in .json.",
        )
    for path in (folder / f"{name}.json", folder / name):
        if path.suffix == ".json" and _exists(path):
            return path
    raise UsageError(f"no run or series {name!r} in {str(folder)!r}", _hint(name, folder))


def _is_name(name: str) -> bool:
    """Whether a file can have the name, and lies in the folder then."""
    return bool(name) and "/" not in name and "\0" not in name


def _exists(path: Path) -> bool:
    """Whether there is such a file; pathlib would raise for a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110


def _hint(name: str, folder: Path) -> str:
    if not os.path.isdir(folder):  # noqa: PTH112
        return "There is no such folder; --results names the one that has the runs."
    known = [*sorted((path.stem for path in folder.glob("[!.]*.json")), reverse=True), REFERENCE]
    close = [one for one in known if name in one] or difflib.get_close_matches(name, known, n=3)
    if close:
        return f"Did you mean {_listed(close, 'or')}?"
    return f"Known there: {_listed(known)}. --results names another folder."


def _listed(names: Sequence[str], word: str = "and") -> str:
    """The names as one can type them, the first MAX_NAMED of many."""
    shown = [repr(name) for name in names[:MAX_NAMED]]
    if len(names) > MAX_NAMED:
        shown.append(f"{len(names) - MAX_NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {word} {shown[-1]}"


def _values(path: Path) -> dict[str, Any]:
    """What the file holds. Raises UsageError unless it can be read and is a JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise UsageError(
                f"{str(path)!r} is empty: the run has just begun, or was killed as it began",
                "Wait for its end, or run it again.",
            )
        values = json.loads(text)
    except OSError as error:
        raise UsageError(
            f"can't read {str(path)!r}: {error.strerror}", "Name a <run>.json that can be read."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is no JSON: {error}", "Name a <run>.json that run_bench.py wrote.") from error
    if not isinstance(values, dict):
        raise UsageError(f"{str(path)!r} is no run's record", "Name a <run>.json that run_bench.py wrote.")
    return values


def _members(path: Path, values: dict[str, Any]) -> list[str]:
    """The names of a series' runs."""
    version, runs = values.get("schema_version"), values.get("runs")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"the series {path.stem!r} has schema version {version!r}, known is {SCHEMA_VERSION}",
            "Read it with the version of this project that wrote it.",
        )
    if not isinstance(runs, list) or not runs or not all(isinstance(run, str) and _is_name(run) for run in runs):
        raise UsageError(
            f"the series {path.stem!r} names no runs: {runs!r}", "Compare single runs, or measure the series again."
        )
    if len(set(runs)) < len(runs):
        raise UsageError(f"the series {path.stem!r} names a run twice: {_listed(runs)}", "Measure the series again.")
    return runs


def _finished(path: Path) -> RunRecord:
    """A finished run's record, whose rate is a number. Raises UsageError for anything else."""
    _values(path)
    record = read_record(path)
    if record.status != "finished":
        cure = "Wait for its end." if record.status == "running" else "Run it again, under another --run-name."
        raise UsageError(f"run {path.stem!r} is not finished, its status is {record.status!r}", cure)
    try:
        train = record.phases[TRAIN]
        Side(path.stem, (train["fps"],), train.get("relative_standard_error"), train.get("degrees_of_freedom"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{str(path)!r} holds no throughput of a training: {error}", "Run it again, under another --run-name."
        ) from error
    return record
