"""Packs a data set's images into shards: planned first, so that a pack that was interrupted resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.dataset import Dataset, fingerprint
from pipelines.file_checks import FileCheck
from pipelines.image_lists import ImageList
from pipelines.packed.manifest import Manifest, PackedShard
from pipelines.packed.members import WrittenFormat

# Digits of a shard's number.
_DIGITS = 6
# Images between two reports of progress.
_STEP = 16
_READ_BYTES = 1 << 20

# Gives a stream to write a file whole: it has its content when the block ends well.
Replaced = Callable[[Path], AbstractContextManager[BinaryIO]]


class StoppedError(Exception):
    """Packing was asked to stop."""


def plan_shards(dataset: Dataset, checks: dict[str, FileCheck], kind: WrittenFormat, shard_bytes: int) -> Manifest:
    """The shards that hold each split's images in their order, each of about shard_bytes."""
    digest = hashlib.sha256()
    splits: dict[str, tuple[PackedShard, ...]] = {}
    for split, check in checks.items():
        sizes = np.asarray(check.sizes, dtype=np.int64)
        digest.update(sizes.tobytes())
        bounds = _bounds(sizes, shard_bytes)
        splits[split] = tuple(
            PackedShard(f"{split}/{split}-{number:0{_DIGITS}}{kind.endings[0]}", begin, end)
            for number, (begin, end) in enumerate(bounds)
        )
    return Manifest(kind.name, fingerprint(dataset), digest.hexdigest(), splits)


def _bounds(sizes: np.ndarray, shard_bytes: int) -> list[tuple[int, int]]:
    ends = np.cumsum(sizes)
    bounds: list[tuple[int, int]] = []
    begin = 0
    while begin < len(sizes):
        before = int(ends[begin - 1]) if begin else 0
        # At least one image, however large.
        end = max(begin + 1, int(np.searchsorted(ends, before + shard_bytes, side="right")))
        bounds.append((begin, end))
        begin = end
    return bounds


def write_shards(
    manifest: Manifest,
    dataset: Dataset,
    kind: WrittenFormat,
    folder: Path,
    threads: int,
    replaced: Replaced,
    advance: Callable[[int], None],
) -> Iterator[Manifest]:
    """Write the shards that are missing, several at once; yields the manifest after each of them.

    advance is called with the number of images that were written, and ends the work by an exception. Raises OSError.
    """
    missing = [
        (split, place)
        for split, shards in manifest.splits.items()
        for place, shard in enumerate(shards)
        if shard.sha256 is None
    ]
    stopped = False

    def written(split: str, place: int) -> tuple[str, int, PackedShard]:
        def step(images: int) -> None:
            if stopped:
                raise StoppedError
            advance(images)

        shard = manifest.splits[split][place]
        return split, place, _write(shard, dataset.splits[split], kind, folder, replaced, step)

    with ThreadPoolExecutor(threads) as pool:
        coming = [pool.submit(written, split, place) for split, place in missing]
        try:
            for done in as_completed(coming):
                split, place, shard = done.result()
                shards = [*manifest.splits[split]]
                shards[place] = shard
                manifest = replace(manifest, splits={**manifest.splits, split: tuple(shards)})
                yield manifest
        finally:
            stopped = True
            for one in coming:
                one.cancel()


def _write(
    shard: PackedShard,
    images: ImageList,
    kind: WrittenFormat,
    folder: Path,
    replaced: Replaced,
    step: Callable[[int], None],
) -> PackedShard:
    path = folder / shard.file
    with replaced(path) as stream:
        hashed = _Hashed(stream)
        writer = kind.writer(hashed)  # type: ignore[arg-type]
        for begin in range(shard.begin, shard.end, _STEP):
            indices = range(begin, min(begin + _STEP, shard.end))
            for index in indices:
                writer.add(images.paths[index], images.labels[index], images.content(index))
            step(len(indices))
        index_text = writer.finish()
    with replaced(path.with_suffix(".idx")) as stream:
        stream.write(index_text.encode("utf-8", "surrogateescape"))
    return replace(shard, bytes=hashed.size, sha256=hashed.digest.hexdigest())


class _Hashed:
    """A stream that is written from its start on, with the checksum of what was written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self.digest.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        """The number of bytes that were written."""
        return self.size


def wrong_checksums(manifest: Manifest, folder: Path, threads: int) -> dict[str, dict[int, str]]:
    """The first image of each shard that isn't what was packed, by split, and what is wrong."""
    shards = [(split, shard) for split, of_split in manifest.splits.items() for shard in of_split]

    def wrong(shard: PackedShard) -> str:
        try:
            with (folder / shard.file).open("rb") as stream:
                digest = hashlib.sha256()
                while part := stream.read(_READ_BYTES):
                    digest.update(part)
        except OSError as error:
            return f"the shard {shard.file}: {(error.strerror or type(error).__name__).lower()}"
        return (
            ""
            if digest.hexdigest() == shard.sha256
            else f"the shard {shard.file} has another checksum than in pack.json"
        )

    results: dict[str, dict[int, str]] = {split: {} for split in manifest.splits}
    with ThreadPoolExecutor(threads) as pool:
        for (split, shard), reason in zip(shards, pool.map(lambda one: wrong(one[1]), shards), strict=True):
            if reason:
                results[split][shard.begin] = reason
    return results
