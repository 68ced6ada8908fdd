"""WebDataset's shards: tar files in which members with the same name before the first dot are one sample.

Source: https://github.com/webdataset/webdataset (the format), and DALI's wds2idx for the index.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from pipelines.class_folders import IMAGE_EXTENSIONS
from pipelines.image_lists import shown
from pipelines.packed.members import NO_LABEL, Member, ShardError, WrittenFormat

# A sample's label: a whole number as text, or the member of this name in a JSON object.
CLASS, JSON, LABEL_KEY = "cls", "json", "label"
# A label's file is this long at most.
MAX_LABEL_BYTES = 1 << 20
_IMAGES = tuple(extension.removeprefix(".") for extension in IMAGE_EXTENSIONS)
_INDEX_VERSION = "v1.2"


def scan(shard: Path) -> Iterator[Member]:
    """The images of a tar, each with the label of its sample."""
    try:
        with tarfile.open(shard, "r:") as archive:
            yield from _members(archive)
            _check_end(archive)
    except tarfile.ReadError as error:
        reason = str(error)
        if _is_compressed(shard):
            reason = "it is compressed, so that nothing in it can be read by its place"
            raise ShardError(reason, "Unpack it: gunzip, or zstd -d.") from error
        raise ShardError(reason) from error


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless the archive's end is where its members end: tarfile stops at anything else, too."""
    stream = archive.fileobj
    if stream is not None:
        stream.seek(archive.offset)
        block = stream.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
        if any(block):
            raise tarfile.ReadError(f"there is no member at byte {archive.offset:,}, nor the archive's end")


def _is_compressed(shard: Path) -> bool:
    with shard.open("rb") as stream:
        return stream.read(4).startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zX"))


def _members(archive: tarfile.TarFile) -> Iterator[Member]:
    key, image, label = "", None, NO_LABEL
    for info in archive:
        if not info.isreg() or info.name.rpartition("/")[2].startswith("."):
            continue
        found, ending = split_name(info.name)
        if found != key:
            if image is not None:
                yield replace(image, label=label)
            key, image, label = found, None, NO_LABEL
        last = ending.rpartition(".")[2].lower()
        if last in _IMAGES:
            if image is not None:
                raise ShardError(
                    f"the sample {shown(key)} has two images, {shown(image.name)} and {shown(info.name)}",
                    "Pack one image in each sample.",
                )
            image = Member(info.name, NO_LABEL, info.offset_data, info.size)
        elif last in (CLASS, JSON):
            read = _label(archive, info, last)
            label = label if read == NO_LABEL else read
    if image is not None:
        yield replace(image, label=label)


def split_name(name: str) -> tuple[str, str]:
    """The key of a member's sample, and what the member is: its name before and after the last part's first dot."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return f"{folder}{slash}{stem}", ending


def _label(archive: tarfile.TarFile, info: tarfile.TarInfo, ending: str) -> int:
    stream = archive.extractfile(info)
    content = b"" if stream is None or info.size > MAX_LABEL_BYTES else stream.read()
    try:
        if ending == CLASS:
            return int(content)
        found = json.loads(content)
    except ValueError:
        if ending == JSON:  # what people keep there is their affair
            return NO_LABEL
        raise ShardError(
            f"the label in {shown(info.name)} is {content[:40]!r}, not a whole number", "Write it in decimal digits."
        ) from None
    label = found.get(LABEL_KEY) if isinstance(found, dict) else None
    return label if type(label) is int else NO_LABEL


class Writer:
    """Writes a tar of samples `name.jpg` and `name.cls`, equal to the byte for equal images."""

    def __init__(self, stream: BinaryIO) -> None:
        self._archive = tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._keys: set[str] = set()
        self._lines: list[str] = []

    def add(self, name: str, label: int, content: bytes) -> None:
        """Write a sample. Dots within the name become "_", as they would end the sample's key."""
        folder, slash, last = name.rpartition("/")
        stem, _, ending = last.rpartition(".")
        key = f"{folder}{slash}{(stem or last).replace('.', '_')}"
        while key in self._keys:
            key = f"{key}_{len(self._keys)}"
        self._keys.add(key)
        ending = ending.lower() if ending.lower() in _IMAGES else "jpg"
        parts = ((ending, content), (CLASS, str(label).encode()))
        self._lines.append(" ".join(self._add(key, part, data) for part, data in parts))

    def _add(self, key: str, ending: str, data: bytes) -> str:
        info = tarfile.TarInfo(f"{key}.{ending}")
        info.size, info.mode = len(data), 0o644
        self._archive.addfile(info, io.BytesIO(data))
        padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        # In the index a blank would end the name, which is there for messages alone.
        name = "_".join(info.name.split())
        return f"{ending} {self._archive.offset - padded} {len(data)} {name}"

    def finish(self) -> str:
        """End the archive. Returns the index that DALI's wds2idx would write."""
        self._archive.close()
        return "\n".join([f"{_INDEX_VERSION} {len(self._lines)}", *self._lines, ""])


WEBDATASET = WrittenFormat("webdataset", (".tar",), scan, Writer)
