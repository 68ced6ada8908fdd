"""Columns of millions of texts and numbers that take a few bytes each: a list of 14 million images fits in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
# Entries that are made Python objects at once while a column is walked through.
_CHUNK = 65_536
# How file names are kept as bytes, and made texts again, whatever their encoding.
ENCODING, ERRORS = "utf-8", "surrogateescape"


class Numbers(Sequence[int]):
    """Whole numbers in an array [entries]; entries are Python's own."""

    __slots__ = ("array",)

    def __init__(self, values: Iterable[int] | npt.NDArray[Any]) -> None:
        self.array: npt.NDArray[Any] = (
            values if isinstance(values, np.ndarray) else np.fromiter(values, dtype=np.int64)
        )

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Numbers: ...
    def __getitem__(self, place: int | slice) -> int | Numbers:
        return Numbers(self.array[place]) if isinstance(place, slice) else int(self.array[place])

    def __iter__(self) -> Iterator[int]:
        for begin in range(0, len(self.array), _CHUNK):
            yield from self.array[begin : begin + _CHUNK].tolist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Numbers):
            return np.array_equal(self.array, other.array)
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(int.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(self.array.tobytes())

    def __repr__(self) -> str:
        return f"Numbers({self.array!r})"

    def take(self, places: Sequence[int] | npt.NDArray[Any]) -> Numbers:
        """The entries at these places, in this order."""
        return Numbers(self.array[np.asarray(places, dtype=np.int64)])


class Texts(Sequence[str]):
    """Texts as the bytes of all of them, one after the other, and the place at which each ends.

    characters [bytes] and ends [entries] may be mapped from files. Bytes that are not UTF-8 are surrogate escapes in the
    texts, as os.fsdecode has them.
    """

    __slots__ = ("characters", "ends")

    def __init__(self, characters: Bytes, ends: Places) -> None:
        self.characters, self.ends = characters, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """The column of these texts; a column is returned as it is."""
        if isinstance(texts, Texts):
            return texts
        parts: list[bytes] = []
        sizes: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
        chunk: list[bytes] = []
        for text in texts:
            chunk.append(text.encode(ENCODING, ERRORS))
            if len(chunk) == _CHUNK:
                parts.append(b"".join(chunk))
                sizes.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
                chunk.clear()
        parts.append(b"".join(chunk))
        sizes.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
        return cls(np.frombuffer(b"".join(parts), np.uint8), np.cumsum(np.concatenate(sizes)))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Texts: ...
    def __getitem__(self, place: int | slice) -> str | Texts:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        place = range(len(self))[place]
        begin = int(self.ends[place - 1]) if place else 0
        return self.characters[begin : int(self.ends[place])].tobytes().decode(ENCODING, ERRORS)

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), _CHUNK):
            first = int(self.ends[begin - 1]) if begin else 0
            ends = (self.ends[begin : begin + _CHUNK] - first).tolist()
            characters = self.characters[first : first + ends[-1]].tobytes()
            before = 0
            for end in ends:
                yield characters[before:end].decode(ENCODING, ERRORS)
                before = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.characters, other.characters)
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __hash__(self) -> int:
        return hash((len(self), self.characters[:_CHUNK].tobytes()))

    def __repr__(self) -> str:
        return f"Texts.of({list(self)!r})"

    def take(self, places: Sequence[int] | npt.NDArray[Any]) -> Texts:
        """The entries at these places, in this order."""
        chosen = np.asarray(places, dtype=np.int64)
        begins = np.where(chosen > 0, self.ends[chosen - 1], 0) if len(chosen) else chosen
        sizes = self.ends[chosen] - begins
        ends = np.cumsum(sizes)
        # The place of each byte of the result in this column.
        places_of_bytes = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(begins - (ends - sizes), sizes)
        return Texts(self.characters[places_of_bytes], ends)
