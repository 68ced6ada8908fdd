"""Shards of a few images, written by the formats' own writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.image_lists import ImageList
from pipelines.packed.members import WrittenFormat
from pipelines.packed.shards import find_shards, list_shards

Image = tuple[str, int, bytes]


def write_shard(path: Path, kind: WrittenFormat, images: Sequence[Image]) -> Path:
    """Write images, each its name, label and content, into one shard, and the index that DALI reads beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        writer = kind.writer(stream)
        for image in images:
            writer.add(*image)
        index = writer.finish()
    path.with_suffix(".idx").write_text(index, encoding="utf-8", errors="surrogateescape")
    return path


def packed(folder: Path, kind: WrittenFormat, *shards: Sequence[Image], split: str = "train") -> ImageList:
    """The list of the images in shards that are written to a folder."""
    for number, images in enumerate(shards):
        write_shard(folder / split / f"{split}-{number:03d}{kind.endings[0]}", kind, images)
    return listed(folder, split)


def listed(folder: Path, split: str = "train", first_label: int = 0) -> ImageList:
    """The list of the images in a split's shards."""
    found = find_shards(folder, split)
    assert found is not None
    return list_shards(found, first_label, with_labels=True)[0]
