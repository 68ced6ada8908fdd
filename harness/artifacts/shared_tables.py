"""Adds rows to the tables that several runs share, so that no run harms another's rows."""

from __future__ import annotations

import csv
import errno
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from harness.artifacts.atomic import disk_errors, new_name, replaced
from harness.artifacts.file_names import LOCK
from harness.artifacts.lock import exclusive_lock
from harness.artifacts.schema import Table
from harness.artifacts.tables import TableWriter, csv_line, format_cell

# Without locks: how often, and after which time, a line without its end is looked at before it counts as cut short.
MAX_LOOKS, LOOK_SECONDS = 20, 0.01


def append_row(path: Path, table: Table, row: Mapping[str, Any], unique: tuple[str, ...] = ()) -> bool:
    """Append a row to a table that several runs share, under its lock. Returns whether there was no such row yet.

    An existing row with the same cells in the columns named unique is replaced; without such columns every row is
    appended. A file with another header, from another version, is renamed with the next free number, never mixed or
    lost. On a file system without locks every row is one write at the file's end, wherever that is by then; an existing
    row stays, because replacing it could lose another run's.
    """
    with disk_errors(path), exclusive_lock(path.parent / LOCK, wait=True) as locked:
        while True:
            with suppress(_OvertakenError):
                return _append(path, table, row, unique, locked)


class _OvertakenError(Exception):
    """Another process changed the file after it was read, which only happens on file systems without locks."""


def _append(path: Path, table: Table, row: Mapping[str, Any], unique: tuple[str, ...], locked: bool) -> bool:
    header, content = csv_line(table.header), b""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
    if content and not _has_header(content, header):
        _move_aside(path, header)
        content = b""
    line = csv_line([format_cell(row.get(column.name), column) for column in table.columns])
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    key = _key(line, table, unique)
    same = [place for place in range(1, len(lines)) if key and _key(lines[place], table, unique) == key]
    if same and lines[same[0]] == line:
        return False
    if not locked:
        _append_unlocked(path, header, line)
    elif same:
        lines[same[0]] = line
        with replaced(path) as stream:
            stream.write(b"".join(lines))
    else:
        with TableWriter(path, table) as writer:
            writer.write(row)
    return not same


def _append_unlocked(path: Path, header: bytes, line: bytes) -> None:
    """Append a line to a file to which other processes may append at this moment; nothing of theirs is lost."""
    with suppress(FileExistsError):
        if not path.exists():
            with replaced(path, overwrite=False) as new:
                new.write(header)
    with path.open("a+b", buffering=0) as stream:
        line = _beginning(stream, header) + line
        written = stream.write(line)
        if written < len(line):
            # The disk is full. What it took is removed, unless somebody has written since.
            end = stream.tell()
            if end == os.fstat(stream.fileno()).st_size:
                stream.truncate(end - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _beginning(stream: FileIO, header: bytes) -> bytes:
    """Returns what must come before the next line: nothing, the header, or the end of a line that was cut short."""
    for _ in range(MAX_LOOKS):
        size = stream.seek(0, os.SEEK_END)
        if not size:
            return header
        stream.seek(size - 1)
        if stream.read(1) == b"\n":
            return b""
        # Another process may be writing at this moment.
        time.sleep(LOOK_SECONDS)
    return b"\n"


def _has_header(content: bytes, header: bytes) -> bool:
    return content.partition(b"\n")[0].rstrip(b"\r") == header.rstrip()


def _move_aside(path: Path, header: bytes) -> None:
    """Give a file with another header the next free number. Raises _OvertakenError if it was moved meanwhile."""
    aside = _reserve_number(path)
    try:
        path.replace(aside)
    except FileNotFoundError:
        aside.unlink()
        raise _OvertakenError from None
    if _has_header(aside.read_bytes(), header):
        # Another process had moved the old file, and begun a new one.
        with suppress(FileExistsError):
            new_name(aside, path)
        raise _OvertakenError


def _reserve_number(path: Path) -> Path:
    """Returns an empty file whose name is that of path with the next free number."""
    for number in itertools.count(1):
        with suppress(FileExistsError):
            free = path.with_name(f"{path.stem}.{number}{path.suffix}")
            free.touch(exist_ok=False)
            return free
    raise AssertionError  # not reached: numbers don't end


def _key(line: bytes, table: Table, columns: Sequence[str]) -> list[str]:
    """Returns the cells of a line in the given columns of a table; empty for a line of another length."""
    # A spreadsheet may have saved the file in another encoding.
    cells = next(csv.reader([line.decode(errors="replace").rstrip("\r\n")]), [])
    return [cells[table.header.index(name)] for name in columns] if len(cells) == len(table.columns) else []
