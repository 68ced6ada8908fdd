"""Rows of several runs in one table, with and without locks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import ROOT
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.shared_tables import append_row
from harness.artifacts.tables import read_table
from harness.errors import MachineError
from tests.support.small_tables import OTHER, TABLE, cells


def test_rows_behind_a_line_that_was_cut_stay_whole(tmp_path: Path) -> None:
    """What a full disk leaves: the next run must not write its row into the rest of the last one's."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"name,count,share,flag\na,1,0.500,1\nb,2,0.")
    append_row(path, TABLE, {"name": "c", "count": 3, "share": 0.25, "flag": True})
    frame = read_table(path, TABLE)
    assert frame["name"][0] == "a"
    assert frame.iloc[-1].to_list() == ["c", 3, 0.25, 1]


APPENDER = """
import sys, time
from pathlib import Path
from harness.artifacts.shared_tables import append_row
from harness.artifacts.schema import Column, Table
folder, writer = Path(sys.argv[1]), sys.argv[2]
table = Table("test", "one row", (Column("name", str, "", "run", ""), Column("count", int, "", "run", "")))
def together(what):
    (folder / f"{what}.{writer}").touch()
    while not all((folder / f"{what}.{other}").exists() for other in "abcd"):
        time.sleep(0)
together("start")
for count in range(50):
    append_row(folder / "shared.csv", table, {"name": writer * 3000, "count": count})
for number in range(50):
    together(number)
    append_row(folder / f"old-{number}.csv", table, {"name": writer, "count": number})
"""


def append_at_once(folder: Path, environment: Mapping[str, str]) -> None:
    """Four runs add 50 rows of 3 KB each to one table, and then one row each to 50 tables of another version."""
    for number in range(50):
        (folder / f"old-{number}.csv").write_text("speed\n1\n", encoding="utf-8")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, folder, name],
            cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(environment),
        )
        for name in "abcd"
    ]  # fmt: skip
    try:
        # One that fails would leave the others waiting for it.
        while any(writer.poll() is None for writer in writers) and not any(writer.poll() for writer in writers):
            time.sleep(0.01)
    finally:
        for writer in writers:
            writer.kill()
    errors = [writer.communicate()[1] for writer in writers]
    assert errors == [""] * 4
    header, *rows = cells(folder / "shared.csv")
    assert header == ["name", "count"]
    assert len(rows) == 200
    for name in "abcd":
        assert [row[1] for row in rows if row[0] == name * 3000] == [str(count) for count in range(50)]


def test_rows_of_several_runs_at_once_stay_whole_and_alone_under_one_header(tmp_path: Path) -> None:
    append_at_once(tmp_path, os.environ)
    for number in range(50):
        header, *rows = cells(tmp_path / f"old-{number}.csv")
        assert header == ["name", "count"]
        assert sorted(rows) == [[name, str(number)] for name in "abcd"]
        assert (tmp_path / f"old-{number}.1.csv").read_text(encoding="utf-8") == "speed\n1\n"
    assert len(list(tmp_path.glob("*.csv"))) == 1 + 2 * 50


def test_rows_of_several_runs_at_once_without_locks_are_whole_and_none_is_lost(
    tmp_path: Path, no_locks: dict[str, str]
) -> None:
    """Case B2: of the tables of another version, one that is begun at the same moment may be set aside as well."""
    append_at_once(tmp_path, no_locks)
    for number in range(50):
        lines = [line for path in tmp_path.glob(f"old-{number}.*csv") for line in cells(path)]
        assert sorted(line for line in lines if len(line) == 2 and line != ["name", "count"]) == [
            [name, str(number)] for name in "abcd"
        ]
        assert [line for line in lines if len(line) == 1] == [["speed"], ["1"]]


UNLOCKED = """
import sys
from pathlib import Path
from harness.artifacts.shared_tables import append_row
from tests.support.small_tables import TABLE
for name, count in (("a", 1), ("a", 1), ("a", 2)):
    print(append_row(Path(sys.argv[1]), TABLE, {"name": name, "count": count}, unique=("name",)))
"""


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("before", [None, b"", b"name,count,share,flag\nz,1,,\n", b"name,count,share,flag\nz,1"])
def test_without_locks_a_row_is_appended_whatever_was_there(
    tmp_path: Path, no_locks: dict[str, str], code: int, before: bytes | None
) -> None:
    """Case B2: what was cut short stays a line of its own, and a row that is told anew comes after the old one."""
    path = tmp_path / "t.csv"
    if before is not None:
        path.write_bytes(before)
    environment = {**no_locks, "FLOCK_ERRNO": str(code)}
    done = subprocess.run(
        [sys.executable, "-c", UNLOCKED, path], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["True", "False", "False"], "")
    begun = before or b"name,count,share,flag\n"
    assert path.read_bytes() == begun + (b"" if begun.endswith(b"\n") else b"\n") + b"a,1,,\na,2,,\n"


UNLOCKED_FULL = """
import errno, resource, sys
from pathlib import Path
from harness.artifacts.shared_tables import append_row
from harness.errors import MachineError
from tests.support.small_tables import TABLE
resource.setrlimit(resource.RLIMIT_FSIZE, (95, 95))
try:
    for count in range(100):
        append_row(Path(sys.argv[1]), TABLE, {"name": "abcdefgh", "count": count})
except MachineError as error:
    print(error.message)
"""


def test_without_locks_a_full_disk_leaves_whole_rows(tmp_path: Path, no_locks: dict[str, str]) -> None:
    """Case B2: a limit of 95 bytes a file, in the middle of a row, stands in for the full disk."""
    path = tmp_path / "t.csv"
    done = subprocess.run(
        [sys.executable, "-c", UNLOCKED_FULL, path], cwd=ROOT, env=no_locks, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"can't write {path}: "), done.stderr
    assert [len(line) for line in cells(path)] == [4] * 6
    assert path.read_bytes().endswith(b"\n")


PAIR = """
import sys, time
from pathlib import Path
from harness.artifacts.shared_tables import append_row
from harness.artifacts.shared_schema import SUMMARY
folder, writer = Path(sys.argv[1]), sys.argv[2]
(folder / writer).touch()
while len(list(folder.glob("[ab]"))) < 2:
    time.sleep(0)
for count in range(500):
    assert append_row(folder / "summary.csv", SUMMARY, {"run": f"{writer}{count}", "fps": count}, unique=("run",))
"""


def test_two_processes_that_add_500_rows_each_leave_1000_whole_ones_under_one_header(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", PAIR, tmp_path, name], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    try:
        errors = [writer.communicate(timeout=240)[1] for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
    assert errors == ["", ""]
    assert (tmp_path / "summary.csv").read_bytes().count(b"run,") == 1
    rows = read_table(tmp_path / "summary.csv", SUMMARY)
    assert len(rows) == 1000
    for name in "ab":
        assert list(rows["fps"][rows["run"].str.startswith(name)]) == list(range(500))


def test_a_row_stands_once_under_its_unique_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert append_row(path, TABLE, {"name": "=a", "count": 1}, unique=("name",))
    assert append_row(path, TABLE, {"name": 'b, "c"', "count": 1}, unique=("name",))
    once = path.read_bytes()
    assert not append_row(path, TABLE, {"name": "=a", "count": 1}, unique=("name",))
    assert path.read_bytes() == once
    # What is said of it last stands in the place of what was said first.
    assert not append_row(path, TABLE, {"name": "=a", "count": 2, "share": 0.5}, unique=("name",))
    assert cells(path)[1:] == [["'=a", "2", "0.500", ""], ['b, "c"', "1", "", ""]]
    # Without a unique column every row is another.
    assert append_row(path, TABLE, {"name": "=a", "count": 2, "share": 0.5})
    assert len(cells(path)) == 1 + 3
    # A row that is the same in all columns, and one that isn't.
    assert not append_row(path, TABLE, {"name": 'b, "c"', "count": 1}, unique=tuple(TABLE.header))
    assert append_row(path, TABLE, {"name": 'b, "c"', "count": 2}, unique=tuple(TABLE.header))
    assert len(cells(path)) == 1 + 4


def test_a_unique_row_in_a_table_that_a_spreadsheet_saved_in_its_own_encoding(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("name,count,share,flag\r\nGr\xf6\xdfe,1,0.5,1\r\nb,1,0.5,1\r\n".encode("latin-1"))
    assert not append_row(path, TABLE, {"name": "b", "count": 2}, unique=("name",))
    assert path.read_bytes() == b"name,count,share,flag\r\nGr\xf6\xdfe,1,0.5,1\r\nb,2,,\n"


def test_a_file_of_another_version_is_moved_aside_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    append_row(path, OTHER, {"name": "old", "speed": 1})
    before = path.read_bytes()
    append_row(path, TABLE, {"name": "new"})
    append_row(path, TABLE, {"name": "newer"})
    assert (tmp_path / "summary.1.csv").read_bytes() == before == b"name,speed\nold,1.0\n"
    assert path.read_bytes() == b"name,count,share,flag\nnew,,,\nnewer,,,\n"
    newer = path.read_bytes()
    append_row(path, OTHER, {"name": "old again", "speed": 2})
    append_row(path, TABLE, {"name": "newest"})
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.csv")} == {
        "summary.1.csv": before,
        "summary.2.csv": newer,
        "summary.3.csv": b"name,speed\nold again,2.0\n",
        "summary.csv": b"name,count,share,flag\nnewest,,,\n",
    }


@pytest.mark.parametrize("content", [b"name,count,share,flag\r\na,1,0.5,1\r\n", b"\xef\xbb\xbfname,count,share,flag\n"])
def test_what_a_spreadsheet_saved_is_not_lost(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "summary.csv"
    path.write_bytes(content)
    append_row(path, TABLE, {"name": "b"})
    kept = b"".join(file.read_bytes() for file in sorted(tmp_path.glob("summary*.csv")))
    assert content in kept
    assert kept.endswith(b"b,,,\n")


def test_a_file_that_is_not_utf_8_does_not_cost_the_row(tmp_path: Path) -> None:
    """A spreadsheet may save it in the country's own encoding."""
    path = tmp_path / "summary.csv"
    content = "name,count,share,flag\nGröße,1,0.500,1\n".encode("latin-1")
    path.write_bytes(content)
    append_row(path, TABLE, {"name": "b"})
    kept = b"".join(file.read_bytes() for file in sorted(tmp_path.glob("summary*.csv")))
    assert content in kept
    assert kept.endswith(b"b,,,\n")


def test_a_shared_table_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="can't write"):
        append_row(tmp_path / "missing" / "t.csv", TABLE, {"name": "a"})
