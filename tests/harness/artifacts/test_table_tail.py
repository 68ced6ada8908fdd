from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts.table_tail import TableTail


def test_the_tail_of_a_table_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    tail = TableTail(path, ["name", "count"])
    assert tail.new() == []
    with path.open("ab", buffering=0) as stream:
        stream.write(b"name,co")
        assert tail.new() == []
        stream.write(b"unt\n")
        assert tail.new() == []
        stream.write(b"a,1\nb,2\nc")
        assert tail.new() == [{"name": "a", "count": "1"}, {"name": "b", "count": "2"}]
        assert tail.new() == []
        stream.write(b",3")
        assert tail.new() == []
        stream.write(b"\nd,")
        assert tail.new() == [{"name": "c", "count": "3"}]
        stream.write(b"\n")
        assert tail.new() == [{"name": "d", "count": ""}]
        assert tail.new() == []


@pytest.mark.parametrize("more", ["", "long row,3\n", "x,4\n", "long row,3\nx,4\n"])
def test_the_tail_of_a_table_whose_rows_are_taken_back(tmp_path: Path, more: str) -> None:
    """An evaluation that is broken off leaves no rows; what then comes may end before or behind where they did."""
    path = tmp_path / "t.csv"
    path.write_text("name,count\na,1\nb,22\n")
    tail = TableTail(path, ["name", "count"])
    assert len(tail.new()) == 2
    path.write_text("name,count\na,1\n" + more)
    assert tail.new() == []
    with path.open("a") as stream:
        stream.write("c,5\n")
    assert tail.new() == [{"name": "c", "count": "5"}]


def test_the_tail_of_a_table_that_passes_by_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    tail = TableTail(path, ["name", "count"])
    tail.skip()
    path.write_text("name,count\na,1\n")
    assert tail.new() == [{"name": "a", "count": "1"}]
    tail = TableTail(path, ["name", "count"])
    tail.skip()
    assert tail.new() == []
    with path.open("a") as stream:
        stream.write("b,2\n")
    assert tail.new() == [{"name": "b", "count": "2"}]


def test_the_tail_of_a_table_reads_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('name,count\n"say ""hi"", you",1\nGröße,2\n', encoding="utf-8")
    assert [row["name"] for row in TableTail(path, ["name", "count"]).new()] == ['say "hi", you', "Größe"]


def test_the_tail_of_a_table_that_is_long_already(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("name,count\n" + "".join(f"row{number},{number}\n" for number in range(100)))
    tail = TableTail(path, ["name", "count"])
    tail.skip_to_last(25)
    assert [row["count"] for row in tail.new()] == ["98", "99"]
    with path.open("a") as stream:
        stream.write("b,2\n")
    assert [row["name"] for row in tail.new()] == ["b"]


@pytest.mark.parametrize("size", [1000, 30])
def test_a_table_that_is_short_is_read_from_its_beginning(tmp_path: Path, size: int) -> None:
    path = tmp_path / "t.csv"
    tail = TableTail(path, ["name", "count"])
    tail.skip_to_last(size)
    path.write_text("name,count\na,1\nb,2\n")
    tail.skip_to_last(size)
    assert [row["name"] for row in tail.new()] == ["a", "b"]
