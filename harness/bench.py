"""One run from its configuration to its summary row: plan, check, launch, conclude."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.analysis.window import final_accuracy, measure_window
from harness.config import RunConfig
from harness.device import check_paddle, choose_devices
from harness.environment import describe
from harness.errors import UsageError
from harness.launch import run_workers
from harness.plan import DEFAULT_FOLDER, IMAGENET, DataFacts, RunPlan, default_data, facts_of, make_plan, run_name
from harness.record import RunFiles, RunRecord, read_record, write_record
from harness.report.console import Console
from harness.report.progress import Progress
from harness.tables.files import append_row, check_writable, read_table
from harness.tables.mirror import append_mirror_row
from harness.tables.schema import EPOCHS, STEPS, SUMMARY
from harness.telemetry.host import cpu_name
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.lists import check_files
from pipelines.profile import DataProfile, profile


def run(config: RunConfig, *, dry_run: bool = False, environment: Mapping[str, str] = os.environ) -> None:
    """Carry out a run, or print its plan. Raises BenchError or DataError."""
    console = Console()
    devices, notices = choose_devices(config.device, config.gpus, environment, look=not dry_run)
    for notice in notices:
        console.notice(notice)
    source = default_data(config)
    if dry_run and config.data is None and source != DEFAULT_FOLDER:
        plan = make_plan(config, devices, IMAGENET, environment)
        console.plan(plan, "ImageNet's published counts; no data was read")
        return
    dataset, facts = _open(source, config)
    if config.data is None and dataset.builtin:
        console.notice(f"no --data, and no {DEFAULT_FOLDER} here: using the built-in set {dataset.name}")
    plan = make_plan(config, devices, facts, environment)
    for note in plan.notes:
        console.notice(note)
    if dry_run:
        console.plan(plan, f"counted in {facts.source}")
        return
    check_paddle()
    files = _claim_files(config, plan)
    try:
        profiled = _check_data(dataset, config)
    except BaseException:
        files.record.unlink()
        raise
    record = RunRecord(
        run=files.run,
        status="running",
        config=config,
        plan=plan,
        environment=describe(devices, dataset.train.root, files.folder, environment=environment),
        profile=asdict(profiled),
        warnings=(*notices, *plan.notes),
    )
    write_record(files.record, record)
    console.plan(plan, f"run {files.run}")
    try:
        with Progress(console, plan, config.max_seconds, files) as progress:
            run_workers(files, devices, plan, environment, progress.poll)
        summary = conclude(files, plan)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        write_record(files.record, replace(read_record(files.record), status=status))
        raise
    record = replace(read_record(files.record), status="finished", summary=summary)
    write_record(files.record, record)
    append_row(files.folder / "summary.csv", SUMMARY, summary)
    mirror = append_mirror_row(files.folder, plan, summary)
    console.conclusion(record, files, mirror)


def conclude(files: RunFiles, plan: RunPlan) -> dict[str, Any]:
    """The run's row of summary.csv, computed from its tables."""
    window = measure_window(read_table(files.table(STEPS.name), STEPS))
    return {
        "run": files.run,
        "model": plan.model,
        "dataset": plan.data.name,
        "crop_size": plan.image_size,
        "device": plan.device,
        "device_name": cpu_name() if plan.device == "cpu" else plan.device_name,
        "devices": plan.ranks,
        "batch_size": plan.batch_size,
        "fps_per_device": window.fps / plan.ranks,
        **asdict(window),
        **final_accuracy(read_table(files.table(EPOCHS.name), EPOCHS)),
    }


def _open(source: str, config: RunConfig) -> tuple[Dataset, DataFacts]:
    dataset = open_dataset(source, config.classes)
    if dataset.val is None and not config.throughput_only:
        raise DataError(
            f"{dataset.name} has no validation images, so a run of epochs can't end with a top-1",
            "Add val_list.txt or a val/ folder, or measure with --throughput-only.",
        )
    return dataset, facts_of(dataset, source)


def _check_data(dataset: Dataset, config: RunConfig) -> DataProfile:
    """Look at every file the run will read, and describe the training ones."""
    sizes = check_files(dataset.train)
    if not config.throughput_only and dataset.val is not None:
        check_files(dataset.val)
    return profile(dataset.train, sizes)


def _claim_files(config: RunConfig, plan: RunPlan) -> RunFiles:
    """The run's files, under a name that no other run has, not even one that starts at this moment."""
    folder = Path(config.results)
    check_writable(folder)
    name = config.run_name or run_name(plan, time.strftime("%Y%m%d-%H%M%S"))
    for number in itertools.count(1):
        files = RunFiles(folder, name if number == 1 else f"{name}-{number}")
        taken = files.existing()
        if not taken:
            try:
                files.record.touch(exist_ok=False)
                break
            except FileExistsError:
                taken = [files.record]
        if config.run_name:
            raise UsageError(f"{taken[0]} exists already", "Give another --run-name, or remove its files.")
    return files
