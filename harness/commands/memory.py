"""What --cache ram does before the ranks start: reads the images' files into memory, and says what that brings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.report.console import Console
from harness.report.progress import image_bar
from models.words import count_of
from pipelines.image_lists import ImageList
from pipelines.memory_cache import MemoryCache
from pipelines.storage import Patience


def keep_in_memory(
    splits: Mapping[str, ImageList],
    bad_images: Iterable[Mapping[str, Any]],
    limit_bytes: int | None,
    patience: Patience,
    console: Console,
) -> MemoryCache:
    """Read the files of all images but the bad ones into memory, until the result is closed.

    bad_images are as the record has them; limit_bytes is the most memory that this process may use, None without a
    limit. Raises DataError where they don't fit, StorageError where they can't be read.
    """
    bad: dict[str, set[int]] = {}
    for image in bad_images:
        bad.setdefault(image["split"], set()).add(image["index"])
    total = sum(map(len, splits.values())) - sum(map(len, bad.values()))
    with image_bar(console, total) as bar:
        task = bar.add_task("reading into memory", total=total, rate="images")
        left_out = {split: frozenset(indices) for split, indices in bad.items()}
        cache = MemoryCache(splits, left_out, patience, limit_bytes, lambda images: bar.advance(task, images))
    brought = cache.brought
    console.line(
        f"{count_of(total, 'image')} in memory, {brought.bytes / 1e9:,.2f} GB, after {brought.seconds:,.1f} s: they"
        f" were read at {brought.source_bytes_per_second / 1e6:,.0f} MB/s, and come from there at"
        f" {brought.memory_bytes_per_second / 1e6:,.0f} MB/s for each thread"
    )
    return cache
