"""What --cache ram does before the ranks start: reads the images' files into memory, and says what that brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace

from harness.artifacts.record import RunFiles, RunRecord, write_record
from harness.report.console import Console
from harness.report.progress import image_bar
from models.words import count_of
from pipelines.image_lists import ImageList
from pipelines.memory_cache import MemoryCache
from pipelines.storage import Patience


def keep_in_memory(
    splits: Mapping[str, ImageList],
    record: RunRecord,
    files: RunFiles,
    stack: ExitStack,
    console: Console,
    say: Callable[[str], None],
) -> tuple[Mapping[str, ImageList], RunRecord]:
    """Read the files of all images but those that the run leaves out into memory, until the stack ends.

    Returns the lists that are read from there, and the record with what that took, which is written. say is called with
    what the user should know about storage that can't be read. Raises DataError where the files don't fit, StorageError
    where they can't be read.
    """
    bad: dict[str, set[int]] = {}
    for image in record.bad_images:
        bad.setdefault(image["split"], set()).add(image["index"])
    total = sum(map(len, splits.values())) - sum(map(len, bad.values()))
    patience = Patience(record.plan.operation.stall_timeout, say)
    limit = record.environment["memory_limit_bytes"]
    with image_bar(console, total) as bar:
        task = bar.add_task("reading into memory", total=total, rate="images")
        left_out = {split: frozenset(indices) for split, indices in bad.items()}
        cache = MemoryCache(splits, left_out, patience, limit, lambda images: bar.advance(task, images))
    stack.callback(cache.close)
    brought = cache.brought
    console.line(
        f"{count_of(total, 'image')} in memory, {brought.bytes / 1e9:,.2f} GB, after {brought.seconds:,.1f} s: they"
        f" were read at {brought.source_bytes_per_second / 1e6:,.0f} MB/s, and come from there at"
        f" {brought.memory_bytes_per_second / 1e6:,.0f} MB/s for each thread"
    )
    record = replace(record, profile={**record.profile, "memory_cache": asdict(brought)})
    write_record(files.record, record)
    return cache.splits, record
