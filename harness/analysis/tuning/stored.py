"""A tuning's folder: its record, from which it is resumed, and the table of its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.analysis.tuning.trial import Candidate, Trial
from harness.artifacts.atomic import read_whole, write_whole
from harness.artifacts.shared_schema import TRIALS
from harness.artifacts.tables import csv_line, format_cell
from harness.errors import UsageError
from harness.plan.options import parse_config

TUNING_VERSION = 1
TUNING_SUFFIX = ".tuning"


@dataclass(frozen=True, slots=True)
class TuningFiles:
    """Where a tuning's files are. The runs of its trials have theirs beside them, in the same folder."""

    results: Path
    name: str

    @property
    def folder(self) -> Path:
        """The folder of all."""
        return self.results / f"{self.name}{TUNING_SUFFIX}"

    @property
    def record(self) -> Path:
        """What was asked for, every trial, and what was found."""
        return self.folder / "tuning.json"

    @property
    def trials(self) -> Path:
        """The table of the trials."""
        return self.folder / f"{TRIALS.name}.csv"

    @property
    def options(self) -> Path:
        """The options of the fastest settings, for --config."""
        return self.folder / "tuned.toml"

    @property
    def lock(self) -> Path:
        """The file whose lock the tuning's process holds; that of shared tables is another."""
        return self.folder / ".tuning.lock"


@dataclass(frozen=True, slots=True)
class Tuning:
    """A tuning as it is stored.

    status is running, finished, interrupted or failed. given are the options of the runs that were asked for, vary the
    settings to try, minutes the time for all trials. found is what the search ended with, see `search.Tuned`; empty
    until then.
    """

    name: str
    given: dict[str, Any]
    vary: tuple[str, ...]
    minutes: float
    status: str = "running"
    trials: tuple[Trial, ...] = ()
    found: dict[str, Any] = field(default_factory=dict)
    schema_version: int = TUNING_VERSION


def write_tuning(files: TuningFiles, tuning: Tuning) -> None:
    """Write the record and the table. Raises MachineError."""
    write_whole(files.record, json.dumps(asdict(tuning), indent=2) + "\n")
    lines = [csv_line(TRIALS.header)]
    for trial in tuning.trials:
        row = _row(trial)
        lines.append(csv_line([format_cell(row.get(column.name), column) for column in TRIALS.columns]))
    write_whole(files.trials, b"".join(lines))


def _row(trial: Trial) -> Mapping[str, Any]:
    values = {**asdict(trial), **(trial.settings or trial.candidate.as_dict())}
    return {**values, "trial": trial.number, "disturbed": "|".join(trial.disturbed) or "none"}


def read_tuning(path: Path) -> Tuning:
    """Read a tuning's record. Raises UsageError for a file that is none, MachineError for one that can't be read."""
    try:
        values = json.loads(read_whole(path))
        if values["schema_version"] != TUNING_VERSION:
            raise UsageError(
                f"{path} has schema version {values['schema_version']}; this version reads {TUNING_VERSION}",
                "Tune again.",
            )
        return Tuning(
            **{
                **values,
                "given": parse_config(values["given"], str(path)),
                "vary": tuple(values["vary"]),
                "trials": tuple(map(_trial, values["trials"])),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} is not the record of a tuning: {error!r}", "Tune again.") from error


def _trial(values: Mapping[str, Any]) -> Trial:
    candidate = Candidate(tuple((str(name), value) for name, value in values["candidate"]["values"]))
    return Trial(**{**values, "candidate": candidate, "disturbed": tuple(values["disturbed"])})
