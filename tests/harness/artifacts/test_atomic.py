"""A file is replaced in one step or stays as it was, and nothing is left of what failed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.atomic import check_writable, disk_errors, read_whole, replaced, write_whole
from harness.errors import MachineError
from tests.support.small_disk import SmallDisk


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_whole(path, "old")
    write_whole(path, "new Größe\n")
    assert path.read_bytes() == "new Größe\n".encode()
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_reader_never_sees_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment when everything is written but nothing is in place yet, the old text still stands."""
    path = tmp_path / "run.json"
    write_whole(path, "old")
    seen: list[str] = []
    fsync_really = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(path.read_text(encoding="utf-8"))
        fsync_really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, "new")
    # The content, and the name behind it.
    assert seen == ["old", "new"]
    assert path.read_text(encoding="utf-8") == "new"


def fail_with(code: int) -> Any:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error")]
)
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    path = tmp_path / "run.json"
    write_whole(path, "old")
    monkeypatch.setattr(os, "fsync", fail_with(code))
    with pytest.raises(MachineError) as caught:
        write_whole(path, "new")
    assert caught.value.message == f"can't write {path}: {reason}"
    assert "--results" in caught.value.cure
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "caf\udce9")
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    check_writable(folder)
    assert folder.is_dir()
    check_writable(folder)
    assert list(folder.iterdir()) == []


def test_a_file_in_the_folder_s_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    for folder, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "below", "Not a directory")):
        with pytest.raises(MachineError) as caught:
            check_writable(folder)
        assert caught.value.message == f"can't write {folder}: {reason}"
        assert caught.value.cure == "Name another folder with --results."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MachineError, match="Permission denied"):
            check_writable(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"\xff\x00\r\n")
    assert (tmp_path / "a").read_bytes() == b"\xff\x00\r\n"


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "a", "")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def write_new(path: Path, content: bytes) -> None:
    with replaced(path, overwrite=False) as stream:
        stream.write(content)


def test_without_overwrite_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_new(path, b"first")
    with pytest.raises(FileExistsError):
        write_new(path, b"second")
    assert path.read_bytes() == b"first"
    # A link to nothing is a name that is taken.
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write_new(path, b"second")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_without_overwrite_a_file_that_comes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def write_and_be_overtaken() -> None:
        with replaced(path, overwrite=False) as stream:
            stream.write(b"mine")
            path.write_bytes(b"another's")

    with pytest.raises(FileExistsError):
        write_and_be_overtaken()
    assert path.read_bytes() == b"another's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_file_system_without_links_takes_a_new_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_new(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"second")


def test_what_fails_while_a_file_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old")

    def write_half() -> None:
        with replaced(path) as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_what_can_t_be_read_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        read_whole(tmp_path / "gone.json")
    assert caught.value.message == f"can't read {tmp_path / 'gone.json'}: No such file or directory"
    assert caught.value.cure == "Leave a run's files where they are until it has ended."


@pytest.mark.parametrize(
    ("error", "message", "cure"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "can't write it: No space left on device",
         "Free space on the disk, or name a file in another folder."),
        (OSError(errno.EROFS, "Read-only file system"), "can't write it: Read-only file system",
         "Name a file in another folder."),
        (OSError("image file is truncated"), "can't write it: image file is truncated",
         "Name a file in another folder."),
    ],
)  # fmt: skip
def test_an_error_of_the_disk_has_its_reason_and_a_cure(error: OSError, message: str, cure: str) -> None:
    with pytest.raises(MachineError) as caught, disk_errors("it", elsewhere="a file in another folder"):
        raise error
    assert (caught.value.message, caught.value.cure, caught.value.exit_code) == (message, cure, 3)
    assert caught.value.__cause__ is error


def test_a_disk_without_room_keeps_what_was_there(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    write_whole(disk / "a", "old")
    for overwrite in (True, False):
        name = "a" if overwrite else "b"
        with pytest.raises(OSError, match="No space left on device"), replaced(disk / name, overwrite=overwrite) as s:
            s.write(bytes(128 * 1024))
    assert [(entry.name, entry.read_bytes()) for entry in disk.iterdir()] == [("a", b"old")]
