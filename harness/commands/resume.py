"""Going on with a run: which one, from which checkpoint, and whether it would still be the same run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.artifacts.atomic import disk_errors
from harness.artifacts.checkpoint import forget_newer, newest_checkpoint
from harness.artifacts.lock import exclusive_lock
from harness.artifacts.record import RunFiles, RunRecord, read_record
from harness.artifacts.run_lookup import find_run
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import cut_rows
from harness.errors import InvariantError, UsageError
from harness.plan.config import RunConfig, run_options
from harness.plan.options import AUTO, KEPT, SAME, flag
from harness.plan.plan import RunPlan, decided_values, settings_of
from harness.report.text import command_line
from models.errors import ActionableError

LOCK = ".lock"
CUT = (STEPS, EPOCHS, DEVICES, BAD_IMAGES)
# Of the data set, what decides the weights; where it lies doesn't.
DATA_FACTS = ("train_images", "val_images", "num_classes", "augmentation", "fingerprint")


@dataclass(frozen=True, slots=True)
class Resumption:
    """A run to go on with: its record as it stands, and its newest whole checkpoint (None, if it has none yet)."""

    record: RunRecord
    checkpoint: str | None
    values: Mapping[str, Any]

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows of each table that belong to the checkpoint."""
        rows: Mapping[str, int] = self.values.get("rows", {})
        return rows

    @property
    def first_segment(self) -> int:
        """The number of the first block of steps that will follow."""
        return int(self.values.get("segments", 0)) + 1

    @property
    def step(self) -> int:
        """Training steps made before."""
        return int(self.values.get("optimizer_steps", 0))


def requested_config(given: Mapping[str, Any]) -> RunConfig | None:
    """The configuration of a command line that gives these options.

    With --resume what isn't given is as in the run's own record. Its value in the result is the run's name; it is None
    for a run that has yet to begin. The result is None for a run that is finished, so that one command line can be
    given again and again. Raises UsageError when there is nothing to go on with.
    """
    config = RunConfig(**given)
    if config.resume is None:
        return config
    if config.node_rank:
        # Node 0 has the record and the checkpoint, and tells the others.
        return replace(config, resume=None)
    folder = Path(config.results)
    name = _chosen(config, folder)
    if name is None:
        return replace(config, resume=None)
    record = read_record(folder / f"{name}.json")
    if record.status == "finished":
        if given.get("epochs", 0) > record.plan.training.epochs:
            raise UsageError(
                f"run {name!r} is finished after {record.plan.training.epochs} epochs, at a learning rate of 0",
                "Start another run.",
            )
        return None
    if not record.plan.kind.resumable or record.series is not None:
        what = record.plan.kind.does if record.series is None else f"is part of the series {record.series!r}"
        raise UsageError(f"run {name!r} {what}, and can't be resumed", "Start it again.")
    planned = settings_of(record.plan)
    if record.config.auto_batch:
        # What was asked for need not have fitted.
        given = {**given, "batch_size": planned["batch_size"]}
    kept = [one for one, option in run_options().items() if option.resume == KEPT]
    decided = {one: planned[one] for one in kept if getattr(record.config, one) is None}
    return replace(record.config, **{**decided, **given, "resume": name, "run_name": name})


def _chosen(config: RunConfig, folder: Path) -> str | None:
    if config.resume is not None and config.resume != AUTO:
        return find_run(config.resume, folder).stem
    if config.run_name is not None:
        # The same command line begins a run and goes on with it.
        files = RunFiles(folder, config.run_name)
        if not files.record.exists():
            return None
        if files.record.stat().st_size:
            return config.run_name
        with exclusive_run_lock(files):
            # Killed before it had a record; nothing of it is worth anything, and its name is free.
            files.record.unlink()
            shutil.rmtree(files.checkpoints, ignore_errors=True)
        return None
    begun = sorted(folder.glob("*.checkpoints"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in begun:
        with suppress(ActionableError):
            record = read_record(folder / f"{path.stem}.json")
            if record.status != "finished" and record.series is None:
                return path.stem
    raise UsageError(f"no unfinished run in {str(folder)!r}", "Name one, or the folder that has it with --results.")


def find_resumption(files: RunFiles) -> Resumption:
    """The run's record and its newest whole checkpoint."""
    record = read_record(files.record)
    name, values = newest_checkpoint(files.checkpoints) or (None, {})
    return Resumption(record, name, values)


def check_same_run(before: Resumption, config: RunConfig, plan: RunPlan) -> tuple[str, ...]:
    """Notes on what differs from the run before, where that does no harm.

    Raises UsageError, which names each difference, when it would be another run.
    """
    old = before.record
    ranks = before.values.get("ranks", old.plan.ranks)
    lines = [
        f"{flag(name)}: {value_before} before, {value}" for name, value_before, value in _differences(old, config, plan)
    ]
    if plan.ranks != ranks and config.learning_rate == old.config.learning_rate is None:
        # It follows from the global batch.
        lines = [line for line in lines if not line.startswith("--learning-rate:")]
    epochs, epochs_before = plan.training.epochs, old.plan.training.epochs
    if epochs < epochs_before:
        lines.append(f"--epochs: {epochs_before} before, {epochs}; more are possible, fewer are not")
    if lines:
        raise UsageError(
            f"run {old.run!r} can't be resumed with other settings",
            "\n".join([*lines, "Leave these options away, or start another run."]),
        )
    notes = []
    if epochs > epochs_before:
        notes.append(f"{epochs} epochs, not {epochs_before}: the learning rate's cosine ends later from here on")
    if plan.ranks != ranks:
        notes.append(_other_ranks(before, plan, ranks))
    threads, threads_before = plan.training.compute_threads, old.plan.training.compute_threads
    if threads != threads_before:
        notes.append(f"{threads} compute threads, {threads_before} before: sums may round differently")
    return tuple(notes)


def _other_ranks(before: Resumption, plan: RunPlan, ranks: int) -> str:
    """A note on another number of devices. Raises UsageError anywhere but at an epoch's start."""
    old, progress = before.record, before.values.get("progress", {})
    epoch = progress.get("epoch", 1)
    within = bool(progress.get("steps", 0))
    if within or epoch > plan.training.epochs:
        where = f"stands within epoch {epoch}" if within else "has made all its epochs"
        raise UsageError(
            f"run {old.run!r} {where}; with another number of devices ({plan.ranks}, not {ranks}) it can only be"
            " resumed at an epoch's start",
            f"Resume it with --gpus {ranks // old.plan.nodes} to the end of the epoch.",
        )
    return (
        f"{plan.ranks} devices from epoch {epoch} on, {ranks} before: {plan.global_batch} images a step,"
        f" learning rate {plan.training.learning_rate:g}, {old.plan.global_batch} and"
        f" {old.plan.training.learning_rate:g} before"
    )


def _differences(old: RunRecord, config: RunConfig, plan: RunPlan) -> Iterator[tuple[str, Any, Any]]:
    """The settings that may not differ when a run is resumed, and do: name, value before, value."""
    before, after = decided_values(old.config, old.plan), decided_values(config, plan)
    fixed = [name for name, option in run_options().items() if option.resume in (SAME, KEPT)]
    # Whatever the devices were asked for as, they must be of the same kind.
    for name in (*fixed, "device"):
        if before[name] != after[name]:
            yield name, before[name], after[name]
    for name in DATA_FACTS:
        found = [getattr(one.data, name) for one in (old.plan, plan)]
        if found[0] != found[1] and found[0] != "":
            yield f"data ({name.replace('_', ' ')})", *found


def truncate_to_checkpoint(files: RunFiles, checkpoint: str | None, rows: Mapping[str, int]) -> None:
    """Leave a run's files as they were when a checkpoint was made: without later rows, and what a kill left half done.

    Telemetry may be shorter than it was then, as it isn't kept from a power failure. Raises InvariantError when
    another table is.
    """
    for table in CUT:
        path, counted = files.table(table.name), rows.get(table.name, 0)
        there = path.exists() and path.stat().st_size > 0
        with suppress(InvariantError) if table is DEVICES else nullcontext():
            if there:
                cut_rows(path, table, counted)
            elif counted:
                raise InvariantError(f"{path.name} is gone, of which {counted} rows belong to the run", "Put it back.")
    forget_newer(files.checkpoints, checkpoint)
    for path in (files.record, *(files.table(table.name) for table in CUT)):
        for temporary in files.folder.glob(f".{path.name}.*"):
            temporary.unlink(missing_ok=True)


@contextmanager
def exclusive_run_lock(files: RunFiles) -> Iterator[None]:
    """Keep the run to this process. Raises UsageError when another one has it, MachineError when it can't be had."""
    # A file rather than the folder, whose locks network file systems don't share.
    path = files.checkpoints / LOCK
    with disk_errors(path):
        files.checkpoints.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(path, wait=False, held=f"run {files.run!r} is running in another process"):
        yield


def resume_command(run: str, config: RunConfig) -> str:
    """How to go on with a run: a command line, or with several nodes what to add to each one's own."""
    if config.nnodes > 1:
        return f"each node's own command line with --resume {run}"
    results = [] if config.results == "results" else ["--results", config.results]
    return command_line("--resume", run, *results)
