"""MXNet's RecordIO files of images, as its im2rec writes them.

Sources: dmlc/recordio.h (records and their parts) and MXNet's image_recordio.h and recordio.py (an image's header).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from pipelines.packed.divided import MAGIC
from pipelines.packed.members import NO_LABEL, Member, ShardError, WrittenFormat

# A record's start: the magic number, and the part's kind (3 bits) with its length (29 bits). Parts are padded to words.
_PART, _WORD = struct.Struct("<4sI"), 4
_LENGTH_BITS = 29
# Where a record's bytes have the magic number at the place of a word, they are cut there, and the number is left out.
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
# An image's header: the number of labels that follow it (0: the one in the header counts), a label, and two numbers.
_IMAGE = struct.Struct("<IfQQ")
_FLOAT = struct.Struct("<f")


def scan(shard: Path) -> Iterator[Member]:
    """The images of a file, one in each record."""
    with shard.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        place = number = 0
        while place < size:
            begin = place
            kind, length = _part(stream, place, size, number)
            if kind not in (_WHOLE, _FIRST):
                raise ShardError(f"record {number:,}, at byte {place:,}, begins in its middle")
            if length < _IMAGE.size:
                raise ShardError(f"record {number:,}, at byte {place:,}, is too short for an image's header")
            divided = kind == _FIRST
            labels, label, identity, _ = _IMAGE.unpack(stream.read(_IMAGE.size))
            offset = begin + _PART.size + _IMAGE.size + labels * _FLOAT.size
            if labels:
                label = _FLOAT.unpack(stream.read(_FLOAT.size))[0]
            end = place + _PART.size + length
            place = _padded(end)
            while kind in (_FIRST, _MIDDLE):
                kind, length = _part(stream, place, size, number)
                end = place + _PART.size + length
                place = _padded(end)
            if offset > end:
                raise ShardError(f"record {number:,}, at byte {begin:,}, is too short for its {labels:,} labels")
            whole = int(label) if label >= 0 and label == int(label) else NO_LABEL
            yield Member(f"{identity}", whole, offset, end - offset, divided)
            number += 1


def _part(stream: BinaryIO, place: int, size: int, number: int) -> tuple[int, int]:
    """The kind and the length of the part at a place; the stream is then at its content."""
    stream.seek(place)
    head = stream.read(_PART.size)
    if len(head) < _PART.size or not head.startswith(MAGIC):
        raise ShardError(f"record {number:,}, at byte {place:,}, doesn't begin with RecordIO's number")
    word = _PART.unpack(head)[1]
    kind, length = word >> _LENGTH_BITS, word & (1 << _LENGTH_BITS) - 1
    if place + _PART.size + length > size:
        raise ShardError(f"record {number:,}, at byte {place:,}, goes on beyond the end")
    return kind, length


def _padded(size: int) -> int:
    return -(-size // _WORD) * _WORD


def _places_of_magic(record: bytes) -> Iterator[int]:
    """The places of words in a record that are the magic number."""
    place = record.find(MAGIC)
    while place >= 0:
        if place % _WORD == 0:
            yield place
        place = record.find(MAGIC, place + 1)


class Writer:
    """Writes a record for each image, with its label and its number from 0."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._place = 0

    def add(self, name: str, label: int, content: bytes) -> None:  # noqa: ARG002
        """Write an image; the format has no place for its name."""
        record = _IMAGE.pack(0, label, len(self._lines), 0) + content
        self._lines.append(f"{len(self._lines)}\t{self._place}\n")
        cuts = list(_places_of_magic(record))
        bounds = [(0 if begin < 0 else begin + _WORD, end) for begin, end in pairwise([-1, *cuts, len(record)])]
        for number, (begin, end) in enumerate(bounds):
            first, last = number == 0, number == len(bounds) - 1
            kind = _WHOLE if first and last else _FIRST if first else _LAST if last else _MIDDLE
            part = record[begin:end]
            self._stream.write(_PART.pack(MAGIC, kind << _LENGTH_BITS | len(part)))
            self._stream.write(part + bytes(_padded(len(part)) - len(part)))
            self._place += _PART.size + _padded(len(part))

    def finish(self) -> str:
        """Returns the index that MXNet's rec2idx would write."""
        return "".join(self._lines)


RECORDIO = WrittenFormat("recordio", (".rec",), scan, Writer)
