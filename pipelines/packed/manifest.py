"""pack.json: what a folder of shards was made from, and each shard's checksum."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.image_lists import shown

MANIFEST = "pack.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class PackedShard:
    """A shard of the images from begin to end (without it) of a split's list; bytes and sha256 when it is written."""

    file: str
    begin: int
    end: int
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The shards of each split, and the lists and sizes of the images that they are made from."""

    format: str
    fingerprint: str
    sizes_sha256: str
    splits: dict[str, tuple[PackedShard, ...]]
    version: int = VERSION

    @property
    def shards(self) -> list[PackedShard]:
        """Those of all splits."""
        return [shard for of_split in self.splits.values() for shard in of_split]

    @property
    def written(self) -> int:
        """The number of shards that are written."""
        return sum(shard.sha256 is not None for shard in self.shards)

    @property
    def finished(self) -> bool:
        """Whether all shards are written."""
        return self.written == len(self.shards)

    def is_for(self, other: Manifest) -> bool:
        """Whether the other one is for the same shards of the same images."""
        return self._unwritten() == other._unwritten()

    def _unwritten(self) -> Manifest:
        splits = self.splits.items()
        plain = {name: tuple(replace(one, bytes=None, sha256=None) for one in of_split) for name, of_split in splits}
        return replace(self, splits=plain)

    def as_text(self) -> str:
        """The content of pack.json."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder; None if there is none. Raises DataError for one that can't be read."""
    path = folder / MANIFEST
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise ValueError(f"its version is {found['version']}, this is {VERSION}")
        splits = {
            str(split): tuple(PackedShard(**shard) for shard in shards) for split, shards in found["splits"].items()
        }
        return Manifest(**{**found, "splits": splits})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{shown(path)} can't be read: {error}",
            "Remove it to use the shards without their checksums, or pack the images again.",
        ) from error


def check_finished(folder: Path) -> None:
    """Raise DataError for shards that a `pack` has begun and not finished."""
    manifest = read_manifest(folder)
    if manifest is not None and not manifest.finished:
        raise DataError(
            f"the shards in {shown(folder)} are not complete: packing them was interrupted",
            "Give the same command again (run_bench.py pack): it resumes where it was.",
        )
