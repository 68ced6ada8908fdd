"""Plain lists, a line `path label` for each image, read as arrays: millions of lines in seconds."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pipelines.columns import Bytes, Numbers, Places, Texts

# Bytes that are read at once: large enough for NumPy, small enough for a processor's cache.
_BLOCK = 1 << 22
# All labels below MAX_CLASSES, without leading zeros.
_MAX_DIGITS = 6
# As much as is looked at to tell an encoding.
_SAMPLE_BYTES = 4096
_NEWLINE, _RETURN, _BLANK, _TAB, _ZERO = b"\n\r \t0"
_MAX_DIGIT = 9
_FIRST_NOT_ASCII = 0x80
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a list as it is written; lines are the numbers of the lines that have them, from 1."""

    paths: Texts
    labels: Numbers
    lines: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Lines:
    """The images of some lines: all paths' bytes, each path's size [images], labels [images]; and the empty lines.

    empty are the places of the lines without an image among the count lines.
    """

    characters: Bytes
    sizes: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    empty: Places
    count: int


def read_plain(file: Path) -> Columns | None:
    """The list in a file; None if it isn't plain.

    A plain list's lines are empty, or end in one blank or tab and the label's digits. All other lists, and those with a
    fault, are for `pipelines.list_files.read_rows`, which reads a plain list in the same way, line by line; None also
    stands for a file that can't be read.
    """
    try:
        # A pipe could be read only once.
        if not stat.S_ISREG(file.stat().st_mode):
            return None
        with file.open("rb", buffering=0) as stream:
            return _read(stream)
    except (OSError, ValueError):  # ValueError for a NUL in the name
        return None


def _read(stream: BinaryIO) -> Columns | None:
    # What isn't filled takes no memory.
    characters = np.empty(os.fstat(stream.fileno()).st_size, np.uint8)
    filled = lines = 0
    sizes, labels, empty = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for block in _blocks(stream):
        part = None if block is None or (not lines and not _is_plain_text(block)) else _parsed(block)
        if part is None or filled + len(part.characters) > len(characters):
            return None
        if not filled and _is_decorated(part):
            return None
        characters[filled : filled + len(part.characters)] = part.characters
        sizes.append(part.sizes)
        labels.append(part.labels)
        empty.append(part.empty + lines)
        filled, lines = filled + len(part.characters), lines + part.count
    if not filled:
        return None
    numbers: Sequence[int] = range(1, lines + 1)
    if without := np.concatenate(empty).tolist():
        numbers = Numbers(np.delete(np.arange(1, lines + 1), without))
    ends = np.cumsum(np.concatenate(sizes), dtype=np.int64)
    return Columns(Texts(characters[:filled], ends), Numbers(np.concatenate(labels)), numbers)


def _blocks(stream: BinaryIO) -> Iterator[bytes | None]:
    """The file in blocks of whole, ended lines; None where lines end in another way."""
    rest, cut = b"", False
    while block := stream.read(_BLOCK):
        rest += block
        if end := rest.rfind(b"\n") + 1:
            yield rest[:end]
            rest, cut = rest[end:], True
        elif len(rest) > _BLOCK:
            yield None
    if rest:
        # Without any line feed lines end as on the first Macs.
        yield None if not cut and b"\r" in rest else rest + b"\n"


def _is_plain_text(block: bytes) -> bool:
    """Whether a list that begins with this block is in an encoding in which a digit is one byte."""
    return not block.startswith(_MARKS) and b"\0" not in block[:_SAMPLE_BYTES]


def _is_decorated(part: _Lines) -> bool:
    """Whether the first path may have what has to be taken off if all paths have it: a comma, or quotes."""
    first = part.characters[: int(part.sizes[0])].tobytes() if len(part.sizes) else b""
    return first.startswith(b'"') or first.endswith((b",", b";"))


def _parsed(block: bytes) -> _Lines | None:
    """The images of a block of whole lines; None if one isn't plain."""
    text = np.frombuffer(block, np.uint8)
    newlines = np.flatnonzero(text == _NEWLINE)
    begins = np.concatenate(([0], newlines[:-1] + 1))
    ends = newlines - (text[newlines - 1] == _RETURN)
    has_image = ends > begins
    empty = np.flatnonzero(~has_image)
    if len(empty):
        begins, ends = begins[has_image], ends[has_image]
    labels, separators = _labels(text, ends)
    # A path's last character: a blank would belong to the separator, and other characters may be blanks, too.
    last = text[separators - 1]
    if not (
        np.isin(text[separators], (_BLANK, _TAB))
        & (separators > begins)
        & (separators < ends - 1)
        & (last > _BLANK)
        & (last < _FIRST_NOT_ASCII)
    ).all():
        return None
    # 1 for the bytes of paths, 0 for the others: it changes where paths begin and end.
    changes = np.zeros(len(text), np.int8)
    changes[begins] = 1
    changes[separators] = -1
    characters = text[np.cumsum(changes, dtype=np.int8).view(np.bool_)]
    return _Lines(characters, (separators - begins).astype(np.int32), labels, empty, len(newlines))


def _labels(text: Bytes, ends: Places) -> tuple[npt.NDArray[np.int32], Places]:
    """The numbers that lines end with, and the places in front of their digits."""
    labels = np.zeros(len(ends), np.int32)
    places = ends - 1
    running = np.ones(len(ends), np.bool_)
    for digit in range(_MAX_DIGITS):
        values = text[places] - _ZERO  # those of other characters are above 9, or wrap around to it
        running &= values <= _MAX_DIGIT
        labels += np.where(running, values, 0).astype(np.int32) * 10**digit
        places = places - running
    return labels, places
