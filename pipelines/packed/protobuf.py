"""Protocol buffers' messages in a file, walked through without reading the bytes that nobody asks for.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipelines.packed.members import ShardError

# The types of fields: numbers of variable length, of 64 bits, bytes, and numbers of 32 bits.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Message:
    """A place in a file between the fields of a message of some kind, from where the stream is up to an end."""

    def __init__(self, stream: BinaryIO, end: int, kind: str) -> None:
        self._stream, self._end, self._kind = stream, end, kind
        self.place = stream.tell()

    def fields(self, end: int) -> Iterator[tuple[int, int, int]]:
        """Each field from here up to an end: its number, its bytes' size (0 for other types) and its value.

        Bytes that aren't read or walked through are passed over.
        """
        while self.place < end:
            tag = self.varint()
            kind = tag & 7
            if kind == VARINT:
                yield tag >> 3, 0, self.varint()
                continue
            size = self.varint() if kind == BYTES else {FIXED64: 8, FIXED32: 4}.get(kind, -1)
            after = self.place + size
            if size < 0 or after > end:
                raise self._error()
            yield tag >> 3, size if kind == BYTES else 0, 0
            self.skip_to(after)

    def varint(self) -> int:
        """The next number of variable length."""
        value = shift = 0
        while True:
            byte = self._stream.read(1)
            self.place += 1
            if not byte or self.place > self._end or shift > 63:
                raise self._error()
            value |= (byte[0] & 127) << shift
            if byte[0] < 128:
                return value
            shift += 7

    def read(self, size: int) -> bytes:
        """The next bytes."""
        self.place += size
        return self._stream.read(size)

    def skip_to(self, place: int) -> None:
        """Continue at a place."""
        if place != self.place:
            self._stream.seek(place)
            self.place = place

    def _error(self) -> ShardError:
        return ShardError(f"its bytes before {self.place:,} are no {self._kind}")
