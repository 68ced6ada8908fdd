"""What the formats of shards have in common: members, what is wrong with a shard, and how one is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

# The label of a member that has none.
NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a shard: its name there, its label (NO_LABEL without one), and its bytes' offset and number.

    divided: the record has parts, so that the headers between them are among these bytes (RecordIO alone has such).
    """

    name: str
    label: int
    offset: int
    size: int
    divided: bool = False


class ShardError(Exception):
    """A shard that doesn't follow its format: what is wrong, in words, and what to do about it."""

    def __init__(self, reason: str, cure: str = "Fetch the shard again, or pack the images again.") -> None:
        super().__init__(reason)
        self.reason, self.cure = reason, cure


class ShardWriter(Protocol):
    """Writes one shard to a stream, from its start."""

    def add(self, name: str, label: int, content: bytes) -> None:
        """Write an image. name is a path with "/" between folders."""

    def finish(self) -> str:
        """Write what ends the shard. Returns the text of its index as DALI's reader of the format expects it."""


@dataclass(frozen=True, slots=True)
class ShardFormat:
    """A format of shards, by its name.

    endings are those of its files, in lower case. scan yields a shard's members in order, and raises ShardError and
    OSError.
    """

    name: str
    endings: tuple[str, ...]
    scan: Callable[[Path], Iterator[Member]]


@dataclass(frozen=True, slots=True)
class WrittenFormat(ShardFormat):
    """A format that `pack` writes, too: its name is that of --format. writer begins a shard in an empty stream."""

    writer: Callable[[BinaryIO], ShardWriter]
