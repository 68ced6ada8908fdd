"""Tables as CSV files, with complete rows whatever happens to the writer, and safe cells whatever is in a name."""

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
from harness.artifacts.schema import Column, Table
from harness.errors import InvariantError, MachineError
from models.words import count_of

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Buffer, Self

# A spreadsheet takes a cell that begins with one of these for a formula; a quote before it makes it text.
FORMULA_STARTS = ("=", "+", "-", "@")
# Tables of long runs have hundreds of megabytes, and are read in pieces.
PIECE_BYTES = 1 << 20


class TableWriter:
    """Appends rows to a table's file, each in one write, so that a killed run leaves complete rows.

    Writes the header if the file is new or empty, and otherwise continues after the last complete row. rows is the
    number of rows in the file. Raises MachineError if the file can't be written, InvariantError for a row that doesn't
    fit the table.
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
                    self._write(csv_line(table.header))
            except BaseException:
                self._stream.close()
                raise
        self.rows = max(0, lines - 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; columns that row lacks stay empty."""
        unknown = set(row) - set(self._table.header)
        if unknown:
            raise InvariantError(f"table {self._table.name} has no column {', '.join(sorted(unknown))}")
        line = csv_line([format_cell(row.get(column.name), column) for column in self._table.columns])
        with disk_errors(self.path):
            self._write(line)
        self.rows += 1

    def sync(self) -> None:
        """Flush the rows to the disk, so that not even a power failure loses them.

        Raises MachineError if that fails, or if the file was removed or replaced.
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
                f"{self.path} was removed or replaced while the run wrote to it; {count_of(self.rows, 'row')} lost",
                "Start the run again, and leave its files in place until it has ended.",
            )

    def _write(self, line: bytes) -> None:
        """Write a whole line or nothing: a part that a full disk took is removed."""
        end = self._stream.tell()
        try:
            while line:
                line = line[self._stream.write(line) :]
        except OSError:
            # The position is reset as well; otherwise the next failed row would extend the file.
            with suppress(OSError):
                self._stream.truncate(end)
                self._stream.seek(end)
            raise

    @property
    def name(self) -> str:
        """The table's name."""
        return self._table.name

    def cut(self, rows: int) -> None:
        """Keep the given number of first rows, and remove the others."""
        cut_rows(self.path, self._table, rows)
        self._stream.seek(0, os.SEEK_END)
        self.rows = rows

    def close(self) -> None:
        """Close the file; rows that were written stay in any case."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def format_cell(value: Any, column: Column) -> str:
    """Returns a value in the column's format: empty for None and NaN, 0/1 for bool, the column's digits for a float."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if column.kind is bool:
        return str(int(value))
    if column.kind is int:
        return str(int(value))
    if column.kind is float:
        return f"{value:.{column.digits}f}"
    # Control characters are escaped, so that a row is one line whatever a folder is called.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def read_table(path: Path, table: Table, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Returns the complete rows of a file, typed; numbers are NaN where a cell is empty.

    columns are those to read, None for all; the others cost no memory. A last line without its newline (a write that
    the kernel cut short) is left out. Raises MachineError if the file can't be read, InvariantError if the header isn't
    the table's.
    """
    import pandas as pd  # takes half a second; a mistyped option should be reported before that

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
    """Replace columns of a table's file in one step; the other columns stay the same, to the byte.

    values holds one value per complete row, by column. Raises InvariantError for another number of values.
    """
    with _whole_rows(path, table) as whole:
        rows = _whole_lines(whole)[0] - 1  # cells contain no line ends
        for name, column_values in values.items():
            if len(column_values) != rows:
                raise InvariantError(
                    f"{path.name} has {count_of(rows, 'row')}, not {len(column_values)} for column {name}"
                )
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
            text.detach()  # also flushes it


def cut_rows(path: Path, table: Table, rows: int) -> None:
    """Keep the header and the given number of first rows of a table's file, and remove the rest.

    A last line without its newline doesn't count. Raises InvariantError if the file has fewer rows, or another header.
    """
    with _whole_rows(path, table) as whole:
        there, end = _whole_lines(whole, 1 + rows)
    if there != 1 + rows:
        raise InvariantError(
            f"{path.name} has {count_of(there - 1, 'row')}, but {rows} had been written when the checkpoint was saved",
            "Rows were removed from it since then. Restore the file, or start the run again.",
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
    """Yields the file without a last line that lacks its newline: a write that the kernel cut short.

    Raises MachineError if it can't be read, InvariantError if its header isn't the table's.
    """
    with disk_errors(path, "read"):
        stream = path.open("rb")
    with stream:
        with disk_errors(path, "read"):
            first = stream.readline()
            end = _last_line_end(stream)
        header = next(csv.reader([first.decode() if end else ""]), [])
        if header != table.header:
            raise InvariantError(f"{path.name} has the header {header}; that is not the header of table {table.name}")
        stream.seek(0)
        yield io.BufferedReader(_Head(stream, end), PIECE_BYTES)


def _last_line_end(stream: BinaryIO) -> int:
    """Returns the position after the last newline; 0 if there is none."""
    begin = stream.seek(0, os.SEEK_END)
    while begin:
        size = min(begin, PIECE_BYTES)
        begin = stream.seek(begin - size)
        newline = stream.read(size).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
    return 0


def _whole_lines(stream: IO[bytes], max_lines: int | None = None) -> tuple[int, int]:
    """Returns the number of lines that end in a newline, max_lines at most, and the position after the last of them."""
    lines, position, end = 0, 0, 0
    while (max_lines is None or lines < max_lines) and (piece := stream.read(PIECE_BYTES)):
        found = piece.count(b"\n")
        if max_lines is not None and lines + found > max_lines:
            newline = -1
            for _ in range(max_lines - lines):
                newline = piece.index(b"\n", newline + 1)
            return max_lines, position + newline + 1
        if found:
            lines, end = lines + found, position + piece.rindex(b"\n") + 1
        position += len(piece)
    return lines, end


def csv_line(cells: list[str]) -> bytes:
    """Returns a line of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
