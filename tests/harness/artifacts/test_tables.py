from __future__ import annotations

import csv
import errno
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import ROOT
from harness.artifacts.schema import Column
from harness.artifacts.tables import (
    TableWriter,
    cut_rows,
    fill_columns,
    format_cell,
    read_table,
)
from harness.errors import InvariantError, MachineError
from tests.support.small_tables import OTHER, TABLE, cells


def column(kind: type, digits: int = 6) -> Column:
    return Column("c", kind, "", "run", "", digits)


@pytest.mark.parametrize("kind", [str, int, float, bool])
@pytest.mark.parametrize("unknown", [None, math.nan, np.float64("nan")])
def test_what_is_unknown_is_an_empty_cell(kind: type, unknown: object) -> None:
    assert format_cell(unknown, column(kind)) == ""


@pytest.mark.parametrize(
    ("value", "written"),
    [(True, "1"), (False, "0"), (1, "1"), (0, "0"), (np.True_, "1")],
)
def test_a_bool_is_written_as_0_or_1(value: object, written: str) -> None:
    assert format_cell(value, column(bool)) == written


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0"), (-7, "-7"), (1_281_167, "1281167"), (2.0, "2"), (np.int64(5), "5"), (True, "1")]
)
def test_an_int_is_written_without_separators(value: object, written: str) -> None:
    assert format_cell(value, column(int)) == written


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        (0.70625, 4, "0.7063"),
        (0.0, 3, "0.000"),
        (2537.0, 1, "2537.0"),
        (2537, 1, "2537.0"),
        (1500.4, 0, "1500"),
        (1e-9, 9, "0.000000001"),
        (1e12, 1, "1000000000000.0"),
        (-0.5, 2, "-0.50"),
        (np.float32(0.25), 6, "0.250000"),
    ],
)
def test_a_float_has_its_column_s_digits(value: float, digits: int, written: str) -> None:
    assert format_cell(value, column(float, digits)) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "plain"),
        ("", ""),
        ("Größe データ", "Größe データ"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("a=1", "a=1"),
        ("a\nb", "a\\nb"),
        ("a\r\nb", "a\\r\\nb"),
        ("\t=1", "\\t=1"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\0b", "a\\x00b"),
        ("a\u2028b", "a\\u2028b"),
        ("caf\udce9", "caf\\udce9"),
        ('say "hi", you', 'say "hi", you'),
    ],
)
def test_text_is_one_line_and_no_formula(text: str, written: str) -> None:
    assert format_cell(text, column(str)) == written


def test_text_that_is_no_str_is_written_as_it_prints() -> None:
    assert format_cell(Path("a/b"), column(str)) == "a/b"


def test_the_writer_writes_the_header_once_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        assert path.read_bytes() == b"name,count,share,flag\n"
        writer.write({"name": "a", "count": 1, "share": 0.5, "flag": True})
        assert path.read_bytes() == b"name,count,share,flag\na,1,0.500,1\n"
    with TableWriter(path, TABLE) as writer:
        writer.write({"flag": False, "name": "b"})
    assert path.read_bytes() == b"name,count,share,flag\na,1,0.500,1\nb,,,0\n"


def test_an_empty_file_gets_its_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.touch()
    TableWriter(path, TABLE).close()
    assert path.read_bytes() == b"name,count,share,flag\n"


def test_a_column_that_the_table_lacks_is_an_error_of_the_harness(tmp_path: Path) -> None:
    with (
        TableWriter(tmp_path / "t.csv", TABLE) as writer,
        pytest.raises(InvariantError, match=r"table test has no column colour, size"),
    ):
        writer.write({"name": "a", "size": 1, "colour": 2})
    assert cells(tmp_path / "t.csv") == [["name", "count", "share", "flag"]]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        TableWriter(tmp_path / "missing" / "t.csv", TABLE)
    assert caught.value.message == f"can't write {tmp_path}/missing/t.csv: No such file or directory"
    assert "--results" in caught.value.cure


@pytest.mark.parametrize("text", ['say "hi", you', "a,b", '"', '""', "'", "a;b", " padded ", "#", "nan", "NA", "None"])
def test_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        writer.write({"name": text, "count": 1})
    assert cells(path)[1] == [text, "1", "", ""]
    assert list(read_table(path, TABLE)["name"]) == [text]


def test_a_table_is_read_with_its_types(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        writer.write({"name": "a", "count": 1, "share": 0.5, "flag": True})
        writer.write({"name": "b", "count": None, "share": math.nan, "flag": False})
        writer.write({"name": None, "count": 3, "share": 0.25})
    frame = read_table(path, TABLE)
    assert list(frame.columns) == ["name", "count", "share", "flag"]
    assert list(frame["name"]) == ["a", "b", ""]
    assert [frame["count"][0], frame["count"][2]] == [1, 3]
    assert [frame["share"][0], frame["share"][2]] == [0.5, 0.25]
    assert list(frame["flag"][:2]) == [1, 0]
    unknown = frame[["count", "share", "flag"]].isna().to_numpy().tolist()
    assert unknown == [[False, False, False], [True, True, False], [False, False, True]]


def test_a_column_in_which_nothing_is_known_is_a_column_of_nan(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        writer.write({"name": "a"})
        writer.write({"name": "b"})
    frame = read_table(path, TABLE)
    for name in ("count", "share", "flag"):
        assert frame[name].dtype.kind == "f", name
        assert frame[name].isna().all(), name


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    TableWriter(tmp_path / "t.csv", TABLE).close()
    frame = read_table(tmp_path / "t.csv", TABLE)
    assert (len(frame), list(frame.columns)) == (0, ["name", "count", "share", "flag"])


@pytest.mark.parametrize("cut", [b"c", b"c,3", b"c,3,0.5", b"c,3,0.500,1", b'"c', b"\xc3"])
def test_a_last_line_that_was_cut_is_left_out(tmp_path: Path, cut: bytes) -> None:
    """The last of them is half a letter."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"name,count,share,flag\na,1,0.500,1\nb,2,0.500,0\n" + cut)
    assert list(read_table(path, TABLE)["name"]) == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    ["", "name,count", "name,count,share\n", "name,share,count,flag\na,1,2,1\n", "name,count,share,flag,more\n"],
)
def test_another_header_is_not_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvariantError, match=r"t\.csv has the header .*not the header of table test"):
        read_table(path, TABLE)


def test_a_table_that_is_written_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    """All of it but the columns that were changed: names, decimals, empty cells."""
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        writer.write({"name": "=1+1", "count": 3, "share": 1764000000.123, "flag": True})
        writer.write({"name": 'a "b", c', "count": None, "share": None, "flag": None})
        writer.write({"name": "nan", "count": 0, "share": -0.1, "flag": False})
        writer.write({"name": "caf\udce9", "count": 2**40, "share": 0.0005})
    before = path.read_bytes()
    frame = read_table(path, TABLE)
    fill_columns(path, TABLE, {"flag": [True] * 4})
    assert list(read_table(path, TABLE)["flag"]) == [1, 1, 1, 1]
    assert [row[:3] for row in cells(path)] == [row[:3] for row in csv.reader(before.decode().splitlines())]
    fill_columns(path, TABLE, {"flag": frame["flag"].tolist()})
    assert path.read_bytes() == before


def test_columns_of_a_table_without_rows_and_of_one_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    TableWriter(path, TABLE).close()
    before = path.read_bytes()
    fill_columns(path, TABLE, {"flag": []})
    assert path.read_bytes() == before
    path.write_bytes(before + b"a,1,0.500,\nb,2,0.")
    fill_columns(path, TABLE, {"flag": [False], "name": ["c"]})
    assert path.read_bytes() == before + b"c,1,0.500,0\n"
    with pytest.raises(InvariantError, match=r"t\.csv has 1 row, not 2"):
        fill_columns(path, TABLE, {"flag": [1, 1]})


FULL_DISK = """
import resource, sys
from pathlib import Path
from harness.errors import MachineError
from harness.artifacts.tables import TableWriter
from harness.artifacts.schema import Column, Table
table = Table("test", "one row", (Column("name", str, "", "run", ""), Column("count", int, "", "run", "")))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
written = 0
try:
    with TableWriter(Path(sys.argv[1]), table) as writer:
        for written in range(1000):
            writer.write({"name": "abcdefgh", "count": written})
except MachineError as error:
    print(written, error.message)
"""


def test_a_row_for_which_the_disk_has_no_room_is_an_error_at_once(tmp_path: Path) -> None:
    """A limit of 100 bytes a file stands in for the full disk: a header of 11 bytes, 8 rows of 11, and 1 byte."""
    path = tmp_path / "t.csv"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written, _, message = done.stdout.strip().partition(" ")
    assert message.startswith(f"can't write {path}")
    assert path.read_bytes().count(b"\n") == 1 + 8
    assert int(written) == 8


@pytest.mark.parametrize("cut", [b"", b"c,3,0.5", b'"c'])
def test_a_writer_knows_how_many_rows_there_are(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        assert writer.rows == 0
        for count in range(3):
            writer.write({"name": "a", "count": count})
            assert writer.rows == count + 1
        with pytest.raises(InvariantError):
            writer.write({"colour": 1})
        assert writer.rows == 3
    whole = path.read_bytes()
    path.write_bytes(whole + cut)
    # A line that was cut short is no row, and the next one begins where it did.
    with TableWriter(path, TABLE) as writer:
        assert writer.rows == 3
        writer.write({"name": "b"})
        assert writer.rows == 4
    assert path.read_bytes() == whole + b"b,,,\n"


def test_rows_are_counted_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        for count in range(100):
            writer.write({"name": "a" * (count % 7), "count": count})
    whole = path.read_bytes()
    for piece in range(1, 40):
        monkeypatch.setattr("harness.artifacts.tables.PIECE_BYTES", piece)
        path.write_bytes(whole + b"cut")
        with TableWriter(path, TABLE) as writer:
            assert writer.rows == 100
        assert path.read_bytes() == whole
        path.write_bytes(whole + b"cut")
        assert len(read_table(path, TABLE, ("count",))) == 100
        for rows in (100, 57, 1, 0):
            cut_rows(path, TABLE, rows)
            assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[: 1 + rows])


def test_a_table_is_cut_back_to_its_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        for count in range(5):
            writer.write({"name": "a", "count": count})
    path.write_bytes(path.read_bytes() + b"a,5,0.")
    with pytest.raises(InvariantError) as caught:
        cut_rows(path, TABLE, 6)
    assert caught.value.message == "t.csv has 5 rows, but 6 had been written when the checkpoint was saved"
    assert caught.value.cure
    cut_rows(path, TABLE, 3)
    assert [row[1] for row in cells(path)] == ["count", "0", "1", "2"]
    with TableWriter(path, TABLE) as writer:
        assert writer.rows == 3
        writer.write({"name": "b", "count": 9})
    assert [row[1] for row in cells(path)] == ["count", "0", "1", "2", "9"]
    cut_rows(path, TABLE, 0)
    assert path.read_bytes() == b"name,count,share,flag\n"
    cut_rows(path, TABLE, 0)
    with pytest.raises(InvariantError, match="has the header"):
        cut_rows(path, OTHER, 0)


def test_a_table_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with TableWriter(path, TABLE) as writer:
        writer.write({"name": "a"})
        writer.sync()
        path.rename(tmp_path / "old.csv")
        path.write_bytes((tmp_path / "old.csv").read_bytes())
        with pytest.raises(MachineError, match="was removed or replaced while the run wrote to it; 1 row lost"):
            writer.sync()


def fail_with(code: int) -> Any:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_disk_that_can_t_keep_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TableWriter(tmp_path / "t.csv", TABLE) as writer:
        monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
        with pytest.raises(MachineError, match=r"can't write .*t\.csv: Input/output error"):
            writer.sync()
