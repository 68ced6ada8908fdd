"""A run's record, `<run>.json`: what was asked, planned and concluded; the workers read their orders here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.artifacts.atomic import read_whole, write_whole
from harness.artifacts.file_names import LATENCY_TABLE, LOCK
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.shared_schema import LOADERS, SCALING
from harness.errors import UsageError
from harness.plan.kinds import KINDS
from harness.plan.options import RunConfig, parse_config
from harness.plan.plan import DataFacts, OperationPlan, PlacementPlan, RunPlan, TrainingPlan, WindowPlan
from pipelines.augmentation import Augmentation
from pipelines.layout import Lists
from pipelines.settings import PipelineSettings

SCHEMA_VERSION = 8
NAME_TIME = "%Y%m%d-%H%M%S"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything about a run but its tables.

    status is running, finished, failed or interrupted. config holds what was asked for, plan what was decided,
    effective_settings what DALI and Paddle then reported, window_end what ended the measured window. profile describes
    the files of the first list of images. The figures are what `harness.analysis.summarize` found in the tables: phases
    by name, steady, ledger, outliers, interference, verdict (None for a run of epochs), loaders (the rows of
    <run>.loaders.csv) and summary, the run's row of summary.csv. All are empty until they are known. series names the
    `--repeats` or `--device-counts` that the run is part of.

    attempts are the run's starts: the number of the first segment, the training steps made before, the time, the number
    of ranks, the epochs that were planned, and how long each stage of the start took. The last attempt resumed from
    checkpoint, if any. bad_images are those that were unusable before the first step, see
    `harness.artifacts.bad_image`. pretrained is the file of weights that the run began with: its name and SHA-256.
    decoding is what a trial of the GPUs' decoder found, see `harness.plan.plan.Decoding`.
    """

    run: str
    status: str
    config: RunConfig
    plan: RunPlan
    environment: dict[str, Any]
    profile: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    series: str | None = None
    effective_settings: dict[str, Any] = field(default_factory=dict)
    window_end: str | None = None
    phases: dict[str, Any] = field(default_factory=dict)
    steady: dict[str, Any] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    outliers: dict[str, Any] = field(default_factory=dict)
    interference: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    attempts: tuple[dict[str, Any], ...] = ()
    bad_images: tuple[dict[str, Any], ...] = ()
    checkpoint: str | None = None
    loaders: list[dict[str, Any]] = field(default_factory=list)
    pretrained: dict[str, Any] | None = None
    decoding: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    def breaks(self) -> tuple[list[int], int]:
        """The first segments of the attempts after the first, and the one from which on the ranks are as at the end."""
        first, made = 1, self.made_attempts()
        for attempt in made:
            if attempt["ranks"] != self.plan.ranks:
                first = 0
            elif not first:
                first = attempt["first_segment"]
        return [attempt["first_segment"] for attempt in made[1:]], first

    def made_attempts(self) -> list[dict[str, Any]]:
        """The attempts that came to a segment of their own; the others left nothing to compare."""
        following = [*(attempt["first_segment"] for attempt in self.attempts[1:]), None]
        return [one for one, after in zip(self.attempts, following, strict=False) if one["first_segment"] != after]

    def started_in(self, seconds: dict[str, float]) -> RunRecord:
        """The record with the seconds of each stage of the last attempt's start."""
        return replace(self, attempts=(*self.attempts[:-1], {**self.attempts[-1], "startup": seconds}))

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
        tables = [table.name for table in (STEPS, DEVICES, EPOCHS, BAD_IMAGES, SCALING, LOADERS)] + [LATENCY_TABLE]
        paths = [self.record, self.page, self.checkpoints, self.traces, *map(self.table, tables)]
        return [path for path in paths if path.exists()]

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / f"{self.run}.checkpoints"

    @property
    def lock(self) -> Path:
        """The file whose lock the run's process holds, if the run can be resumed."""
        return self.checkpoints / LOCK

    @property
    def traces(self) -> Path:
        """The folder of the traces that --profile asks for."""
        return self.folder / f"{self.run}.traces"

    @property
    def page(self) -> Path:
        """The path of the page to look at."""
        return self.folder / f"{self.run}.html"

    @property
    def record(self) -> Path:
        """The path of the record."""
        return self.folder / f"{self.run}.json"


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record in one step."""
    values = asdict(record)
    values["plan"]["kind"] = record.plan.kind.name
    write_whole(path, json.dumps(values, indent=2, default=str) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read a record back.

    Raises UsageError for a file that isn't a record, or is one of another version, MachineError for one that can't be
    read.
    """
    try:
        values = json.loads(read_whole(path))
        if values["schema_version"] != SCHEMA_VERSION:
            raise UsageError(
                f"{path.name} has schema version {values['schema_version']}; this version reads {SCHEMA_VERSION}",
                "Read it with the version of this project that wrote it.",
            )
        given = {name: value for name, value in values["config"].items() if value is not None}
        return RunRecord(
            **{
                **values,
                "warnings": tuple(values["warnings"]),
                "attempts": tuple(values["attempts"]),
                "bad_images": tuple(values["bad_images"]),
                "config": RunConfig(**parse_config(given, path.name)),
                "plan": _plan(values["plan"]),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a run's record: {error!r}", "Name a <run>.json that run_bench.py wrote."
        ) from error


def _plan(values: dict[str, Any]) -> RunPlan:
    data = values["data"]
    return RunPlan(
        **{
            **values,
            "kind": KINDS[values["kind"]],
            "data": DataFacts(
                **{
                    **data,
                    "augmentation": Augmentation(**data["augmentation"]),
                    "lists": Lists(**data.get("lists", {})),
                }
            ),
            "pipeline": PipelineSettings(**values["pipeline"]),
            "training": TrainingPlan(**values["training"]),
            "window": WindowPlan(**values["window"]),
            "operation": OperationPlan(**values["operation"]),
            "placement": _placement(values.get("placement", {})),
            "notes": tuple(values["notes"]),
        }
    )


def _placement(values: dict[str, Any]) -> PlacementPlan:
    return PlacementPlan(**{**values, "rank_cores": tuple(values.get("rank_cores", ()))})
