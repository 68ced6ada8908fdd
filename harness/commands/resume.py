"""Resuming a run: which one, from which checkpoint, and whether it would still be the same run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.artifacts.checkpoint import at_epoch_start, forget_newer, newest_checkpoint
from harness.artifacts.record import RunFiles, RunRecord, read_record
from harness.artifacts.run_claim import exclusive_run_lock, free_name, is_abandoned, is_running
from harness.artifacts.run_lookup import find_run, listed
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import cut_rows
from harness.errors import InvariantError, UsageError
from harness.plan.declaration import AUTO, KEPT, NOTED, SAME, flag
from harness.plan.given import only
from harness.plan.options import RunConfig, run_options
from harness.plan.plan import RunPlan, decided_values, settings_of
from harness.report.text import command_line
from models.errors import ActionableError
from models.notes import Note
from models.words import count_of

CUT = (STEPS, EPOCHS, DEVICES, BAD_IMAGES)
# The facts about the data set that affect the weights; its place doesn't.
DATA_FACTS = ("train_images", "val_images", "num_classes", "augmentation", "fingerprint")


@dataclass(frozen=True, slots=True)
class Resumption:
    """A run to resume: its record, and its newest complete checkpoint with its values (None if it has none yet)."""

    record: RunRecord
    checkpoint: str | None
    values: Mapping[str, Any]

    @property
    def rows(self) -> Mapping[str, int]:
        """The number of rows of each table that belong to the checkpoint."""
        rows: Mapping[str, int] = self.values.get("rows", {})
        return rows

    @property
    def first_segment(self) -> int:
        """The number of the first segment that will follow."""
        return int(self.values.get("segments", 0)) + 1

    @property
    def step(self) -> int:
        """The number of training steps made before."""
        return int(self.values.get("optimizer_steps", 0))


def requested_config(given: Mapping[str, Any], *, dry_run: bool = False) -> RunConfig | None:
    """The configuration of a command line that gives these options. With dry_run, nothing is changed on disk.

    With --resume, options that aren't given keep the values of the run's record, and the result's resume is the run's
    name, or None for a run that has yet to begin, or on a node without the record. Returns None for a run that is
    finished, so that the same command line can be repeated. Raises UsageError when there is nothing to resume, and for
    options that can't be combined, those of the record included.
    """
    # Node 0 has the record and the checkpoint, and sends the state to the others.
    name = None if given.get("node_rank") else _named_run(given, dry_run=dry_run)
    if name is None:
        return replace(RunConfig(**given), resume=None)
    record = read_record(_results(given) / f"{name}.json")
    if record.status == "finished":
        epochs = record.plan.training.epochs
        if given.get("epochs", 0) > epochs:
            raise UsageError(
                f"run {name!r} finished after {count_of(epochs, 'epoch')} with a learning rate of 0, so it can't be"
                " extended",
                "Start another run.",
            )
        return None
    if not record.plan.kind.resumable or record.series is not None:
        what = record.plan.kind.does if record.series is None else f"is part of the series {record.series!r}"
        raise UsageError(f"run {name!r} {what}, so it can't be resumed", "Start it again.")
    planned = settings_of(record.plan)
    if record.config.auto_batch:
        # The batch size that was asked for may not have fitted.
        given = {**given, "batch_size": planned["batch_size"]}
    kept = [one for one, option in run_options().items() if option.resume == KEPT]
    decided = {one: planned[one] for one in kept if getattr(record.config, one) is None}
    # On one machine, what led to the others has no meaning any more.
    alone = {"master": None, "node_rank": None} if given.get("nnodes") == 1 else {}
    try:
        return replace(record.config, **{**decided, **alone, **given, "resume": name, "run_name": name})
    except UsageError as error:
        raise UsageError(
            f"run {name!r} can't be resumed with these options: {error.message}",
            "Omit the options that you added, or start another run.",
        ) from error


def node_options(given: Mapping[str, Any]) -> RunConfig:
    """The options that lead to the other nodes: the given ones, otherwise those of the record of the run to resume.

    Raises UsageError when they can't be combined.
    """
    names = ("nnodes", "master", "node_rank", "rendezvous_timeout")
    asked = only(given, names)
    if not asked.get("node_rank") and asked.get("nnodes") != 1:
        # What is wrong with the record is reported to the other nodes once it is known which these are.
        with suppress(ActionableError):
            if (name := _named_run(given, dry_run=True)) is not None:
                recorded = read_record(_results(given) / f"{name}.json").config
                asked = {**{one: getattr(recorded, one) for one in names}, **asked}
    return RunConfig(**asked)


def _results(given: Mapping[str, Any]) -> Path:
    return Path(given.get("results", run_options()["results"].default))


def _named_run(given: Mapping[str, Any], *, dry_run: bool) -> str | None:
    """The name of the run to resume; None without --resume, or if the run has yet to begin."""
    config = RunConfig(**only(given, ("resume", "run_name", "results")))
    return None if config.resume is None else _chosen(config, Path(config.results), dry_run=dry_run)


def _chosen(config: RunConfig, folder: Path, *, dry_run: bool) -> str | None:
    if config.resume is not None and config.resume != AUTO:
        return find_run(config.resume, folder).stem
    if config.run_name is not None:
        # The same command line begins a run and resumes it.
        files = RunFiles(folder, config.run_name)
        if not files.record.exists():
            return None
        if files.record.stat().st_size:
            return config.run_name
        if not is_abandoned(files):
            raise UsageError(
                f"{files.record} is empty, but run {files.run!r} has other files: {files.existing()[1]}",
                "Put its record back, or give another --run-name.",
            )
        if not dry_run:
            with exclusive_run_lock(files):
                # It was killed before it had a record: there is nothing to keep, and its name is free.
                free_name(files)
        return None
    begun = sorted(folder.glob("*.checkpoints"), key=lambda path: path.stat().st_mtime, reverse=True)
    running = []
    for path in begun:
        with suppress(ActionableError):
            files = RunFiles(folder, path.stem)
            record = read_record(files.record)
            if record.status != "finished" and record.series is None:
                if not is_running(files):
                    return files.run
                running.append(files.run)
    if running:
        raise UsageError(
            f"no interrupted run in {str(folder)!r}; running in other processes: {listed(running)}",
            "Wait for their end, or give another folder with --results.",
        )
    raise UsageError(f"no unfinished run in {str(folder)!r}", "Name a run, or give its folder with --results.")


def find_resumption(files: RunFiles) -> Resumption:
    """The run's record and its newest complete checkpoint."""
    record = read_record(files.record)
    name, values = newest_checkpoint(files.checkpoints) or (None, {})
    return Resumption(record, name, values)


def back_to_epoch_start(before: Resumption, files: RunFiles, plan: RunPlan) -> tuple[Resumption, tuple[str, ...]]:
    """The start of the epoch that a run is within, if it has another number of devices now, and a note.

    For nodes that a scheduler chose, as nobody is there to give it those of before. Returns what was found before where
    no step of an epoch is lost, or where its start was not kept.
    """
    ranks, progress = before.values.get("ranks", plan.ranks), before.values.get("progress", {})
    epoch = progress.get("epoch", 1)
    if plan.ranks == ranks or not progress.get("steps") or epoch > plan.training.epochs:
        return before, ()
    earlier = newest_checkpoint(files.checkpoints, at_epoch_start)
    if earlier is None and epoch > 1:
        return before, ()
    there = Resumption(before.record, *(earlier or (None, {})))
    lost, now = count_of(progress["steps"], "step"), count_of(plan.ranks, "device")
    note = Note(
        f"{lost} of epoch {epoch} will be made again, as {now} can't continue within an epoch of {ranks}",
        "--gpus and --nnodes with the former number of devices continue within it.",
    )
    return there, (note,)


def check_same_run(before: Resumption, config: RunConfig, plan: RunPlan) -> tuple[str, ...]:
    """Check that a run would be resumed as the same run. Returns notes on differences that are allowed.

    Raises UsageError, which names each difference, when it would be another run.
    """
    old = before.record
    ranks = before.values.get("ranks", old.plan.ranks)
    settings = (decided_values(old.config, old.plan), decided_values(config, plan))
    # The devices must be of the same kind, whatever --device was given as.
    fixed = [*_resumed_by(SAME, KEPT), "device"]
    if plan.ranks != ranks and config.learning_rate == old.config.learning_rate is None:
        # It follows from the global batch.
        fixed.remove("learning_rate")
    lines, data = list(_differing(fixed, *settings)), list(_data_differences(old.plan, plan))
    epochs, epochs_before = plan.training.epochs, old.plan.training.epochs
    if epochs < epochs_before:
        lines.append(f"--epochs: {epochs_before} before, {epochs} now; more epochs are possible, fewer are not")
    if lines or data:
        cures = ["Omit these options"] if lines else []
        cures += ["Make the images and their lists again what they were"] if data else []
        raise UsageError(
            f"run {old.run!r} can't be resumed with other {'settings' if lines else 'data'}",
            "\n".join([*lines, *data, f"{'. '.join(cures)}, or start another run."]),
        )
    notes = []
    if epochs > epochs_before:
        notes.append(
            Note(
                f"{epochs} epochs instead of {epochs_before}: from here on the learning rate's cosine ends later",
                "Begin anew with --epochs for a schedule that is whole.",
            )
        )
    if plan.ranks != ranks:
        notes.append(_other_ranks(before, plan, ranks))
    notes += [
        Note(f"{line}; sums may round differently", "Give the option as before for the same bits.")
        for line in _differing(_resumed_by(NOTED), *settings)
    ]
    return tuple(notes)


def _other_ranks(before: Resumption, plan: RunPlan, ranks: int) -> Note:
    """A note on a different number of devices. Raises UsageError unless the run is at an epoch's start."""
    old, progress = before.record, before.values.get("progress", {})
    epoch = progress.get("epoch", 1)
    within = bool(progress.get("steps", 0))
    if within or epoch > plan.training.epochs:
        where = f"is within epoch {epoch}" if within else "has finished all its epochs"
        raise UsageError(
            f"run {old.run!r} {where}; with another number of devices ({plan.ranks}, not {ranks}) it can only be"
            " resumed at an epoch's start",
            f"Resume it with {_devices(ranks, plan, old.plan)} until the end of the epoch.",
        )
    return Note(
        f"{count_of(plan.ranks, 'device')} instead of {ranks} from epoch {epoch} on:"
        f" {count_of(plan.global_batch, 'image')} per step instead of"
        f" {old.plan.global_batch}, learning rate {plan.training.learning_rate:g} instead of"
        f" {old.plan.training.learning_rate:g}",
        "--gpus with the former number continues as before.",
    )


def _devices(ranks: int, now: RunPlan, before: RunPlan) -> str:
    """The options for a number of ranks: on the nodes of now if they can share them, otherwise on those of before."""
    nodes = now.nodes if ranks % now.nodes == 0 else before.nodes
    several = f" --nnodes {nodes}" if nodes != now.nodes else ""
    return f"--gpus {ranks // nodes}{several}"


def _resumed_by(*rules: str) -> list[str]:
    """The options that are declared with one of these rules for resuming."""
    return [name for name, option in run_options().items() if option.resume in rules]


def _differing(names: Iterable[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The settings of these names that differ, a line each."""
    for name in names:
        if before[name] != now[name]:
            yield f"{flag(name)}: {before[name]} before, {now[name]} now"


def _data_differences(before: RunPlan, now: RunPlan) -> Iterator[str]:
    for name in DATA_FACTS:
        found = [getattr(plan.data, name) for plan in (before, now)]
        if found[0] != found[1] and found[0] != "":
            yield f"--data ({name.replace('_', ' ')}): {found[0]} before, {found[1]} now"


def truncate_to_checkpoint(files: RunFiles, checkpoint: str | None, rows: Mapping[str, int]) -> None:
    """Restore a run's files to the moment of a checkpoint: remove later rows, and what a killed process left behind.

    rows are the numbers of rows at that moment. The telemetry table may have fewer rows, as it isn't protected against
    a power failure. Raises InvariantError when another table has fewer.
    """
    for table in CUT:
        path, counted = files.table(table.name), rows.get(table.name, 0)
        there = path.exists() and path.stat().st_size > 0
        with suppress(InvariantError) if table is DEVICES else nullcontext():
            if there:
                cut_rows(path, table, counted)
            elif counted:
                raise InvariantError(f"{path.name} is missing, but the run needs {counted} of its rows", "Put it back.")
    forget_newer(files.checkpoints, checkpoint)
    for path in (files.record, *(files.table(table.name) for table in CUT)):
        for temporary in files.folder.glob(f".{path.name}.*"):
            temporary.unlink(missing_ok=True)


def resume_command(run: str, config: RunConfig) -> str:
    """How to resume a run: a command line, or with several nodes what to add to each node's command line."""
    if config.nnodes > 1:
        return f"each node's own command line with --resume {run}"
    results = [] if config.results == "results" else ["--results", config.results]
    return command_line("--resume", run, *results)


def how_to_go_on(files: RunFiles, config: RunConfig) -> str:
    """How a run that was cut short goes on, or that it must start again."""
    newest, command = newest_checkpoint(files.checkpoints), resume_command(files.run, config)
    if newest is not None:
        return f"A checkpoint after step {newest[1]['optimizer_steps']:,} was saved. To resume:\n  {command}"
    if not config.kind.resumable:
        return f"A run that {config.kind.does} can't be resumed: start it again."
    if config.node_rank:
        return f"Node 0 says what was saved. To go on:\n  {command}"
    return f"No step has been saved. To start it again:\n  {command}"
