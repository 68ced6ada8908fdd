"""A campaign's folder: what has become of each run, by what lies there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.analysis.campaigns.definition import Cell, config_of
from harness.artifacts.atomic import read_whole, write_whole
from harness.artifacts.liveness import RUNNING, shown_status
from harness.artifacts.record import RunFiles, RunRecord, read_record
from harness.artifacts.run_lookup import read_stored
from harness.errors import UsageError
from harness.plan.declaration import KEPT
from harness.plan.options import run_options
from models.errors import ActionableError

CAMPAIGN_VERSION = 1
CAMPAIGN_SUFFIX = ".campaign"
# What can have become of a run: it was not begun; it goes on in another process; it was cut short; it ended as planned,
# with an error, or not at all, because this machine can't do it; its options have changed since.
PENDING, IN_FLIGHT, UNFINISHED, DONE, FAILED, SKIPPED, STALE = (
    "pending", "in flight", "unfinished", "done", "failed", "skipped", "stale",
)  # fmt: skip

# Options that a campaign gives each of its runs.
OWN_OF_RUN = ("run_name", "results", "resume")


@dataclass(frozen=True, slots=True)
class CampaignFiles:
    """Where a campaign's files are; its runs have theirs beside them, in the same folder."""

    results: Path
    name: str

    @property
    def folder(self) -> Path:
        """The folder of all."""
        return self.results / f"{self.name}{CAMPAIGN_SUFFIX}"

    @property
    def record(self) -> Path:
        """The runs that ended without a record of their own, and why."""
        return self.folder / "campaign.json"

    @property
    def cells(self) -> Path:
        """The table of the cells."""
        return self.folder / "cells.csv"

    @property
    def page(self) -> Path:
        """The page to look at."""
        return self.folder / "campaign.html"

    @property
    def lock(self) -> Path:
        """The file whose lock the campaign's process holds."""
        return self.folder / ".campaign.lock"

    def of(self, run: str) -> RunFiles:
        """The files of one of its runs."""
        return RunFiles(self.folder, run)


@dataclass(frozen=True, slots=True)
class State:
    """What has become of a run, and why; record is that of a run that is done, seconds what its last start took."""

    name: str
    reason: str = ""
    record: RunRecord | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Ends:
    """How runs ended that left no record: by name, FAILED or SKIPPED, and the reason. It is stored at each change."""

    files: CampaignFiles
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, files: CampaignFiles) -> Ends:
        """Those of a campaign; none if it has not begun. Raises UsageError for a file that is something else."""
        if not files.record.exists():
            return cls(files)
        try:
            values = json.loads(read_whole(files.record))
            if values["schema_version"] != CAMPAIGN_VERSION:
                raise UsageError(
                    f"{files.record} has schema version {values['schema_version']}; this version reads"
                    f" {CAMPAIGN_VERSION}",
                    "Give another --name.",
                )
            return cls(files, {str(run): (str(state), str(why)) for run, (state, why) in values["ends"].items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{files.record} is not a campaign's: {error!r}", "Give another --name.") from error

    def note(self, run: str, state: str, reason: str) -> None:
        """Store how a run ended."""
        self.ends[run] = (state, reason)
        self.write()

    def forget(self, run: str) -> None:
        """Store that a run is made again."""
        if self.ends.pop(run, None) is not None:
            self.write()

    def write(self) -> None:
        """Write the file."""
        write_whole(
            self.files.record, json.dumps({"schema_version": CAMPAIGN_VERSION, "ends": self.ends}, indent=2) + "\n"
        )


def state_of(files: CampaignFiles, ends: Ends, cell: Cell, repeat: int) -> State:
    """What has become of a run."""
    if cell.reason:
        return State(SKIPPED, cell.reason)
    name = cell.run(repeat)
    of_run = files.of(name)
    if not has_begun(of_run):
        return State(*ends.ends[name]) if name in ends.ends else State(PENDING)
    try:
        status, record = shown_status(read_stored(of_run.record), of_run.lock), read_record(of_run.record)
    except ActionableError as error:
        return State(STALE, error.message)
    if changed := changed_options(record, cell):
        return State(STALE, f"it was begun with {', '.join(changed)}")
    if status == "finished":
        begun = [attempt["begun_unix_seconds"] for attempt in record.attempts[-1:]]
        return State(DONE, record=record, seconds=sum(of_run.record.stat().st_mtime - one for one in begun))
    if status == RUNNING:
        return State(IN_FLIGHT, "it goes on in another process")
    if status == FAILED:
        return State(FAILED, _last_warning(record))
    return State(UNFINISHED, status)


def has_begun(run: RunFiles) -> bool:
    """Whether a run has a record, which says what has become of it."""
    return run.record.exists() and run.record.stat().st_size > 0


def _last_warning(record: RunRecord) -> str:
    return record.warnings[-1].removeprefix("failed: ") if record.warnings else ""


def changed_options(record: RunRecord, cell: Cell) -> list[str]:
    """The options that a stored run was given and that its cell has otherwise now, in words.

    A run that was resumed has what its first plan decided, where the cell leaves the decision.
    """
    then, now, declared = asdict(record.config), asdict(config_of(cell)), run_options()
    return [
        f"{name} {then[name]!r}, not {now[name]!r}"
        for name in then
        if name not in OWN_OF_RUN
        and then[name] != now[name]
        and not (now[name] is None and declared[name].resume == KEPT)
    ]


def clear(files: CampaignFiles, run: str) -> None:
    """Remove what a run that is made again has left."""
    for path in files.of(run).existing():
        if path.is_file():
            with suppress(FileNotFoundError):
                path.unlink()


def versions(records: Mapping[str, RunRecord]) -> list[str]:
    """The versions of this project, and the machines, that runs were made with; more than one is worth a note."""
    commits = {str((record.environment.get("git") or {}).get("commit")) for record in records.values()}
    machines = {str(record.summary.get("device_name")) for record in records.values()}
    return [
        *([f"versions: {', '.join(sorted(commits))}"] if len(commits) > 1 else []),
        *([f"machines: {', '.join(sorted(machines))}"] if len(machines) > 1 else []),
    ]
