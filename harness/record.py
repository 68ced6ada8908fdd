"""A run's record, `<run>.json`: what was asked, planned and concluded; the workers read their orders here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.config import RunConfig, parse_config
from harness.plan import DataFacts, RunPlan
from harness.tables.files import write_whole
from harness.tables.schema import DEVICES, EPOCHS, STEPS
from pipelines.augmentation import Augmentation

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything about a run but its tables.

    status is running, finished, failed or interrupted. config holds what was given, plan what was decided. profile
    describes the training files, summary is the run's row of summary.csv; both are empty until known.
    """

    run: str
    status: str
    config: RunConfig
    plan: RunPlan
    environment: dict[str, Any]
    profile: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def warned(self, message: str) -> RunRecord:
        """The record with one more warning."""
        return replace(self, warnings=(*self.warnings, message))


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where a run's files are."""

    folder: Path
    run: str

    def table(self, name: str) -> Path:
        """The path of one of the run's tables."""
        return self.folder / f"{self.run}.{name}.csv"

    def existing(self) -> list[Path]:
        """Those of the run's files that are there."""
        paths = [self.record, *(self.table(table.name) for table in (STEPS, DEVICES, EPOCHS))]
        return [path for path in paths if path.exists()]

    @property
    def record(self) -> Path:
        """The path of the record."""
        return self.folder / f"{self.run}.json"


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record in one step."""
    write_whole(path, json.dumps(asdict(record), indent=2, default=str) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read a record back."""
    values = json.loads(path.read_text(encoding="utf-8"))
    given = {name: value for name, value in values["config"].items() if value is not None}
    plan = values["plan"]
    data = plan["data"]
    return RunRecord(
        **{
            **values,
            "warnings": tuple(values["warnings"]),
            "config": RunConfig(**parse_config(given, path.name)),
            "plan": RunPlan(
                **{
                    **plan,
                    "data": DataFacts(**{**data, "augmentation": Augmentation(**data["augmentation"])}),
                    "notes": tuple(plan["notes"]),
                }
            ),
        }
    )
