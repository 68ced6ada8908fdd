"""A run's record, `<run>.json`: what was asked, planned and concluded; the workers read their orders here."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.artifacts.files import check_writable, read_whole, write_whole
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, SCALING, STEPS, TRAIN
from harness.errors import UsageError
from harness.plan.config import RunConfig, parse_config
from harness.plan.plan import DataFacts, RunPlan
from pipelines.augmentation import Augmentation

SCHEMA_VERSION = 4
NAME_TIME = "%Y%m%d-%H%M%S"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything about a run but its tables.

    status is running, finished, failed or interrupted. config holds what was given, plan what was decided,
    effective_settings the settings that DALI and Paddle then reported. profile describes the training files. The rest
    is what `harness.analysis.summarize` found in the tables: phases by name, steady, ledger, outliers, taint, verdict
    (None for a run of epochs) and summary, the run's row of summary.csv. All are empty until known. series names the
    `--repeats` or `--device-counts` that the run is part of.

    attempts are the run's starts: the number of the first block of steps, the training steps made before, when, and on
    how many ranks; the last one goes on from checkpoint, if any. bad_images are those that were unusable before its
    first step, see `harness.artifacts.bad_image`. pretrained is the file of the weights that it began with: name and
    SHA-256.
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
    pretrained: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    def breaks(self) -> tuple[list[int], int]:
        """First blocks of the attempts behind the first one, and of the earliest from which on the ranks are as now."""
        first = 1
        # An attempt that ended before its first block has left nothing to be compared.
        following = [*(attempt["first_segment"] for attempt in self.attempts[1:]), None]
        made = [one for one, after in zip(self.attempts, following, strict=False) if one["first_segment"] != after]
        for attempt in made:
            if attempt["ranks"] != self.plan.ranks:
                first = 0
            elif not first:
                first = attempt["first_segment"]
        return [attempt["first_segment"] for attempt in made[1:]], first

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
        tables = (STEPS, DEVICES, EPOCHS, BAD_IMAGES, SCALING)
        paths = [self.record, self.checkpoints, *(self.table(table.name) for table in tables)]
        return [path for path in paths if path.exists()]

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / f"{self.run}.checkpoints"

    @property
    def record(self) -> Path:
        """The path of the record."""
        return self.folder / f"{self.run}.json"


def claim_files(folder: Path, given: str | None, usual: str) -> RunFiles:
    """The files of a run, under a name that no other run has, not even one that starts at this moment.

    given is the name that was asked for; without it the usual one gets a number where it is taken. Raises UsageError
    when the given one is taken, MachineError when nothing can be written in the folder.
    """
    check_writable(folder)
    for number in itertools.count(1):
        files = RunFiles(folder, given or (usual if number == 1 else f"{usual}-{number}"))
        taken = files.existing()
        if not taken:
            try:
                files.record.touch(exist_ok=False)
                break
            except FileExistsError:
                taken = [files.record]
        if given:
            raise UsageError(f"{taken[0]} exists already", "Give another --run-name, or remove its files.")
    return files


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record in one step."""
    write_whole(path, json.dumps(asdict(record), indent=2, default=str) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read a record back, one of an earlier schema version too.

    Raises UsageError for a file that is no record, or one of a later version, MachineError for one that can't be read.
    """
    try:
        values = migrated(json.loads(read_whole(path)), path.name)
        given = {name: value for name, value in values["config"].items() if value is not None}
        plan = values["plan"]
        data = plan["data"]
        return RunRecord(
            **{
                **values,
                "warnings": tuple(values["warnings"]),
                "attempts": tuple(values.get("attempts", ())),
                "bad_images": tuple(values.get("bad_images", ())),
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
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path} is no run's record: {error!r}", "Name a <run>.json that run_bench.py wrote."
        ) from error


def migrated(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A record's values as this version has them.

    Each version but the last has one function in _LIFTS that makes the next version's values of its own; a field that
    did not exist stays empty, never a guess. Raises UsageError for a version that isn't known.
    """
    version = values["schema_version"]
    while version != SCHEMA_VERSION:
        lift = _LIFTS.get(version)
        if lift is None:
            raise UsageError(
                f"{name} has schema version {version}, known are 1 to {SCHEMA_VERSION}",
                "Read it with the version of this project that wrote it, or a later one.",
            )
        values = lift(values)
        version += 1
    return {**values, "schema_version": SCHEMA_VERSION}


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew training only, and no intervals: its figures are summary's."""
    summary = values["summary"]
    shared = ("fps", "images", "window_seconds", "window_steps", "warmup_steps", "step_seconds_p50", "step_seconds_p95",
              "data_wait_share", "gpu_util_percent", "cpu_util_percent")  # fmt: skip
    return {**values, "phases": {TRAIN: {name: summary[name] for name in shared}} if summary else {}}


def _from_2(values: dict[str, Any]) -> dict[str, Any]:
    """Version 2 let DALI's own reader order the images, which read ahead by itself."""
    config = {name: value for name, value in values["config"].items() if name != "reader_prefetch"}
    return {**values, "config": config}


def _from_3(values: dict[str, Any]) -> dict[str, Any]:
    """Version 3 had single precision, channels first, and steps of one batch: the defaults of what came since."""
    return values


_LIFTS = {1: _from_1, 2: _from_2, 3: _from_3}
