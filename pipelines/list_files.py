"""Lists of images in the formats that people have: `path label`, or two columns of another program, in any encoding."""

from __future__ import annotations

import codecs
import csv
import os
import posixpath
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from pipelines.columns import Numbers, Texts
from pipelines.errors import DataError
from pipelines.folder_names import FolderNames
from pipelines.image_lists import MAX_CLASSES, ImageList, first_ten, shown
from pipelines.plain_lists import Columns, read_plain

# What the head of a column of labels is called.
_HEADS = frozenset(("label", "labels", "class", "classes", "class_id", "class_index", "classid", "target", "category"))
_DELIMITERS = (",", ";", "\t")
_MAX_DIGITS = 18
# The first bytes of a list, by which its encoding is known.
_SAMPLE_BYTES = 4096


@dataclass(frozen=True)
class ListFile:
    """A list and the images that it names; lines[i] is the number of the line that names image i, from 1."""

    file: Path
    images: ImageList
    lines: Sequence[int]

    @cached_property
    def folders(self) -> FolderNames:
        """The folders that the images lie in."""
        return FolderNames.of(self.images.paths)

    def where(self, index: int) -> str:
        """Returns the list's name and the line of an image, for a message."""
        return f"{self.file.name}:{self.lines[index]}"


@dataclass(slots=True)
class Rows:
    """Paths and labels, the lines that they are from, and the lines that are neither blank nor a row."""

    paths: list[str]
    labels: list[int]
    lines: list[int]
    faults: list[tuple[int, str]]


def read_list(list_file: Path, root: Path) -> ListFile:
    """Read lines `path label`; the label is the last word, so that paths may hold spaces. Blank lines are skipped.

    Columns may be separated by a comma, a semicolon or a tab, too, with quotes and a line of titles as a CSV file has
    them. The text may be UTF-8 or, with a byte order mark, UTF-16; other bytes stay as they are in file names. Paths
    are relative to root, or absolute and below it. check_files checks whether the files exist, and
    `pipelines.list_labels` what the labels mean. Raises DataError, with the first ten faults by line, for a missing,
    unreadable or empty list, a line without a label, a label that is negative or impossibly large, and a path that
    leaves root.
    """
    rows = read_plain(list_file) or _as_columns(read_rows(list_file))
    total = len(rows.paths)
    outside = np.flatnonzero((rows.labels.array < 0) | (rows.labels.array >= MAX_CLASSES)).tolist()
    if outside:
        raise DataError(
            f"{len(outside):,} of {total:,} lines of {shown(list_file)} have a label outside 0..{MAX_CLASSES - 1}:\n"
            + first_ten(
                [
                    f"{list_file.name}:{rows.lines[index]}: label {rows.labels[index]} of {shown(rows.paths[index])}"
                    for index in outside
                ]
            ),
            "Labels count from 0. Correct these lines, or remove them.",
        )
    paths, leaving = _all_below(rows.paths, root) if _may_leave(rows.paths) else (rows.paths, [])
    if leaving:
        raise DataError(
            f"{len(leaving):,} of {total:,} paths in {shown(list_file)} lead out of {shown(root)}:\n"
            + first_ten([f"{list_file.name}:{rows.lines[index]}: {shown(rows.paths[index])}" for index in leaving]),
            "Name a folder that holds all images with --image-root: paths are relative to it, or absolute and below it."
            " A symbolic link there may point elsewhere.",
        )
    return ListFile(list_file, ImageList(root, paths, rows.labels), rows.lines)


def _as_columns(rows: Rows) -> Columns:
    return Columns(Texts.of(rows.paths), Numbers(rows.labels), rows.lines)


def read_rows(list_file: Path) -> Rows:
    """The paths and labels of a list as they are written, whatever they mean; see `read_list`. Raises DataError."""
    rows = _rows(_read_lines(list_file))
    if rows.faults:
        raise DataError(
            f"{len(rows.faults):,} of {len(rows.paths) + len(rows.faults):,} lines of {shown(list_file)} do not read"
            " `path label`:\n"
            + first_ten([f"{list_file.name}:{number}: {shown(line)}" for number, line in rows.faults]),
            "End each line with a space and the image's class as a whole number, or remove the line.",
        )
    return rows


def _read_lines(list_file: Path) -> list[str]:
    """The list's lines without their line ends. Raises DataError if the file can't be read."""
    cure = "Write it with one line `path label` per image, the path relative to the data set's folder."
    try:
        data = list_file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no such list: {shown(list_file)}", cure) from None
    except (OSError, ValueError) as error:  # ValueError for a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"the list {shown(list_file)} cannot be read: {reason}", cure) from error
    if (encoding := _utf_16(data)) is not None:
        raise DataError(
            f"the list {shown(list_file)} is {encoding} without a byte order mark",
            f"Convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(str(list_file))} > NEW_LIST",
        )
    text = decoded(data)
    if not text.strip():
        raise DataError(f"the list {shown(list_file)} is empty", cure)
    # Nothing else ends a line: str.splitlines would also cut file names at U+2028 and its like.
    if "\n" not in text:  # as on the first Macs
        text = text.replace("\r", "\n")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _utf_16(data: bytes) -> str | None:
    """The encoding of text of which about every second byte is zero; None for other text, and for a mark."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    even, odd = (data[begin:_SAMPLE_BYTES:2] for begin in (0, 1))
    for high, low, encoding in ((odd, even, "UTF-16LE"), (even, odd, "UTF-16BE")):
        if high.count(0) > 0.4 * len(high) and low.count(0) < 0.05 * len(low):
            return encoding
    return None


def decoded(data: bytes) -> str:
    """The text of a file; a byte order mark says that it is UTF-16. Bytes that are not UTF-8 become surrogates."""
    # A name in another encoding may begin with the same bytes, but digits of 16 bits have a zero byte.
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in data:
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="surrogateescape")


def _rows(lines: list[str]) -> Rows:
    """The rows in the format that fits all lines; if none does, in that of `path label`, with its faults."""
    plain = _words(lines)
    if not plain.faults:
        return _unquoted(plain)
    for delimiter in _DELIMITERS:
        found = _columns(lines, delimiter)
        if found.paths and not found.faults:
            return found
    return plain


def _words(lines: list[str]) -> Rows:
    rows = Rows([], [], [], [])
    labels: dict[str, int | None] = {}  # a look-up is several times faster than int()
    for number, line in enumerate(lines, start=1):
        words = line.rsplit(None, 1)
        if not words:
            continue
        word = words[-1]
        if word not in labels:
            labels[word] = _label(word)
        label = labels[word]
        if label is None or len(words) == 1:
            if rows.paths or rows.faults or not _is_head(words):
                rows.faults.append((number, line))
            continue
        rows.paths.append(words[0])
        rows.labels.append(label)
        rows.lines.append(number)
    return rows


def _unquoted(rows: Rows) -> Rows:
    """The rows without what every path has around it: a comma in front of a blank, or quotes."""
    for mark in (",", ";"):
        if rows.paths and all(path.endswith(mark) for path in rows.paths):
            rows.paths = [path[:-1].rstrip() for path in rows.paths]
    if rows.paths and all(len(path) > 2 and path[0] == path[-1] == '"' for path in rows.paths):
        rows.paths = [path[1:-1].replace('""', '"') for path in rows.paths]
    return rows


def _columns(lines: list[str], delimiter: str) -> Rows:
    rows = Rows([], [], [], [])
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            label = _label(cells[-1].strip()) if len(cells) == 2 else None
            if label is None or not cells[0].strip():
                if rows.paths or rows.faults or not _is_head(cells):
                    rows.faults.append((reader.line_num, lines[reader.line_num - 1]))
                continue
            rows.paths.append(cells[0])
            rows.labels.append(label)
            rows.lines.append(reader.line_num)
    except csv.Error:
        rows.faults.append((reader.line_num, ""))
    return rows


def _is_head(cells: Sequence[str]) -> bool:
    """Whether a first line has the titles of two columns."""
    return len(cells) == 2 and cells[-1].strip().strip('"').lower() in _HEADS


def _label(token: str) -> int | None:
    """The label in plain decimal digits, or None. int() alone would accept "1_0" and "٣"."""
    digits = token[1:] if token.startswith("-") else token
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
        return None
    return int(token)


def _may_leave(paths: Texts) -> bool:
    """Whether a path may be absolute or lead upwards."""
    begins = np.concatenate(([0], paths.ends[:-1]))[: len(paths)]
    first = paths.characters[begins[begins < paths.ends]]
    return bool((first == ord("/")).any()) or paths.may_contain(b"..")


def _all_below(paths: Texts, root: Path) -> tuple[Texts, list[int]]:
    """The paths relative to root, and the indices of those that lead out of it, which are empty."""
    leaving: list[int] = []

    def below() -> Iterator[str]:
        for index, path in enumerate(paths):
            inside = _below(path, root)
            if inside is None:
                leaving.append(index)
            yield inside or ""

    return Texts.of(below()), leaving


def _below(path: str, root: Path) -> str | None:
    """The path relative to root, with "/" between folders; None if it leads out of it."""
    if path.startswith("/"):
        folder, _, name = posixpath.normpath(path).rpartition("/")
        below = _folder_below(folder, os.fspath(root))
        return None if below is None else f"{below}{name}"
    if ".." in path and posixpath.normpath(path).split("/", 1)[0] == "..":
        return None
    return path


@cache
def _folder_below(folder: str, root: str) -> str | None:
    """An absolute folder's path relative to root, "" or with a "/" at its end; None if it is not below root."""
    for top in _spellings(root):
        for inner in (folder, os.path.realpath(folder)):
            if inner == top or inner.startswith(top if top == "/" else f"{top}/"):
                below = inner[len(top) :].strip("/")
                return f"{below}/" if below else ""
    return None


def _spellings(root: str) -> Iterator[str]:
    yield os.path.abspath(root)  # noqa: PTH100
    yield os.path.realpath(root)
