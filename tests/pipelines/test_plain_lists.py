"""Plain lists are read as arrays exactly as they are line by line; whatever isn't plain is left to the other reader."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import pipelines.plain_lists
from pipelines import list_files
from pipelines.errors import DataError
from pipelines.list_files import read_list
from pipelines.plain_lists import read_plain


@pytest.fixture(autouse=True, params=[1 << 22, 7])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of one block, and blocks that end within a line. A line may be as long as a block."""
    monkeypatch.setattr(pipelines.plain_lists, "_BLOCK", request.param)


def answer(file: Path) -> Any:
    """What reading a list comes to: root, paths, labels and lines, or the error's message and cure."""
    try:
        found = read_list(file, file.parent)
    except DataError as error:
        return error.message, error.cure
    return found.images.root, list(found.images.paths), list(found.images.labels), list(found.lines)


def line_by_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The other reader's answer."""
    with monkeypatch.context() as patch:
        patch.setattr(list_files, "read_plain", lambda _: None)
        return answer(file)


def listed(folder: Path, content: bytes) -> Path:
    file = folder / "train_list.txt"
    file.write_bytes(content)
    return file


PLAIN = {
    "one line": b"a/b.jpg 5",
    "an ended line": b"a/b.jpg 5\n",
    "tabs": b"a.jpg\t5\nb.jpg 6\n",
    "line ends of Windows": b"a.jpg 0\r\nb.jpg 999999\r\n",
    "empty lines": b"\n\r\na.jpg 0\n\n\nb c.jpg 1\r\n\n",
    "leading zeros": b"a.jpg 007\nb.jpg 000000\n",
    "names that look like labels": b"3 4 5\n6 6\n",
    "names with delimiters": b'a.jpg 1\nb,c;d.jpg 2\n"e.jpg" 3\n',
    "names with quotes": b'it\'s.jpg 1\nsay "x".jpg 2\n',
    "leading blanks": b" a.jpg 1\n\tb.jpg 2\n",
    "dots": b"./a.jpg 0\n..a/b..c 1\n",
    "other bytes within names": b"caf\xe9/\xff\xfe.jpg 1\n\xe4\xb8\xad.jpg 2\nx\xc2\x85y.jpg 3\n\xe2\x80\xa8z.jpg 4\n",
    "a path upwards": b"a.jpg 0\n../b.jpg 1\n",
    "a detour": b"a/../b.jpg 0\n",
    "upwards alone": b"a/.. 0\nb.jpg 1\n",
    "an absolute path": b"a.jpg 0\n/b.jpg 1\n",
    "control characters within names": b"a\rb.jpg 1\nc\x0bd\x1ce.jpg 2\n",
}
OTHER = {
    "empty": b"",
    "only empty lines": b"\n\n\r\n",
    "a blank line": b"a.jpg 0\n  \nb.jpg 1\n",
    "two blanks": b"a.jpg 0\nb.jpg  1\n",
    "a blank at the end": b"a.jpg 0 \n",
    "a wide blank in front of the label": "a.jpg\u3000 1\nb.jpg\u30001\n".encode(),
    "a blank of another kind": b"a.jpg\x0b1\n",
    "commas": b"a.jpg,0\nb.jpg,1\n",
    "commas and blanks": b"a.jpg, 0\nb.jpg, 1\n",
    "quotes": b'"a.jpg" 0\n"b.jpg" 1\n',
    "titles": b"path label\na.jpg 0\n",
    "titles of a table": b"path,label\na.jpg,0\n",
    "a mark": b"\xef\xbb\xbfa.jpg 5\n",
    "UTF-16": "a.jpg 5\nb.jpg 6\n".encode("utf-16"),
    "UTF-16 without a mark": "a.jpg 5\nb.jpg 6\n".encode("utf-16-be"),
    "line ends of the first Macs": b"a.jpg 0\rb.jpg 1\r",
    "a line without a label": b"a.jpg 0\nb.jpg\n",
    "a label alone": b"a.jpg 0\n 5\n7\n",
    "a negative label": b"a.jpg 0\nb.jpg -1\n",
    "a label that is too large": b"a.jpg 0\nb.jpg 1000000\n",
    "digits of another script": "a.jpg ٣\n".encode(),
    "many digits": b"a.jpg 00000000001\n",
    "an underscore": b"a.jpg 1_0\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_lists_are_read_as_they_are_line_by_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.plain_lists, "_BLOCK", max(pipelines.plain_lists._BLOCK, 40))
    file = listed(tmp_path, PLAIN[kind])
    assert read_plain(file) is not None
    assert answer(file) == line_by_line(file, monkeypatch)


@pytest.mark.parametrize("kind", OTHER)
def test_other_lists_are_left_to_the_other_reader(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.plain_lists, "_BLOCK", max(pipelines.plain_lists._BLOCK, 40))
    file = listed(tmp_path, OTHER[kind])
    assert read_plain(file) is None
    assert answer(file) == line_by_line(file, monkeypatch)


PIECES = [
    b"a.jpg", b"n01440764/n01440764_7.JPEG", b"0", b"5", b"12", b"999999", b"1000000", b"000000000000000000007", b"-3",
    b" ", b" ", b" ", b" ", b"\n", b"\n", b"\n", b"\r\n", b"\t", b",", b";", b'"', b"/", b"..", b".", b"\xff",
    b"\xc2\xa0", "\u3000".encode(), b"\x1c", b"\0", b"label", b"x y.jpg",
]  # fmt: skip


def test_absolute_paths_below_the_root_are_made_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.plain_lists, "_BLOCK", 4096)
    file = listed(tmp_path, f"{tmp_path}/a/b.jpg 1\nc/../d.jpg 2\n{tmp_path}/x/../e.jpg 3\n".encode())
    assert read_plain(file) is not None
    found = line_by_line(file, monkeypatch)
    assert answer(file) == found == (tmp_path, ["a/b.jpg", "c/../d.jpg", "e.jpg"], [1, 2, 3], [1, 2, 3])


def test_any_list_is_read_as_it_is_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of random pieces, and plain ones in which something was replaced."""
    generator = random.Random(5)
    plain = 0
    for number in range(1500):
        if number % 3:
            rows = [
                generator.choice(PIECES[:2])
                + generator.choice((b" ", b" ", b" ", b"\t"))
                + generator.choice(PIECES[2:6])
                for _ in range(generator.randint(1, 6))
            ]
            content = bytearray(b"\n".join(rows) + b"\n" * generator.randint(0, 2))
            for _ in range(generator.choice((0, 0, 1, 2))):
                place = generator.randint(0, len(content))
                content[place : place + generator.randint(0, 1)] = generator.choice(PIECES)
        else:
            content = bytearray(b"".join(generator.choices(PIECES, k=generator.randint(0, 12))))
        file = listed(tmp_path, bytes(content))
        plain += read_plain(file) is not None
        assert answer(file) == line_by_line(file, monkeypatch), bytes(content)
    # With blocks of 7 bytes longer lines aren't plain.
    assert plain > (400 if pipelines.plain_lists._BLOCK > 7 else 5)


def test_columns_take_a_few_bytes_for_each_image(tmp_path: Path) -> None:
    found = read_plain(listed(tmp_path, b"".join(b"%d.jpg %d\n" % (place, place % 7) for place in range(5))))
    assert found is not None
    assert found.lines == range(1, 6)
    assert [found.labels.array.itemsize, found.paths.ends.itemsize] == [4, 8]
    assert found.paths.characters.nbytes == 25


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """A list may come from another program, as in `--train-list <(zcat list.gz)`."""
    os.mkfifo(tmp_path / "pipe")
    assert read_plain(tmp_path / "pipe") is None
    assert read_plain(tmp_path / "missing") is None
    assert read_plain(tmp_path / "a\0b") is None
