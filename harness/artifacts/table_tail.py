"""Follows a table that another process writes."""

from __future__ import annotations

import csv
from pathlib import Path


class TableTail:
    """Reads the rows that a growing CSV file has gained since the last read.

    After the file was truncated, reading continues at its new end.
    """

    def __init__(self, path: Path, header: list[str]) -> None:
        self._path, self._header = path, header
        self._position = 0

    def skip(self) -> None:
        """Skip the rows that are in the file."""
        self._position = self._path.stat().st_size if self._path.exists() else 0

    def skip_to_last(self, most_bytes: int) -> None:
        """Skip all rows but those in the file's last bytes; the first whole row of these is read first."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size > most_bytes:
            with self._path.open("rb") as stream:
                stream.seek(size - most_bytes)
                stream.readline()
                self._position = stream.tell()

    def new(self) -> list[dict[str, str]]:
        """Returns the whole rows that were added since the last read, by column."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(max(0, self._position - 1))
            data = stream.read()
        if self._position:
            if not data.startswith(b"\n"):
                # The file was truncated, and other rows may have been written since.
                self.skip()
                return []
            data = data[1:]
        whole = data[: data.rfind(b"\n") + 1]
        first = self._position == 0
        self._position += len(whole)
        rows = list(csv.reader(whole.decode().splitlines()))
        return [dict(zip(self._header, row, strict=True)) for row in (rows[1:] if first else rows)]
