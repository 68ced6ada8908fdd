"""Going on with a run: which one, from which checkpoint, and whether it would still be the same run."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.artifacts.checkpoint import forget_newer, newest_checkpoint
from harness.artifacts.files import cut_rows
from harness.artifacts.record import RunFiles, RunRecord, read_record
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.errors import InvariantError, MachineError, UsageError
from harness.plan.config import RunConfig, flag, option_fields
from harness.plan.plan import RunPlan
from harness.report.text import command_line
from models.errors import ActionableError

AUTO = "auto"
LOCK = ".lock"
CUT = (STEPS, EPOCHS, DEVICES, BAD_IMAGES)
# What may differ when a run is gone on with, or can't, or is compared by what the plan makes of it; the rest decides
# its weights.
HARMLESS = frozenset({
    "gpus", "device", "data", "classes", "crop_area_min", "flip_probability", "epochs", "warmup", "target_ci",
    "max_seconds", "repeats", "device_counts", "stall_timeout", "resume", "bad_images", "max_bad_images", "auto_batch",
    "compute_threads", "decode_threads", "prefetch", "width_hint", "height_hint", "nnodes", "master", "node_rank",
    "rendezvous_timeout", "results", "run_name", "telemetry_interval", "checkpoint_minutes", "amp_level", "eval_only",
})  # fmt: skip
# Defaults that follow from the number of epochs and devices.
DECIDED = ("batch_size", "lr_warmup_epochs")
# Of the data set; where it lies is harmless.
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
        if given.get("epochs", 0) > record.plan.epochs:
            raise UsageError(
                f"run {name!r} is finished after {record.plan.epochs} epochs, at a learning rate of 0",
                "Start another run.",
            )
        return None
    if not record.config.trains_epochs or record.series is not None:
        what = (
            f"is part of the series {record.series!r}" if record.series is not None
            else "measures throughput" if record.config.throughput_only
            else "only evaluates"
        )  # fmt: skip
        raise UsageError(f"run {name!r} {what}, and can't be gone on with", "Start it again.")
    if record.config.auto_batch:
        # What was asked for need not have fitted.
        given = {**given, "batch_size": record.plan.batch_size}
    # Defaults that follow from what may change stay as they were.
    decided = {name: getattr(record.plan, name) for name in DECIDED if getattr(record.config, name) is None}
    return replace(record.config, **{**decided, **given, "resume": name, "run_name": name})


def _chosen(config: RunConfig, folder: Path) -> str | None:
    if config.resume != AUTO:
        path = folder / f"{config.resume}.json"
        if not path.exists() or not path.stat().st_size:
            raise UsageError(f"no run {config.resume!r} in {str(folder)!r}", "--results names the folder that has it.")
        return config.resume
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
    other_ranks = plan.ranks != ranks
    lines = [
        f"{flag(name)}: {value_before} before, {value}"
        for name, value_before, value in _differences(old, config, plan, other_ranks)
    ]
    epoch = before.values.get("progress", {}).get("epoch", 1)
    if plan.epochs < old.plan.epochs:
        lines.append(f"--epochs: {old.plan.epochs} before, {plan.epochs}; more are possible, fewer are not")
    if lines:
        raise UsageError(
            f"run {old.run!r} can't be gone on with under other settings",
            "\n".join([*lines, "Leave these options away, or start another run."]),
        )
    notes = []
    if plan.epochs > old.plan.epochs:
        notes.append(f"{plan.epochs} epochs, not {old.plan.epochs}: the learning rate's cosine ends later from here on")
    if other_ranks:
        within = bool(before.values.get("progress", {}).get("steps", 0))
        if within or epoch > plan.epochs:
            where = f"stands within epoch {epoch}" if within else "has made all its epochs"
            raise UsageError(
                f"run {old.run!r} {where}; with another number of devices ({plan.ranks}, not {ranks}) it can only be"
                " gone on with at an epoch's start",
                f"Go on with --gpus {ranks // old.plan.nodes} to the end of the epoch.",
            )
        notes.append(
            f"{plan.ranks} devices from epoch {epoch} on, {ranks} before: {plan.global_batch} images a step,"
            f" learning rate {plan.learning_rate:g}, {old.plan.global_batch} and {old.plan.learning_rate:g} before"
        )
    if plan.compute_threads != old.plan.compute_threads:
        notes.append(
            f"{plan.compute_threads} compute threads, {old.plan.compute_threads} before: sums may round otherwise"
        )
    return tuple(notes)


def _differences(old: RunRecord, config: RunConfig, plan: RunPlan, other_ranks: bool) -> Iterator[tuple[str, Any, Any]]:
    for item in option_fields():
        if item.name in HARMLESS:
            continue
        if item.name == "learning_rate" and other_ranks and config.learning_rate == old.config.learning_rate is None:
            continue
        values = [
            getattr(of_plan, item.name) if hasattr(of_plan, item.name) else getattr(of_config, item.name)
            for of_plan, of_config in ((old.plan, old.config), (plan, config))
        ]
        if values[0] != values[1]:
            yield item.name, *values
    if old.plan.device != plan.device:
        yield "device", old.plan.device, plan.device
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
    path = files.checkpoints / LOCK
    try:
        files.checkpoints.mkdir(parents=True, exist_ok=True)
        # A file rather than the folder, whose locks network file systems don't share.
        stream = path.open("w")
    except OSError as error:
        raise MachineError(f"can't write {path}: {error.strerror}", "Name another folder with --results.") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"run {files.run!r} is going on in another process", "Wait for its end.") from error
        except OSError as error:
            raise MachineError(
                f"can't lock {path}: {error.strerror}", "Use a disk that can, with --results."
            ) from error
        yield


def resume_command(run: str, config: RunConfig) -> str:
    """How to go on with a run: a command line, or with several nodes what to add to each one's own."""
    if config.nnodes > 1:
        return f"each node's own command line with --resume {run}"
    results = [] if config.results == "results" else ["--results", config.results]
    return command_line("--resume", run, *results)
