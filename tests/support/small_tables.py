"""Two small tables, and the cells of a file."""

from __future__ import annotations

import csv
from pathlib import Path

from harness.artifacts.schema import Column, Table

TABLE = Table(
    "test",
    "one row",
    (
        Column("name", str, "", "run", ""),
        Column("count", int, "", "run", ""),
        Column("share", float, "", "run", "", 3),
        Column("flag", bool, "", "run", ""),
    ),
)
OTHER = Table("other", "one row", (Column("name", str, "", "run", ""), Column("speed", float, "", "run", "", 1)))


def cells(path: Path) -> list[list[str]]:
    """Every line of a CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))
