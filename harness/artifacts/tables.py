"""Tables as CSV files: whole rows whatever happens to the writer, safe cells whatever is in a name."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from harness.artifacts.atomic import disk_errors, replaced
from harness.artifacts.lock import exclusive_lock
from harness.artifacts.schema import Column, Table
from harness.errors import InvariantError, MachineError

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Buffer, Self

# A cell that begins with one of these is a formula to a spreadsheet; a quote in front makes it text again.
FORMULA_STARTS = ("=", "+", "-", "@")
# Tables of long runs have hundreds of megabytes: they are looked through in pieces.
PIECE_BYTES = 1 << 20
LOCK = ".lock"  # of the tables in a folder that several runs share


class TableWriter:
    """Appends rows to a table's file, each in one write, so that a killed run leaves whole rows.

    Writes the header when the file is new or empty, and goes on behind the last whole row otherwise. rows counts what
    the file holds. Raises MachineError when the file can't be written, InvariantError for a row that doesn't fit the
    table.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self.path = path
        self._table = table
        with disk_errors(path):
            self._stream = path.open("ab", buffering=0)
            try:
                with path.open("rb") as stream:
                    lines, end = _whole_lines(stream)
                self._stream.truncate(end)
                self._stream.seek(end)
                if not lines:
                    self._write(_line(table.header))
            except BaseException:
                self._stream.close()
                raise
        self.rows = max(0, lines - 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; a column that row lacks stays empty."""
        unknown = set(row) - set(self._table.header)
        if unknown:
            raise InvariantError(f"table {self._table.name} has no column {', '.join(sorted(unknown))}")
        line = _line([format_cell(row.get(column.name), column) for column in self._table.columns])
        with disk_errors(self.path):
            self._write(line)
        self.rows += 1

    def sync(self) -> None:
        """Have the rows on the disk itself, where not even a power failure takes them.

        Raises MachineError when that fails, and when what is written no longer is the file of that name.
        """
        with disk_errors(self.path):
            os.fsync(self._stream.fileno())
            written = os.fstat(self._stream.fileno())
            try:
                there = self.path.stat()
            except (FileNotFoundError, NotADirectoryError):
                there = None
        if there is None or (there.st_dev, there.st_ino) != (written.st_dev, written.st_ino):
            raise MachineError(
                f"{self.path} was removed or replaced while the run wrote to it; its {self.rows} rows are lost",
                "Leave a run's files where they are until it has ended, and start it again.",
            )

    def _write(self, line: bytes) -> None:
        """Write a line or nothing: what a full disk takes of it is taken back."""
        end = self._stream.tell()
        try:
            while line:
                line = line[self._stream.write(line) :]
        except OSError:
            # The position goes back as well, or the next row to fail would be taken back to a place behind the end.
            with suppress(OSError):
                self._stream.truncate(end)
                self._stream.seek(end)
            raise

    @property
    def name(self) -> str:
        """The table's."""
        return self._table.name

    def cut(self, rows: int) -> None:
        """Take back the rows behind the first ones."""
        cut_rows(self.path, self._table, rows)
        self._stream.seek(0, os.SEEK_END)
        self.rows = rows

    def close(self) -> None:
        """Close the file; rows already written are there in any case."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def format_cell(value: Any, column: Column) -> str:
    """A value as the column writes it: empty for None and NaN, 0/1 for bool, its digits for a float."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if column.kind is bool:
        return str(int(value))
    if column.kind is int:
        return str(int(value))
    if column.kind is float:
        return f"{value:.{column.digits}f}"
    # Control characters are spelled out: one row is one line, whatever a folder is called.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def read_table(path: Path, table: Table, columns: Collection[str] | None = None) -> pd.DataFrame:
    """The whole rows of a file, typed; numbers are NaN where a cell is empty.

    columns names those to read, all without it; others cost no memory. A last line without its newline (a write that
    the kernel cut short) is left out. Raises MachineError when the file can't be read, InvariantError when the header
    isn't the table's.
    """
    import pandas as pd  # takes half a second, which a command line with a typing error should not wait for

    wanted = [column for column in table.columns if columns is None or column.name in columns]
    with _whole_rows(path, table) as stream:
        frame = pd.read_csv(
            stream,
            usecols=[column.name for column in wanted],
            dtype={column.name: (str if column.kind is str else "float64") for column in wanted},
            keep_default_na=False,
            na_values={column.name: [""] for column in wanted if column.kind is not str},
        )
    for column in wanted:
        if column.kind in (int, bool) and frame[column.name].notna().all():
            frame[column.name] = frame[column.name].astype("int64")
    return frame


def fill_columns(path: Path, table: Table, values: Mapping[str, Sequence[Any]]) -> None:
    """Replace columns of a table's file in one step; the others stay as they are, to the byte.

    values holds one value per whole row, by column. Raises InvariantError for another number of values.
    """
    with _whole_rows(path, table) as whole:
        rows = _whole_lines(whole)[0] - 1  # no cell has a line's end in it
        for name, column_values in values.items():
            if len(column_values) != rows:
                raise InvariantError(f"{path.name} has {rows} rows, not {len(column_values)} for column {name}")
        places = [(table.header.index(name), column_values) for name, column_values in values.items()]
        whole.seek(0)
        reader = csv.reader(io.TextIOWrapper(whole, encoding="utf-8", newline=""))
        with disk_errors(path), replaced(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(next(reader))
            for number, row in enumerate(reader):
                for position, column_values in places:
                    row[position] = format_cell(column_values[number], table.columns[position])
                writer.writerow(row)
            text.detach()  # which flushes it


def cut_rows(path: Path, table: Table, rows: int) -> None:
    """Keep the header and the first rows of a table's file, and nothing behind them.

    A last line without its newline is no row. Raises InvariantError when the file has fewer, or another header.
    """
    with _whole_rows(path, table) as whole:
        there, end = _whole_lines(whole, 1 + rows)
    if there != 1 + rows:
        raise InvariantError(
            f"{path.name} has {there - 1} rows, {rows} were written when the run was saved",
            "Rows were taken out of it since then. Start the run again, or put the file back.",
        )
    with disk_errors(path):
        os.truncate(path, end)


class _Head(io.RawIOBase):
    """The first bytes of a file, as a file."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        data = self._stream.read(max(0, min(len(view), self._size - self._stream.tell())))
        view[: len(data)] = data
        return len(data)


@contextmanager
def _whole_rows(path: Path, table: Table) -> Iterator[io.BufferedReader]:
    """The file without a last line that lacks its end: a write that the kernel cut short.

    Raises MachineError when it can't be read, InvariantError when its header isn't the table's.
    """
    with disk_errors(path, "read"):
        stream = path.open("rb")
    with stream:
        with disk_errors(path, "read"):
            first = stream.readline()
            end = _last_line_end(stream)
        header = next(csv.reader([first.decode() if end else ""]), [])
        if header != table.header:
            raise InvariantError(f"{path.name} has the header {header}, not that of table {table.name}")
        stream.seek(0)
        yield io.BufferedReader(_Head(stream, end), PIECE_BYTES)


def _last_line_end(stream: BinaryIO) -> int:
    """The position behind the last newline, 0 without one."""
    begin = stream.seek(0, os.SEEK_END)
    while begin:
        size = min(begin, PIECE_BYTES)
        begin = stream.seek(begin - size)
        newline = stream.read(size).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
    return 0


def _whole_lines(stream: IO[bytes], most: int | None = None) -> tuple[int, int]:
    """How many lines end in a newline, most of them at most, and the position behind the last of them."""
    lines, position, end = 0, 0, 0
    while (most is None or lines < most) and (piece := stream.read(PIECE_BYTES)):
        found = piece.count(b"\n")
        if most is not None and lines + found > most:
            newline = -1
            for _ in range(most - lines):
                newline = piece.index(b"\n", newline + 1)
            return most, position + newline + 1
        if found:
            lines, end = lines + found, position + piece.rindex(b"\n") + 1
        position += len(piece)
    return lines, end


def append_row(path: Path, table: Table, row: Mapping[str, Any], unique: tuple[str, ...] = ()) -> bool:
    """Append to a table that several runs share, one at a time; whether there was no such row yet.

    A row that has the same cells as this one in the columns named unique gives its place to it, so that what is said
    twice stands there once; without them every row is another. A file with another header, from another version, is
    moved aside under the next free number, never mixed or lost.
    """
    with disk_errors(path), exclusive_lock(path.parent / LOCK, wait=True):
        content = path.read_bytes() if path.exists() else b""
        if content and content.partition(b"\n")[0].rstrip(b"\r") != _line(table.header).rstrip():
            path.rename(_free_name(path))
            content = b""
        line = _line([format_cell(row.get(column.name), column) for column in table.columns])
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        same = [place for place in range(1, len(lines)) if _agree(lines[place], line, table, unique)]
        if not same:
            with TableWriter(path, table) as writer:
                writer.write(row)
        elif lines[same[0]] != line:
            lines[same[0]] = line
            with replaced(path) as stream:
                stream.write(b"".join(lines))
        return not same


def _agree(line: bytes, other: bytes, table: Table, columns: tuple[str, ...]) -> bool:
    """Whether two lines have the same cells in some columns of a table; they don't in none."""
    if not columns or (len(columns) == len(table.columns) and line != other):
        return False
    # A spreadsheet may have saved the file in another encoding.
    ours, theirs = (next(csv.reader([one.decode(errors="replace").rstrip("\r\n")]), []) for one in (line, other))
    places = [table.header.index(name) for name in columns]
    return len(ours) == len(theirs) and all(ours[place] == theirs[place] for place in places)


def _free_name(path: Path) -> Path:
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free


def _line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
