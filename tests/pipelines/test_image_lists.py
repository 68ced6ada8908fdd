from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList

HOSTILE_NAMES = [
    "a b.jpg",
    "it's.jpg",
    'say "x".jpg',
    "two\nlines.jpg",
    "=1+1.jpg",
    "é中.jpg",
]


def test_paths_and_labels_of_a_list_match_in_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 paths, but 1 labels"):
        ImageList(tmp_path, ("a", "b"), (0,))


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")


@pytest.mark.parametrize("threads", [1, 16])
def test_sizes_come_in_the_lists_order(tmp_path: Path, threads: int) -> None:
    for size in range(1, 8):
        (tmp_path / f"{size}.jpg").write_bytes(bytes(size))
    sizes = tuple(1 + index % 7 for index in range(2000))  # more than one chunk
    images = ImageList(tmp_path, tuple(f"{size}.jpg" for size in sizes), (0,) * 2000)
    check = check_files(images, threads)
    assert (tuple(check.sizes), check.faults) == (sizes, {})
    assert check.files.tolist() == [
        [status.st_dev, status.st_ino] for status in ((tmp_path / path).stat() for path in images.paths)
    ]


def test_faults_are_told_by_index_beside_the_sizes_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "3.jpg").write_bytes(b"123")
    (tmp_path / "0.jpg").touch()
    names = [("3.jpg", "0.jpg", "missing.jpg")[index % 3] for index in range(1200)]  # more than one chunk
    check = check_files(ImageList(tmp_path, tuple(names), (0,) * 1200))
    assert check.sizes == (3, 0, 0) * 400
    assert [not any(row) for row in check.files.tolist()] == [False, True, True] * 400
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
