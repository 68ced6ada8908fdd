"""One run from its configuration to its summary row: plan, check, launch, conclude."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.analysis.summarize import summarize, summarize_evaluation
from harness.artifacts.bad_image import TRAIN_SPLIT, VAL_SPLIT, BadImage
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.files import append_row
from harness.artifacts.record import NAME_TIME, RunFiles, RunRecord, claim_files, read_record, write_record
from harness.artifacts.reference_table import append_reference_row, method_marks
from harness.artifacts.schema import STEPS, SUMMARY
from harness.commands.resume import (
    check_same_run,
    exclusive_run_lock,
    find_resumption,
    resume_command,
    truncate_to_checkpoint,
)
from harness.commands.series import run_series, series_members
from harness.errors import INTERRUPTED_EXIT_CODE, InterruptedRunError, OutOfMemoryError, UsageError
from harness.launch.launcher import run_workers
from harness.machine.device import Devices, check_paddle, choose_devices
from harness.machine.environment import describe
from harness.plan.config import FAIL, RunConfig
from harness.plan.nodes import Node, find_node
from harness.plan.plan import DEFAULT_FOLDER, IMAGENET, DataFacts, RunPlan, default_data, facts_of, make_plan, run_name
from harness.report.console import Console
from harness.report.progress import Progress
from models.errors import ActionableError
from models.weights import describe_weights
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.image_lists import check_files
from pipelines.page_cache import data_state, read_into_memory, resident_share
from pipelines.profile import profile


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A run before it begins: devices, data and every default decided."""

    devices: Devices
    dataset: Dataset
    plan: RunPlan
    notices: tuple[str, ...]
    pretrained: dict[str, Any] | None


def run(config: RunConfig, *, dry_run: bool = False, environment: Mapping[str, str] = os.environ) -> None:
    """Carry out the runs that a configuration asks for, or print the plan. Raises ActionableError."""
    console = Console()
    if dry_run:
        _print_plan(config, console, environment)
        return
    members = series_members(config)
    if config.device_counts is not None:
        # More devices than there are should not show after the first runs, nor may the runs differ in anything else.
        largest = _prepare(members[-1], console, environment).plan
        members = [
            replace(
                member,
                batch_size=largest.batch_size,
                compute_threads=largest.compute_threads,
                decode_threads=largest.decode_threads,
            )
            for member in members
        ]
    if len(members) == 1:
        measure(members[0], console, environment)
    else:
        run_series(config, members, lambda member, name: measure(member, console, environment, series=name), console)


def _print_plan(config: RunConfig, console: Console, environment: Mapping[str, str]) -> None:
    """Print what a run would do, for the largest number of devices of a scaling series."""
    config = series_members(config)[-1]
    if config.data is None and default_data(config) != DEFAULT_FOLDER:
        devices, notices = choose_devices(config.device, config.gpus, environment, look=False)
        for notice in notices:
            console.notice(notice)
        plan = make_plan(config, devices, IMAGENET, environment)
        console.plan(plan, "ImageNet's published counts; no data was read")
        return
    prepared = _prepare(config, console, environment, look=False)
    console.plan(prepared.plan, f"counted in {prepared.plan.data.source}")


def _prepare(config: RunConfig, console: Console, environment: Mapping[str, str], *, look: bool = True) -> _Prepared:
    devices, notices = choose_devices(config.device, config.gpus, environment, look=look)
    for notice in notices:
        console.notice(notice)
    dataset, facts = _open(default_data(config), config)
    if config.data is None and dataset.builtin:
        console.notice(f"no --data, and no {DEFAULT_FOLDER} here: using the built-in set {dataset.name}")
    plan = make_plan(config, devices, facts, environment)
    for note in plan.notes:
        console.notice(note)
    # Only node 0 needs the file, and only to begin with.
    pretrained = (
        None if config.pretrained is None or config.node_rank or config.resume is not None
        else describe_weights(Path(config.pretrained), plan.model, plan.data.num_classes)[1]
    )  # fmt: skip
    return _Prepared(devices, dataset, plan, notices, pretrained)


def measure(
    config: RunConfig, console: Console, environment: Mapping[str, str] = os.environ, *, series: str | None = None
) -> RunRecord:
    """Carry out one run, alone or in a series of that name; its finished record. Raises ActionableError."""
    node = find_node(config)
    if node is None or node.rank == 0:
        return _measure(config, console, environment, series, node, Path(config.results))
    # Node 0 records for all. This record is only how the ranks here get their orders.
    with tempfile.TemporaryDirectory(prefix="pplcnet-bench-node-") as folder:
        return _measure(config, console, environment, series, node, Path(folder))


def _measure(
    config: RunConfig,
    console: Console,
    environment: Mapping[str, str],
    series: str | None,
    node: Node | None,
    folder: Path,
) -> RunRecord:
    prepared = _prepare(config, console, environment)
    check_paddle()
    with ExitStack() as stack:
        if config.resume is not None:
            files = RunFiles(folder, config.resume)
            stack.enter_context(exclusive_run_lock(files))
            record = _resume_record(files, config, prepared, environment)
        else:
            files = claim_files(folder, config.run_name, run_name(prepared.plan, time.strftime(NAME_TIME)))
            if config.trains_epochs:
                stack.enter_context(exclusive_run_lock(files))
            record = _begin(files, config, prepared, environment, series)
        console.plan(record.plan, f"run {files.run}")
        return _execute(record, files, prepared, environment, console, node)


def _begin(
    files: RunFiles, config: RunConfig, prepared: _Prepared, environment: Mapping[str, str], series: str | None
) -> RunRecord:
    """The record of a run that has no step yet, written; its name is free again if that fails."""
    try:
        surroundings, profiled, bad = _inspect_inputs(files, config, prepared, environment)
        record = RunRecord(
            run=files.run,
            status="running",
            config=config,
            plan=prepared.plan,
            environment=surroundings,
            profile=profiled,
            series=series,
            warnings=(*prepared.notices, *prepared.plan.notes),
            attempts=(_attempt(1, 0, prepared.plan),),
            bad_images=tuple(asdict(image) for image in bad),
            pretrained=prepared.pretrained,
        )
        write_record(files.record, record)
    except BaseException:
        with suppress(OSError):
            files.record.unlink(missing_ok=True)
            shutil.rmtree(files.checkpoints, ignore_errors=True)
        raise
    return record


def _resume_record(
    files: RunFiles, config: RunConfig, prepared: _Prepared, environment: Mapping[str, str]
) -> RunRecord:
    """The record of a run that goes on from its newest checkpoint, written, its tables cut back to that."""
    before = find_resumption(files)
    plan = prepared.plan
    notes = check_same_run(before, config, plan)
    if before.checkpoint is None and config.pretrained is not None and not config.node_rank:
        # It begins with the file once more, which must be what it was.
        again = describe_weights(Path(config.pretrained), plan.model, plan.data.num_classes)[1]
        if again != before.record.pretrained:
            raise UsageError(
                f"{config.pretrained} is another file than the one run {files.run!r} began with", "Start another run."
            )
    surroundings, profiled, bad = _inspect_inputs(files, config, prepared, environment)
    truncate_to_checkpoint(files, before.checkpoint, before.rows)
    record = replace(
        before.record,
        status="running",
        config=replace(config, resume=None, run_name=before.record.config.run_name),
        plan=plan,
        environment=surroundings,
        profile=profiled,
        warnings=(*before.record.warnings, *notes),
        attempts=(*before.record.attempts, _attempt(before.first_segment, before.step, plan)),
        bad_images=tuple(asdict(image) for image in bad),
        checkpoint=before.checkpoint,
        effective_settings=before.values.get("effective_settings", {}),
    )
    write_record(files.record, record)
    return record


def _attempt(first_segment: int, step: int, plan: RunPlan) -> dict[str, Any]:
    return {"first_segment": first_segment, "step": step, "started_unix_seconds": time.time(), "ranks": plan.ranks}


def _execute(
    record: RunRecord,
    files: RunFiles,
    prepared: _Prepared,
    environment: Mapping[str, str],
    console: Console,
    node: Node | None,
) -> RunRecord:
    """Run the ranks and conclude; whatever ends that leaves the record saying so."""
    config = record.config
    try:
        plan = _train(config, files, prepared, environment, console, node)
        record = read_record(files.record)
        if node is not None and node.rank:
            console.notice(f"node {node.rank} is done; node 0 ({node.master[0]}) has the tables, in its --results")
            return replace(record, status="finished")
        if config.eval_only:
            record = replace(record, status="finished", summary=summarize_evaluation(files, record))
            append_row(files.folder / "summary.csv", SUMMARY, record.summary)
            write_record(files.record, record)
            console.evaluation(record, files)
            return record
        breaks, first_segment = record.breaks()
        record = replace(record, status="finished", **summarize(files, record, breaks, first_segment).as_record())
        if node is not None:
            # The energy is that of node 0's GPUs, the images are of all.
            record = replace(record, summary={**record.summary, "images_per_joule": None})
        # Only a run that is concluded again has a row already; another run of that name keeps its own.
        unique = ("run",) if len(record.attempts) > 1 else ()
        is_first = append_row(files.folder / "summary.csv", SUMMARY, record.summary, unique)
        reference_row = append_reference_row(
            files.folder, plan, record.summary, method_marks(config, plan), once=not is_first
        )
        write_record(files.record, record)
    except BaseException as error:
        told = error if record.series is not None else _add_resume_hint(error, files, config)
        stopped = isinstance(told, ActionableError) and told.exit_code == INTERRUPTED_EXIT_CODE
        status = "interrupted" if stopped or isinstance(told, KeyboardInterrupt) else "failed"
        # A full disk, which may be what ended the run, must not take the place of what is told about it.
        with suppress(ActionableError):
            failed = read_record(files.record).warned(f"{status}: {error}" if str(error) else status)
            write_record(files.record, replace(failed, status=status))
        if told is error:
            raise
        raise told from error
    console.conclusion(record, files, reference_row)
    return record


def _add_resume_hint(error: BaseException, files: RunFiles, config: RunConfig) -> BaseException:
    """What ended a run, with the command that goes on with it, where it has a checkpoint."""
    if not isinstance(error, (ActionableError, KeyboardInterrupt)):
        return error
    result = newest_checkpoint(files.checkpoints)
    if result is None:
        return error
    step, command = result[1]["optimizer_steps"], resume_command(files.run, config)
    way_on = f"The state behind step {step:,} is kept. To go on from it:\n  {command}"
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError("interrupted", way_on)
    error.cure = f"{error.cure}\n{way_on}" if error.cure else way_on
    return error


def _train(
    config: RunConfig,
    files: RunFiles,
    prepared: _Prepared,
    environment: Mapping[str, str],
    console: Console,
    node: Node | None,
) -> RunPlan:
    """Run the ranks; the plan they carried out, which --auto-batch may have changed.

    A batch is only changed before a step has been recorded, so that all steps of a run are alike.
    """
    plan = prepared.plan
    # Nodes may share the folder.
    kept = None if node is None else Path(config.results) / f"{files.run}.node{node.rank}.logs"
    while True:
        try:
            with Progress(console, plan, config.max_seconds, files) as progress:
                run_workers(
                    files,
                    prepared.devices,
                    plan,
                    environment,
                    progress.poll,
                    node=node,
                    stall_timeout=config.stall_timeout,
                    say=console.notice,
                    kept=kept,
                )
            return plan
        except OutOfMemoryError as error:  # noqa: PERF203 - each pass is a run
            if not config.auto_batch or plan.batch_size == 1 or _has_rows(files):
                raise
            smaller = plan.batch_size // 2
            warning = (
                f"--auto-batch: {plan.batch_size} images per device did not fit into memory, going on with {smaller}"
                f" ({error.message.partition(': ')[2]})"
            )
            halved = replace(config, batch_size=smaller)
            plan = make_plan(halved, prepared.devices, prepared.plan.data, environment)
            write_record(files.record, replace(read_record(files.record).warned(warning), plan=plan))
            console.notice(warning)
            console.plan(plan, f"run {files.run}, with a smaller batch")


def _has_rows(files: RunFiles) -> bool:
    path = files.table(STEPS.name)
    return path.exists() and path.read_bytes().count(b"\n") > 1


def _open(source: str, config: RunConfig) -> tuple[Dataset, DataFacts]:
    dataset = open_dataset(source, config.classes)
    if dataset.val is None and not config.throughput_only:
        raise DataError(
            f"{dataset.name} has no validation images, so a run can't end with a top-1",
            "Add val_list.txt or a val/ folder, or measure with --throughput-only.",
        )
    return dataset, facts_of(dataset, source)


def _inspect_inputs(
    files: RunFiles, config: RunConfig, prepared: _Prepared, environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any], list[BadImage]]:
    """The machine, the training files, and those of both splits that can't be read."""
    dataset = prepared.dataset
    surroundings = describe(prepared.devices, dataset.train.root, files.folder, environment=environment)
    memory = [surroundings[name] for name in ("memory_bytes", "memory_limit_bytes") if surroundings[name]]
    profiled, bad = _check_data(dataset, config, min(memory, default=None))
    return surroundings, profiled, bad


def _check_data(dataset: Dataset, config: RunConfig, memory_bytes: int | None) -> tuple[dict[str, Any], list[BadImage]]:
    """Look at every file the run will read: what those it trains on are like and where they lie, and the unusable ones.

    Raises DataError when these are more than the run bears.
    """
    splits = {TRAIN_SPLIT: dataset.train, VAL_SPLIT: dataset.val}
    if config.throughput_only:
        del splits[VAL_SPLIT]
    if config.eval_only:
        del splits[TRAIN_SPLIT]
    read = {split: images for split, images in splits.items() if images is not None}
    first, images = next(iter(read.items()))
    paths = [f"{images.root}/{path}" for path in images.paths]
    if dataset.builtin:
        # What is measured on a built-in set is decoding and training; the disk it happens to lie on is no part of it.
        read_into_memory(paths)
    share = resident_share(paths)
    checks = {split: check_files(of_split) for split, of_split in read.items()}
    bad: list[BadImage] = []
    for split, check in checks.items():
        bad += [
            BadImage(split, index, check.images.paths[index], check.images.labels[index], reason)
            for index, reason in check.faults.items()
        ]
        if check.faults and (config.bad_images == FAIL or len(bad) > config.max_bad_images):
            raise check.refuse()
    found = profile(images, checks[first].sizes)
    state = data_state(share, found.total_bytes, memory_bytes or found.total_bytes)
    larger = None if memory_bytes is None else state.larger_than_memory
    cache = {"share": state.share, "state": state.state, "bytes": state.bytes, "memory_bytes": memory_bytes}
    return {**asdict(found), "page_cache": {**cache, "larger_than_memory": larger}}, bad
