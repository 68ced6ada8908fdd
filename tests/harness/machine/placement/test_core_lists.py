from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.placement.core_lists import format_cores, parse_cores, read_cores


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("0-1,8-9", (0, 1, 8, 9)), ("5,7", (5, 7)), ("0-2,4,127", (0, 1, 2, 4, 127))],
)
def test_lists_are_read_and_written(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores
    assert format_cores(reversed(cores)) == text


@pytest.mark.parametrize("text", ["", "a", "0-", "-1", "0,,1", "0-3\n1", "0 1"])
def test_what_is_no_list(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a list such as 0-3,8"):
        parse_cores(text)
    (tmp_path / "list").write_text(text, encoding="ascii")
    assert read_cores(tmp_path / "list") == ()


def test_no_cores_are_an_empty_list(tmp_path: Path) -> None:
    assert format_cores(()) == ""
    assert read_cores(tmp_path / "missing") == ()
    (tmp_path / "list").write_bytes(b"\xff")
    assert read_cores(tmp_path / "list") == ()
