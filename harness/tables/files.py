"""CSV files on disk: whole rows whatever happens to the writer, safe cells whatever is in a name."""

from __future__ import annotations

import csv
import fcntl
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InvariantError, MachineError
from harness.tables.schema import Column, Table

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

# A cell that begins with one of these is a formula to a spreadsheet; a quote in front makes it text again.
FORMULA_STARTS = ("=", "+", "-", "@")


class TableWriter:
    """Appends rows to a table's file, each in one write, so that a killed run leaves whole rows.

    Writes the header when the file is new or empty. Raises MachineError when the file can't be written, InvariantError
    for a row that doesn't fit the table.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self.path = path
        self._table = table
        with _readable_disk_errors(path):
            self._stream = path.open("ab", buffering=0)
            if self._stream.tell() == 0:
                self._write(_line(table.header))

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; a column that row lacks stays empty."""
        unknown = set(row) - set(self._table.header)
        if unknown:
            raise InvariantError(f"table {self._table.name} has no column {', '.join(sorted(unknown))}")
        line = _line([format_cell(row.get(column.name), column) for column in self._table.columns])
        with _readable_disk_errors(self.path):
            self._write(line)

    def _write(self, line: bytes) -> None:
        """Write a line or nothing: what a full disk takes of it is taken back."""
        end = self._stream.tell()
        try:
            while line:
                line = line[self._stream.write(line) :]
        except OSError:
            self._stream.truncate(end)
            raise

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


def read_table(path: Path, table: Table) -> pd.DataFrame:
    """The whole rows of a file, typed; numbers are NaN where a cell is empty.

    A last line without its newline (a write that the kernel cut short) is left out. Raises InvariantError when the
    header isn't the table's.
    """
    import pandas as pd  # takes half a second, which a command line with a typing error should not wait for

    whole = _whole_rows(path)
    header = next(csv.reader([whole.partition(b"\n")[0].decode()]), [])
    if header != table.header:
        raise InvariantError(f"{path.name} has the header {header}, not that of table {table.name}")
    numbers = [column.name for column in table.columns if column.kind is not str]
    frame = pd.read_csv(
        io.BytesIO(whole),
        dtype={column.name: (str if column.kind is str else "float64") for column in table.columns},
        keep_default_na=False,
        na_values={name: [""] for name in numbers},
    )
    for column in table.columns:
        if column.kind in (int, bool) and frame[column.name].notna().all():
            frame[column.name] = frame[column.name].astype("int64")
    return frame


def fill_columns(path: Path, table: Table, values: Mapping[str, Sequence[Any]]) -> None:
    """Replace columns of a table's file in one step; the others stay as they are, to the byte.

    values holds one value per whole row, by column. Raises InvariantError for another number of values.
    """
    whole = _whole_rows(path)
    rows = whole.count(b"\n") - 1  # no cell has a line's end in it
    for name, column_values in values.items():
        if len(column_values) != rows:
            raise InvariantError(f"{path.name} has {rows} rows, not {len(column_values)} for column {name}")
    places = [(table.header.index(name), column_values) for name, column_values in values.items()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(whole), encoding="utf-8", newline=""))
    writer.writerow(next(reader))
    for number, row in enumerate(reader):
        for position, column_values in places:
            row[position] = format_cell(column_values[number], table.columns[position])
        writer.writerow(row)
    write_whole(path, text.getvalue())


def _whole_rows(path: Path) -> bytes:
    """The file without a last line that lacks its end: a write that the kernel cut short."""
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1]


def append_row(path: Path, table: Table, row: Mapping[str, Any]) -> None:
    """Append to a table that several runs share, one at a time.

    A file with another header, from another version, is moved aside under the next free number, never mixed or lost.
    """
    with _readable_disk_errors(path), _locked(path.parent):
        content = path.read_bytes() if path.exists() else b""
        if content and content.partition(b"\n")[0].rstrip(b"\r") != _line(table.header).rstrip():
            path.rename(_free_name(path))
        elif content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
        with TableWriter(path, table) as writer:
            writer.write(row)


def check_writable(folder: Path) -> None:
    """Make the folder, and raise MachineError unless a file can be written in it."""
    probe = folder / f".writable-{os.getpid()}"
    with _readable_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: readers see the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _readable_disk_errors(path):
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _free_name(path: Path) -> Path:
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free


def _line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _readable_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"can't write {error.filename or path}: {error.strerror}", "Name another folder with --results."
        ) from error
