"""TFRecord files of tf.train.Example messages, as TensorFlow's scripts for ImageNet write them.

Sources: https://www.tensorflow.org/tutorials/load_data/tfrecord (the framing), tensorflow/core/example/example.proto
and feature.proto (the message).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from pipelines.packed.members import NO_LABEL, Member, ShardError, WrittenFormat
from pipelines.packed.protobuf import BYTES, Message

# The names of features: those of TensorFlow's ImageNet scripts first, which are written, then those of its data sets.
ENCODED, LABEL, NAME = ("image/encoded", "image"), ("image/class/label", "label"), ("image/filename", "file_name")
_HEADER, _LENGTH, _CRC = struct.Struct("<QI"), struct.Struct("<Q"), struct.Struct("<I")
# Bytes around a record's message: its length and that one's checksum before it, its own checksum after it.
_BEFORE, _AFTER = _HEADER.size, _CRC.size
_MAX_NAME = 4096


def scan(shard: Path) -> Iterator[Member]:
    """The images of a file, one in each record."""
    with shard.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        place = number = 0
        while place < size:
            header = stream.read(_BEFORE)
            length = _HEADER.unpack(header)[0] if len(header) == _BEFORE else size
            end = place + _BEFORE + length
            if end + _AFTER > size:
                raise ShardError(f"record {number:,}, at byte {place:,}, goes on beyond the end")
            yield _member(stream, end, number)
            place, number = end + _AFTER, number + 1
            stream.seek(place)


def _member(stream: BinaryIO, end: int, number: int) -> Member:
    """The image of the message from here to end."""
    message = Message(stream, end, "tf.train.Example")
    where: tuple[int, int] | None = None
    label, name = NO_LABEL, ""
    for key, size in _features(message, end):
        after = message.place + size
        if key in ENCODED:
            where = next(_values(message, after), None)
        elif key in LABEL:
            label = _integer(message, after)
        elif key in NAME:
            for _, length in _values(message, after):
                name = message.read(min(length, _MAX_NAME)).decode("utf-8", "surrogateescape")
    if where is None:
        raise ShardError(
            f"record {number:,} has no feature {ENCODED[0]!r}", "Pack the images again: run_bench.py pack."
        )
    return Member(name or f"{number}", label, *where)


def _features(message: Message, end: int) -> Iterator[tuple[str, int]]:
    """The name of each feature in an Example, and the size of the Feature that begins at the message's place."""
    for field, features_size, _ in message.fields(end):
        if field != 1:
            continue
        for entry_field, entry_size, _ in message.fields(message.place + features_size):
            if entry_field != 1:
                continue
            key = ""
            for part, size, _ in message.fields(message.place + entry_size):
                if part == 1:
                    key = message.read(size).decode("utf-8", "replace")
                elif part == 2:
                    yield key, size


def _values(message: Message, end: int) -> Iterator[tuple[int, int]]:
    """Place and size of each value of a Feature's bytes."""
    for field, size, _ in message.fields(end):
        if field == 1:
            for part, length, _ in message.fields(message.place + size):
                if part == 1:
                    yield message.place, length


def _integer(message: Message, end: int) -> int:
    """The first whole number of a Feature; NO_LABEL without one."""
    for field, size, _ in message.fields(end):
        if field == 3:
            for part, length, value in message.fields(message.place + size):
                if part == 1:
                    return message.varint() if length else value
    return NO_LABEL


def _varint(value: int) -> bytes:
    """The encoding of a whole number of at least 0."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | BYTES,)) + _varint(len(content)) + content


def _feature(name: str, kind: int, value: bytes) -> bytes:
    """The entry of a feature with one value: of bytes (kind 1) or, encoded already, whole numbers (kind 3)."""
    return _field(1, _field(1, name.encode()) + _field(2, _field(kind, _field(1, value))))


class Writer:
    """Writes a record of an Example for each image: its file, its label and its name."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._place = 0

    def add(self, name: str, label: int, content: bytes) -> None:
        """Write an image."""
        features = (
            _feature(LABEL[0], 3, _varint(label)),
            _feature(NAME[0], 1, name.encode("utf-8", "surrogateescape")),
            _feature(ENCODED[0], 1, content),
        )
        message = _field(1, b"".join(features))
        length = _LENGTH.pack(len(message))
        record = b"".join((length, self._masked(length), message, self._masked(message)))
        self._stream.write(record)
        self._lines.append(f"{self._place} {len(record)}\n")
        self._place += len(record)

    def _masked(self, data: bytes) -> bytes:
        """The checksum of bytes, rotated and moved as the format wants it."""
        checksum = google_crc32c.value(data)
        return _CRC.pack(((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def finish(self) -> str:
        """Returns the index that DALI's tfrecord2idx would write."""
        return "".join(self._lines)


TFRECORD = WrittenFormat("tfrecord", (".tfrecord", ".tfrecords"), scan, Writer)
