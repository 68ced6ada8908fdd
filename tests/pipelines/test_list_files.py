from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipelines.errors import DataError
from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList
from pipelines.list_files import read_list


def write(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "train_list.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def refusal(list_file: Path, root: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_list(list_file, root)
    return caught.value


def test_paths_and_labels_come_as_written(tmp_path: Path) -> None:
    images = read_list(write(tmp_path, "train/a.JPEG 0\n\n  \ntrain/b.JPEG 999\r\ntrain/c.JPEG\t007"), tmp_path).images
    assert images == ImageList(tmp_path, ("train/a.JPEG", "train/b.JPEG", "train/c.JPEG"), (0, 999, 7))
    assert len(images) == 3


@pytest.mark.parametrize(
    "path",
    ["a b  c.jpg", "3 4", "it's.jpg", 'say "x".jpg', "=1+1.jpg", "é中.jpg", "a\u2028b.jpg", "a\x85b.jpg", "..a/b..c"],
)
def test_odd_paths_survive(tmp_path: Path, path: str) -> None:
    assert read_list(write(tmp_path, f"{path} 5\n"), tmp_path).images.paths == (path,)


def test_names_that_are_not_utf8_are_read_and_found(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"1234")
    images = read_list(write(tmp_path, b"\xff\xfe.jpg 5\n"), tmp_path).images
    assert os.fsencode(images.paths[0]) == b"\xff\xfe.jpg"
    check = check_files(images)
    assert (list(check.sizes), check.faults) == ([4], {})


def test_a_byte_order_mark_is_no_part_of_the_first_path(tmp_path: Path) -> None:
    assert read_list(write(tmp_path, b"\xef\xbb\xbfa.jpg 5\n"), tmp_path).images.paths == ("a.jpg",)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path / "train_list.txt", tmp_path)
    assert error.message == f"no such list: '{tmp_path}/train_list.txt'"
    assert "`path label`" in error.cure


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str) -> None:
    error = refusal(write(tmp_path, content), tmp_path)
    assert error.message == f"the list '{tmp_path}/train_list.txt' is empty"
    assert "`path label`" in error.cure


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, tmp_path)
    assert error.message == f"the list '{tmp_path}' cannot be read: Is a directory"


@pytest.mark.parametrize(
    "line", ["a.jpg", "3", "a.jpg x", "a.jpg 1_0", "a.jpg +1", "a.jpg 1.0", "a.jpg ٣", "a.jpg -", "a 1" + "0" * 5000]
)
def test_a_line_without_a_label_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    error = refusal(write(tmp_path, f"ok.jpg 1\n\n{line}\n"), tmp_path)
    first, second = error.message.splitlines()
    assert first == f"1 of 2 lines of '{tmp_path}/train_list.txt' do not read `path label`:"
    assert second.startswith(f"  train_list.txt:3: {line[:100]!r}"[:-1])
    assert "whole number" in error.cure


def test_of_many_faults_ten_are_named_and_all_counted(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "ok.jpg 1\n" + "bad.jpg\n" * 1200), tmp_path)
    lines = error.message.splitlines()
    assert lines[0].startswith("1,200 of 1,201 lines")
    assert lines[1] == "  train_list.txt:2: 'bad.jpg'"
    assert lines[10] == "  train_list.txt:11: 'bad.jpg'"
    assert lines[11:] == ["  and 1,190 more"]


def test_ten_faults_leave_nothing_unnamed(tmp_path: Path) -> None:
    lines = refusal(write(tmp_path, "bad.jpg\n" * 10), tmp_path).message.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "  train_list.txt:10: 'bad.jpg'"


def test_a_binary_file_given_as_a_list_makes_a_short_message(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, b"\x1b[2J\x00\xff" * 100_000), tmp_path)
    assert len(error.message) < 3000
    assert "\x1b" not in error.message
    assert error.message.isascii()


def test_labels_that_no_model_has_are_named(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "a.jpg 0\nb b.jpg 1000000\n\nd.jpg -1\n"), tmp_path)
    assert error.message.splitlines() == [
        f"2 of 3 lines of '{tmp_path}/train_list.txt' have a label outside 0..999999:",
        "  train_list.txt:2: label 1000000 of 'b b.jpg'",
        "  train_list.txt:4: label -1 of 'd.jpg'",
    ]
    assert "Labels count from 0." in error.cure


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.jpg", "a/../../x.jpg", "..", "a/b/../../../x.jpg"])
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, path: str) -> None:
    error = refusal(write(tmp_path, f"ok.jpg 0\n{path} 1\n"), tmp_path)
    assert error.message.splitlines() == [
        f"1 of 2 paths in '{tmp_path}/train_list.txt' lead out of '{tmp_path}':",
        f"  train_list.txt:2: '{path}'",
    ]
    assert "--image-root" in error.cure


def test_a_path_that_comes_back_below_the_root_is_kept(tmp_path: Path) -> None:
    assert read_list(write(tmp_path, "a/../b.jpg 1\n"), tmp_path).images.paths == ("a/../b.jpg",)


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg\t0\nb/x y.jpg\t1\n",
        "a/1.jpg,0\nb/x y.jpg,1\n",
        "a/1.jpg;0\r\nb/x y.jpg;1\r\n",
        "a/1.jpg, 0\nb/x y.jpg, 1\n",
        'path,label\n"a/1.jpg","0"\n"b/x y.jpg","1"\n',
        '"a/1.jpg" 0\n"b/x y.jpg" 1\n',
        "\n".join(['"image";"class"', '"a/1.jpg";0', "", '"b/x y.jpg";1']),
        "image label\na/1.jpg 0\nb/x y.jpg 1\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_other_programs_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    """Case C6: separators, quotes, titles, ends of lines and encodings."""
    images = read_list(write(tmp_path, text.encode(encoding)), tmp_path).images
    assert (*images.paths, *images.labels) == ("a/1.jpg", "b/x y.jpg", 0, 1)


@pytest.mark.parametrize("text", ["a/1.jpg 0\rb/x y.jpg 1\r", 'path,label\r"a/1.jpg",0\r"b/x y.jpg",1'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lines_may_end_as_on_the_first_macs(tmp_path: Path, text: str, encoding: str) -> None:
    """Attack 14: where no line ends in another way."""
    images = read_list(write(tmp_path, text.encode(encoding)), tmp_path).images
    assert (*images.paths, *images.labels) == ("a/1.jpg", "b/x y.jpg", 0, 1)
    assert read_list(write(tmp_path, "a\rb.jpg 5\n"), tmp_path).images.paths == ("a\rb.jpg",)


@pytest.mark.parametrize(("encoding", "text"), [("UTF-16LE", "a/1.jpg 0\r\n"), ("UTF-16BE", "caf\xe9/\u4e2d.jpg 1\n")])
def test_utf_16_without_a_mark_is_named_and_the_cure_leads_on(tmp_path: Path, encoding: str, text: str) -> None:
    """Attack 10."""
    error = refusal(write(tmp_path, text.encode(encoding) * 40), tmp_path)
    assert error.message == f"the list '{tmp_path}/train_list.txt' is {encoding} without a byte order mark"
    command = error.cure.removeprefix("Convert it: ").replace("NEW_LIST", f"{tmp_path}/new.txt")
    subprocess.run(command, shell=True, check=True)
    assert len(read_list(tmp_path / "new.txt", tmp_path).images) == 40


@pytest.mark.parametrize("path", ["a,b.jpg", "a;b, c.jpg", 'q"uote.jpg', "tab\there.jpg", "1,2"])
def test_a_separator_in_a_name_is_part_of_it(tmp_path: Path, path: str) -> None:
    """Case C6: the format is that of all lines, so that a name may hold what separates columns elsewhere."""
    images = read_list(write(tmp_path, f"{path} 3\nother.jpg 4\n"), tmp_path).images
    assert (*images.paths, *images.labels) == (path, "other.jpg", 3, 4)


@pytest.mark.parametrize("text", ["0,a.jpg\n1,b.jpg\n", "a.jpg,0,1\nb.jpg,1,1\n", "x,y\na.jpg,zero\n"])
def test_other_columns_are_refused(tmp_path: Path, text: str) -> None:
    """Case C6: a column that could be something else is not taken for the label."""
    assert "do not read `path label`" in refusal(write(tmp_path, text), tmp_path).message


def test_names_in_latin_1_stay_bytes_in_a_table(tmp_path: Path) -> None:
    """Case C6: a list that isn't UTF-8 names the files by their bytes."""
    images = read_list(write(tmp_path, b"caf\xe9.jpg,5\nb.jpg,6\n"), tmp_path).images
    assert [os.fsencode(path) for path in images.paths] == [b"caf\xe9.jpg", b"b.jpg"]


@pytest.mark.parametrize("linked", [False, True])
def test_absolute_paths_below_the_root_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool) -> None:
    """Case C6: whichever way the root, or the path, is written."""
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    named = tmp_path / ("link" if linked else "data")
    for given in (Path("data"), root, tmp_path / "link"):
        images = read_list(write(tmp_path, f"{named}/a/1.jpg 0\n{named}//x/../2.jpg 1\nb.jpg 2\n"), given).images
        assert images.paths == ("a/1.jpg", "2.jpg", "b.jpg")


def test_a_root_that_holds_all_images_cures_paths_that_lead_out(tmp_path: Path) -> None:
    """Case C6: the cure is followed."""
    (tmp_path / "a").mkdir()
    file = write(tmp_path, f"{tmp_path}/b/1.jpg 0\n{tmp_path}/a/2.jpg 1\n")
    assert "--image-root" in refusal(file, tmp_path / "a").cure
    assert read_list(file, tmp_path).images.paths == ("b/1.jpg", "a/2.jpg")
