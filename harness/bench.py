"""One run from its configuration to its summary row: plan, check, launch, conclude."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.conclude import conclude
from harness.config import RunConfig
from harness.device import Devices, check_paddle, choose_devices
from harness.environment import describe
from harness.launch import run_workers
from harness.plan import DEFAULT_FOLDER, IMAGENET, DataFacts, RunPlan, default_data, facts_of, make_plan, run_name
from harness.record import NAME_TIME, RunRecord, claim_files, read_record, write_record
from harness.report.console import Console
from harness.report.progress import Progress
from harness.series import run_series, series_members
from harness.tables.files import append_row
from harness.tables.mirror import append_mirror_row
from harness.tables.schema import SUMMARY
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.lists import check_files
from pipelines.profile import profile
from pipelines.residency import data_state, read_into_memory, resident_share


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A run before it begins: devices, data and every default decided."""

    devices: Devices
    dataset: Dataset
    plan: RunPlan
    notices: tuple[str, ...]


def run(config: RunConfig, *, dry_run: bool = False, environment: Mapping[str, str] = os.environ) -> None:
    """Carry out the runs that a configuration asks for, or print the plan. Raises BenchError or DataError."""
    console = Console()
    if dry_run:
        _print_plan(config, console, environment)
        return
    members = series_members(config)
    if config.scaling is not None:
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
    return _Prepared(devices, dataset, plan, notices)


def measure(
    config: RunConfig, console: Console, environment: Mapping[str, str] = os.environ, *, series: str | None = None
) -> RunRecord:
    """Carry out one run, alone or in a series of that name; its finished record. Raises BenchError or DataError."""
    prepared = _prepare(config, console, environment)
    devices, dataset, plan = prepared.devices, prepared.dataset, prepared.plan
    check_paddle()
    files = claim_files(Path(config.results), config.run_name, run_name(plan, time.strftime(NAME_TIME)))
    try:
        surroundings = describe(devices, dataset.train.root, files.folder, environment=environment)
        memory = [surroundings[name] for name in ("memory_bytes", "memory_limit_bytes") if surroundings[name]]
        profiled = _check_data(dataset, config, min(memory, default=None))
    except BaseException:
        files.record.unlink()
        raise
    record = RunRecord(
        run=files.run,
        status="running",
        config=config,
        plan=plan,
        environment=surroundings,
        profile=profiled,
        series=series,
        warnings=(*prepared.notices, *plan.notes),
    )
    write_record(files.record, record)
    console.plan(plan, f"run {files.run}")
    try:
        with Progress(console, plan, config.max_seconds, files) as progress:
            run_workers(files, devices, plan, environment, progress.poll)
        record = read_record(files.record)
        record = replace(record, status="finished", **conclude(files, record).as_record())
        append_row(files.folder / "summary.csv", SUMMARY, record.summary)
        mirror = append_mirror_row(files.folder, plan, record.summary)
        write_record(files.record, record)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        failed = read_record(files.record).warned(f"{status}: {error}" if str(error) else status)
        write_record(files.record, replace(failed, status=status))
        raise
    console.conclusion(record, files, mirror)
    return record


def _open(source: str, config: RunConfig) -> tuple[Dataset, DataFacts]:
    dataset = open_dataset(source, config.classes)
    if dataset.val is None and not config.throughput_only:
        raise DataError(
            f"{dataset.name} has no validation images, so a run of epochs can't end with a top-1",
            "Add val_list.txt or a val/ folder, or measure with --throughput-only.",
        )
    return dataset, facts_of(dataset, source)


def _check_data(dataset: Dataset, config: RunConfig, memory_bytes: int | None) -> dict[str, Any]:
    """Look at every file the run will read; what the training ones are like, and where they lie."""
    images = dataset.train
    paths = [f"{images.root}/{path}" for path in images.paths]
    if dataset.builtin:
        # What is measured on a built-in set is decoding and training; the disk it happens to lie on is no part of it.
        read_into_memory(paths)
    share = resident_share(paths)
    sizes = check_files(images)
    if not config.throughput_only and dataset.val is not None:
        check_files(dataset.val)
    found = profile(images, sizes)
    state = data_state(share, found.total_bytes, memory_bytes or found.total_bytes)
    larger = None if memory_bytes is None else state.larger_than_memory
    cache = {"share": state.share, "state": state.state, "bytes": state.bytes, "memory_bytes": memory_bytes}
    return {**asdict(found), "page_cache": {**cache, "larger_than_memory": larger}}
