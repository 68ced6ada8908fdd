"""Columns of millions of texts and numbers that take a few bytes each: a list of 14 million images fits in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
# Entries that are made Python objects at once while a column is walked through.
CHUNK = 8_192
# Entries, or bytes of them, that a column's hash is made of.
_HASHED = 1024
# How file names are kept as bytes, and made texts again, whatever their encoding.
ENCODING, ERRORS = "utf-8", "surrogateescape"


class Numbers(Sequence[int]):
    """Whole numbers in an array [entries]; entries are Python's own."""

    __slots__ = ("array",)

    def __init__(self, values: Iterable[int] | npt.NDArray[Any]) -> None:
        self.array: npt.NDArray[Any] = values if isinstance(values, np.ndarray) else np.fromiter(values, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.array, dtype=dtype, copy=copy)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Numbers: ...
    def __getitem__(self, place: int | slice) -> int | Numbers:
        return Numbers(self.array[place]) if isinstance(place, slice) else int(self.array[place])

    def __iter__(self) -> Iterator[int]:
        for begin in range(0, len(self.array), CHUNK):
            yield from self.array[begin : begin + CHUNK].tolist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Numbers):
            return np.array_equal(self.array, other.array)
        return _equal(self, other)

    def __hash__(self) -> int:
        return hash((len(self), *self.array[:_HASHED].tolist()))

    def __repr__(self) -> str:
        return f"Numbers({list(self)!r})"

    def take(self, places: Sequence[int] | npt.NDArray[Any]) -> Numbers:
        """The entries at these places, in this order."""
        return Numbers(self.array[np.asarray(places, dtype=np.int64)])

    def smallest(self) -> int:
        """The smallest entry. Raises ValueError if there is none."""
        return int(self.array.min())

    def largest(self) -> int:
        """The largest entry. Raises ValueError if there is none."""
        return int(self.array.max())

    def with_separator(self, separator: bytes) -> Iterator[bytes]:
        """The digits of all entries with a separator between them, in parts."""
        between = b""
        for begin in range(0, len(self.array), CHUNK):
            part = map(str, self.array[begin : begin + CHUNK].tolist())
            yield between + separator.decode().join(part).encode()
            between = separator

    def counts(self) -> dict[int, int]:
        """How often each entry is there, the smallest entry first."""
        values, counts = np.unique(self.array, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


class Texts(Sequence[str]):
    """Texts as the bytes of all of them, one after the other, and the place at which each ends.

    characters [bytes] and ends [entries] may be mapped from files. Bytes that are not UTF-8 are surrogate escapes in
    the texts, as os.fsdecode has them.
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
            if len(chunk) == CHUNK:
                parts.append(b"".join(chunk))
                sizes.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
                chunk.clear()
        parts.append(b"".join(chunk))
        sizes.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
        return cls(np.frombuffer(b"".join(parts), np.uint8), np.cumsum(np.concatenate(sizes)))

    @classmethod
    def joined(cls, columns: Sequence[Texts]) -> Texts:
        """The entries of several columns, one column after the other."""
        before = np.cumsum([0, *(len(column.characters) for column in columns)])
        ends = [column.ends + begin for column, begin in zip(columns, before, strict=False)]
        characters = [np.zeros(0, np.uint8), *(column.characters for column in columns)]
        return cls(np.concatenate(characters), np.concatenate([np.zeros(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Texts: ...
    def __getitem__(self, place: int | slice) -> str | Texts:
        if isinstance(place, slice):
            begin, end, step = place.indices(len(self))
            if step != 1:
                return self.take(np.arange(begin, end, step))
            first = self._begin(begin)
            ends = self.ends[begin:end]
            return Texts(self.characters[first : int(ends[-1])] if len(ends) else self.characters[:0], ends - first)
        place = range(len(self))[place]
        return self.characters[self._begin(place) : int(self.ends[place])].tobytes().decode(ENCODING, ERRORS)

    def _begin(self, place: int) -> int:
        return int(self.ends[place - 1]) if place else 0

    def __iter__(self) -> Iterator[str]:
        for text in self.encoded():
            yield text.decode(ENCODING, ERRORS)

    def encoded(self) -> Iterator[bytes]:
        """The bytes of each entry."""
        return chain.from_iterable(self._chunks())

    def may_contain(self, part: bytes) -> bool:
        """Whether a part is in the bytes of an entry; two entries side by side may seem to contain it, too."""
        return any(part in self[begin : begin + CHUNK].characters.tobytes() for begin in range(0, len(self), CHUNK))

    def _chunks(self) -> Iterator[list[bytes]]:
        """The bytes of some entries at a time."""
        for begin in range(0, len(self), CHUNK):
            part = self[begin : begin + CHUNK]
            characters, ends = part.characters.tobytes(), part.ends.tolist()
            yield [characters[first:end] for first, end in zip((0, *ends), ends, strict=False)]

    def with_separator(self, separator: bytes) -> Iterator[bytes]:
        """The bytes of all entries with a separator between them, in parts."""
        between = b""
        for chunk in self._chunks():
            yield between + separator.join(chunk)
            between = separator

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.characters, other.characters)
        return _equal(self, other)

    def __hash__(self) -> int:
        return hash((len(self), self.characters[:_HASHED].tobytes()))

    def __repr__(self) -> str:
        return f"Texts.of({list(self)!r})"

    def take(self, places: Sequence[int] | npt.NDArray[Any]) -> Texts:
        """The entries at these places, in this order. Raises IndexError for a place outside the column."""
        chosen = np.asarray(places, dtype=np.int64)
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        if len(chosen) and chosen.min() < 0:
            raise IndexError(f"place {chosen.min() - len(self)} of {len(self)} entries")
        begins = np.where(chosen > 0, self.ends[chosen - 1], 0) if len(chosen) else chosen
        sizes = self.ends[chosen] - begins
        ends = np.cumsum(sizes)
        characters = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        # In parts, as the place of each byte takes eight bytes itself.
        for first in range(0, len(chosen), CHUNK):
            part = slice(first, first + CHUNK)
            before = int(ends[first - 1]) if first else 0
            here = np.arange(before, int(ends[part][-1]))
            characters[before : before + len(here)] = self.characters[
                here + np.repeat(begins[part] - (ends[part] - sizes[part]), sizes[part])
            ]
        return Texts(characters, ends)


def _equal(column: Sequence[Any], other: object) -> bool:
    """Whether another sequence has the column's entries."""
    return (
        isinstance(other, Sequence)
        and len(column) == len(other)
        and all(one == another for one, another in zip(column, other, strict=True))
    )
