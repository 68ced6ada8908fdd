from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.errors import DataError
from pipelines.image_lists import FileCheck, ImageList, check_files, read_list, scan_class_folders

HOSTILE_NAMES = [
    "a b.jpg",
    "it's.jpg",
    'say "x".jpg',
    "two\nlines.jpg",
    "=1+1.jpg",
    "é中.jpg",
]


def write(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "train_list.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def refusal(list_file: Path, root: Path, num_classes: int = 1000) -> DataError:
    with pytest.raises(DataError) as caught:
        read_list(list_file, root, num_classes)
    return caught.value


def test_paths_and_labels_come_as_written(tmp_path: Path) -> None:
    images = read_list(write(tmp_path, "train/a.JPEG 0\n\n  \ntrain/b.JPEG 999\r\ntrain/c.JPEG\t007"), tmp_path, 1000)
    assert images == ImageList(tmp_path, ("train/a.JPEG", "train/b.JPEG", "train/c.JPEG"), (0, 999, 7))
    assert len(images) == 3


@pytest.mark.parametrize(
    "path",
    ["a b  c.jpg", "3 4", "it's.jpg", 'say "x".jpg', "=1+1.jpg", "é中.jpg", "a\u2028b.jpg", "a\x85b.jpg", "..a/b..c"],
)
def test_odd_paths_survive(tmp_path: Path, path: str) -> None:
    assert read_list(write(tmp_path, f"{path} 5\n"), tmp_path, 1000).paths == (path,)


def test_names_that_are_not_utf8_are_read_and_found(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"1234")
    images = read_list(write(tmp_path, b"\xff\xfe.jpg 5\n"), tmp_path, 1000)
    assert os.fsencode(images.paths[0]) == b"\xff\xfe.jpg"
    assert check_files(images) == FileCheck(images, (4,), {})


def test_a_byte_order_mark_is_no_part_of_the_first_path(tmp_path: Path) -> None:
    assert read_list(write(tmp_path, b"\xef\xbb\xbfa.jpg 5\n"), tmp_path, 1000).paths == ("a.jpg",)


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


def test_labels_outside_the_classes_are_named_and_the_option_that_cures_it(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "a.jpg 0\nb b.jpg 10\nc.jpg 12\nd.jpg -1\n"), tmp_path, num_classes=10)
    assert error.message.splitlines() == [
        f"3 of 4 lines of '{tmp_path}/train_list.txt' have a label outside 0..9:",
        "  train_list.txt:2: label 10 of 'b b.jpg'",
        "  train_list.txt:3: label 12 of 'c.jpg'",
        "  train_list.txt:4: label -1 of 'd.jpg'",
    ]
    assert error.cure == "Labels count from 0. If the list is right: --classes 13"


def test_more_classes_are_no_cure_for_a_negative_label(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "d.jpg -1\n"), tmp_path).cure == "Labels count from 0."


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.jpg", "a/../../x.jpg", "..", "a/b/../../../x.jpg"])
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, path: str) -> None:
    error = refusal(write(tmp_path, f"ok.jpg 0\n{path} 1\n"), tmp_path)
    assert error.message.splitlines() == [
        f"1 of 2 paths in '{tmp_path}/train_list.txt' lead out of '{tmp_path}':",
        f"  train_list.txt:2: '{path}'",
    ]
    assert "relative to the data set's folder" in error.cure


def test_a_path_that_comes_back_below_the_root_is_kept(tmp_path: Path) -> None:
    assert read_list(write(tmp_path, "a/../b.jpg 1\n"), tmp_path, 1000).paths == ("a/../b.jpg",)


def test_paths_and_labels_of_a_list_match_in_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 paths, but 1 labels"):
        ImageList(tmp_path, ("a", "b"), (0,))


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")


def test_sub_folders_are_the_classes_in_sorted_order(tmp_path: Path) -> None:
    make_files(tmp_path / "train", "cat/2.jpg", "cat/10.jpg", "ant/1.jpg", "bee hive/1.jpg", "README.txt")
    images, names = scan_class_folders(tmp_path / "train", tmp_path)
    assert names == ("ant", "bee hive", "cat")
    assert images.root == tmp_path
    assert images.paths == ("train/ant/1.jpg", "train/bee hive/1.jpg", "train/cat/10.jpg", "train/cat/2.jpg")
    assert images.labels == (0, 1, 2, 2)


def test_images_are_told_by_their_extension_in_any_case_and_hidden_ones_are_skipped(tmp_path: Path) -> None:
    make_files(tmp_path / "train", *(f"a/{name}" for name in ("1.JPEG", "2.jpg", "3.Png", "4.bmp", "5.webp", "6.jp2")))
    make_files(tmp_path / "train", "a/notes.txt", "a/jpg", "a/._1.jpg", "a/.jpg", "a/x.jpg.part", ".cache/1.jpg")
    images, names = scan_class_folders(tmp_path / "train", tmp_path)
    assert names == ("a",)
    assert images.paths == tuple(f"train/a/{n}" for n in ("1.JPEG", "2.jpg", "3.Png", "4.bmp", "5.webp", "6.jp2"))


def test_hostile_file_names_are_listed_and_found(tmp_path: Path) -> None:
    make_files(tmp_path / "train" / "=a b", *HOSTILE_NAMES)
    images, _ = scan_class_folders(tmp_path / "train", tmp_path)
    assert set(images.paths) == {f"train/=a b/{name}" for name in HOSTILE_NAMES}
    assert check_files(images) == FileCheck(images, (1,) * len(HOSTILE_NAMES), {})


def test_linked_class_folders_count(tmp_path: Path) -> None:
    make_files(tmp_path / "elsewhere", "1.jpg")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "linked").symlink_to(tmp_path / "elsewhere")
    assert scan_class_folders(tmp_path / "train", tmp_path)[0].paths == ("train/linked/1.jpg",)


def test_the_training_classes_give_the_labels_of_val(tmp_path: Path) -> None:
    make_files(tmp_path / "val", "cat/1.jpg", "cat/2.jpg")
    (tmp_path / "val" / "ant").mkdir()
    images, names = scan_class_folders(tmp_path / "val", tmp_path, ("ant", "bee", "cat"))
    assert names == ("ant", "bee", "cat")
    assert images.labels == (2, 2)


def scan_refusal(folder: Path, class_names: tuple[str, ...] | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        scan_class_folders(folder, folder.parent, class_names)
    return caught.value


def test_a_class_that_training_does_not_know_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "val", "cat/1.jpg", "do\ng/1.jpg")
    error = scan_refusal(tmp_path / "val", ("ant", "cat"))
    assert error.message.splitlines() == [
        f"1 of 2 class folders in '{tmp_path}/val' are not classes of the training set:",
        r"  'do\ng'",
    ]
    assert "2 classes" in error.cure


def test_an_empty_training_class_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "train", "cat/1.jpg", "lost+found/notes.txt")
    error = scan_refusal(tmp_path / "train")
    assert error.message.splitlines() == [
        f"1 of 2 class folders in '{tmp_path}/train' hold no image:",
        "  'lost+found'",
    ]
    assert "fill these, or remove them" in error.cure


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "val", "ILSVRC2012_val_00000001.JPEG")
    error = scan_refusal(tmp_path / "val")
    assert error.message == f"the folder '{tmp_path}/val' holds no class folders"
    assert "val_list.txt" in error.cure


def test_class_folders_without_a_single_image_are_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "train", "cat/images/1.jpg", "dog/images/1.jpg")
    error = scan_refusal(tmp_path / "train")
    assert error.message == f"none of the 2 class folders in '{tmp_path}/train' holds an image"
    assert ".jpg, .jpeg, .png, .bmp, .webp, .jp2" in error.cure


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    error = scan_refusal(tmp_path / "train")
    assert error.message == f"the folder '{tmp_path}/train' cannot be read: No such file or directory"


@pytest.mark.parametrize("threads", [1, 16])
def test_sizes_come_in_the_lists_order(tmp_path: Path, threads: int) -> None:
    for size in range(1, 8):
        (tmp_path / f"{size}.jpg").write_bytes(bytes(size))
    sizes = tuple(1 + index % 7 for index in range(2000))  # more than one chunk
    images = ImageList(tmp_path, tuple(f"{size}.jpg" for size in sizes), (0,) * 2000)
    assert check_files(images, threads) == FileCheck(images, sizes, {})


def test_faults_are_told_by_index_beside_the_sizes_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "3.jpg").write_bytes(b"123")
    (tmp_path / "0.jpg").touch()
    names = [("3.jpg", "0.jpg", "missing.jpg")[index % 3] for index in range(1200)]  # more than one chunk
    check = check_files(ImageList(tmp_path, tuple(names), (0,) * 1200))
    assert check.sizes == (3, 0, 0) * 400
    assert check.faults == {
        index: "0 bytes" if index % 3 == 1 else "no such file or directory" for index in range(1200) if index % 3
    }


def test_every_unusable_file_has_its_reason(tmp_path: Path) -> None:
    make_files(tmp_path, "ok.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    names = (
        "ok.jpg", "a b/missing.jpg", "empty.jpg", "folder.jpg", "pipe.jpg", "loop.jpg", "ok.jpg/x.jpg", "nul\0.jpg",
        "l" * 400,
    )  # fmt: skip
    assert check_files(ImageList(tmp_path, names, (0,) * len(names))).faults == dict(
        enumerate(
            (
                "no such file or directory", "0 bytes", "not a regular file", "not a regular file",
                "too many levels of symbolic links", "not a directory", "not a possible file name",
                "file name too long",
            ),
            start=1,
        )
    )  # fmt: skip


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read anything, so where tests run as root they need another user to be refused."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        make_files(root, "open.jpg", "closed.jpg")
        (root / "closed.jpg").chmod(0)
        with as_nobody():
            check = check_files(ImageList(root, ("open.jpg", "closed.jpg"), (0, 0)))
    assert check.faults == {1: "permission denied"}


def test_no_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0; it must be at least 1"):
        check_files(ImageList(tmp_path, (), ()), threads=0)
