"""`run_bench.py pack`: writes a data set's images into shards of WebDataset, TFRecord or RecordIO."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from harness.artifacts.atomic import disk_errors, replaced, write_whole
from harness.artifacts.lock import exclusive_lock
from harness.errors import InterruptedRunError, MachineError, UsageError
from harness.machine.host import available_cores
from harness.report.console import Console
from harness.report.progress import image_bar
from harness.report.text import command_line
from models.notes import Note
from models.words import count_of
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.file_checks import EMPTY_FILE, FileCheck
from pipelines.image_lists import first_ten, shown
from pipelines.misread import WRONG_PIXELS
from pipelines.packed.manifest import MANIFEST, Manifest, read_manifest
from pipelines.packed.packing import plan_shards, write_shards
from pipelines.packed.shards import FORMATS
from pipelines.settings_file import SETTINGS_FILE, settings_text
from pipelines.storage import Patience, Storage

USUAL_MEGABYTES = 256
LOCK = ".pack.lock"
# What shards need besides their images' bytes, at most, by image.
OVERHEAD_BYTES = 2048


def pack(
    data: str,
    to: str,
    format: str,  # noqa: A002
    shard_megabytes: int = USUAL_MEGABYTES,
    threads: int | None = None,
) -> None:
    """Write the images of the set that data names into shards in the folder to; a pack that was interrupted resumes.

    Raises UsageError for a value outside its limits and a folder that holds something else, DataError for images that
    can't be read, InterruptedRunError when interrupted, and MachineError if the folder can't be written.
    """
    for name, value in (("--shard-megabytes", shard_megabytes), ("--threads", threads)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    console, target, kind = Console(), Path(to), FORMATS[format]
    dataset = open_dataset(data)
    for note in dataset.notes:
        console.notice(note)
    checks = _inspected(dataset, Patience(say=console.notice))
    planned = plan_shards(dataset, checks, kind, shard_megabytes << 20)
    command = command_line(
        "pack", data, to, "--format", format,
        *(("--shard-megabytes", str(shard_megabytes)) if shard_megabytes != USUAL_MEGABYTES else ()),
        *(("--threads", str(threads)) if threads is not None else ()),
    )  # fmt: skip
    with disk_errors(shown(target), elsewhere="a folder on another disk"):
        _check_target(target)
        target.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(target / LOCK, wait=False, held=f"another process packs into {shown(target)}"):
            manifest = _begin(target, planned, console)
            _check_room(target, manifest, checks)
            write_whole(target / SETTINGS_FILE, settings_text(dataset.name, dataset.num_classes, dataset.augmentation))
            began = time.monotonic()
            manifest = _written(manifest, dataset, target, threads or available_cores(), console, command)
        (target / LOCK).unlink(missing_ok=True)
    _conclude(console, open_dataset(target), manifest, target, time.monotonic() - began)


def _inspected(dataset: Dataset, patience: Patience) -> dict[str, FileCheck]:
    """The sizes of all images. Raises DataError for those that can't be read; empty ones are packed as they are."""
    checks = {split: Storage(images, patience).inspect() for split, images in dataset.splits.items()}
    lines = [
        f"{split}: {shown(check.images.paths[index])}: {reason}"
        for split, check in checks.items()
        for index, reason in sorted(check.faults.items())
        if reason != EMPTY_FILE and not reason.endswith(WRONG_PIXELS)
    ]
    if lines:
        raise DataError(
            f"{count_of(len(lines), 'image')} can't be read, and so not packed:\n{first_ten(lines)}",
            "Restore them, or take them out of the lists or folders: run_bench.py verify lists each of them.",
        )
    return checks


def _check_target(target: Path) -> None:
    if target.is_dir() and read_manifest(target) is None and any(name.name != LOCK for name in target.iterdir()):
        raise UsageError(
            f"{shown(target)} holds other files, and no pack that was interrupted",
            "Name a folder that doesn't exist yet, or an empty one.",
        )


def _begin(target: Path, planned: Manifest, console: Console) -> Manifest:
    """Returns the manifest to resume from. Raises UsageError for shards of other images."""
    before = read_manifest(target)
    if before is None:
        write_whole(target / MANIFEST, planned.as_text())
        return planned
    if not before.is_for(planned):
        raise UsageError(
            f"{shown(target)} holds shards of other images, or was begun with other options",
            "Give the options of that pack to resume it, or name another folder.",
        )
    # Files that a killed process was writing.
    for split in planned.splits:
        for left in (target / split).glob(".*"):
            left.unlink()
    if before.written and not before.finished:
        console.notice(
            Note(
                f"resuming after {count_of(before.written, 'shard')} that an earlier pack wrote",
                "Remove the folder to begin again; run_bench.py verify compares every shard's checksum.",
            )
        )
    return before


def _check_room(target: Path, manifest: Manifest, checks: dict[str, FileCheck]) -> None:
    needed = sum(
        sum(checks[split].sizes[shard.begin : shard.end]) + OVERHEAD_BYTES * (shard.end - shard.begin)
        for split, shards in manifest.splits.items()
        for shard in shards
        if shard.sha256 is None
    )
    free = shutil.disk_usage(target).free
    if needed > free:
        raise MachineError(
            f"the shards need {needed / 1e9:,.1f} GB, and {shown(target)} has {free / 1e9:,.1f} GB left",
            "Name a folder on another disk, or make room.",
        )


def _written(
    manifest: Manifest, dataset: Dataset, target: Path, threads: int, console: Console, command: str
) -> Manifest:
    missing = sum(shard.end - shard.begin for shard in manifest.shards if shard.sha256 is None)
    for split in manifest.splits:
        (target / split).mkdir(exist_ok=True)
    began = time.monotonic()
    try:
        with image_bar(console, missing) as bar:
            task = bar.add_task("packing", total=missing, rate="images")
            for state in write_shards(
                manifest, dataset, FORMATS[manifest.format], target, threads, replaced,
                lambda images: bar.advance(task, images),
            ):  # fmt: skip
                manifest = state
                write_whole(target / MANIFEST, manifest.as_text())
                rate = bar.tasks[task].completed / max(time.monotonic() - began, 1e-9)
                bar.update(task, rate=f"images, {rate:,.0f} images/s")
    except KeyboardInterrupt:
        written, total = manifest.written, count_of(len(manifest.shards), "shard")
        raise InterruptedRunError(f"interrupted: {written:,} of {total} written", f"To resume: {command}") from None
    return manifest


def _conclude(console: Console, packed: Dataset, manifest: Manifest, target: Path, seconds: float) -> None:
    for note in packed.notes:
        console.notice(note)
    total = sum(shard.bytes or 0 for shard in manifest.shards)
    images = sum(map(len, packed.splits.values()))
    data = str(target) if len(target.parts) > 1 else f"./{target}"
    what = f"{count_of(images, 'image')} in {count_of(len(manifest.shards), 'shard')} of {manifest.format}"
    console.line(f"{what}, {total / 1e9:,.2f} GB, in {seconds:,.1f} s")
    console.line(f"To check them: {command_line('verify', data)}")
    console.line(f"To train on them: {command_line('--data', data)}")
