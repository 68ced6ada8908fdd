"""Writes files atomically: a reader sees the old content or the new, whatever happens to the writer."""

from __future__ import annotations

import errno
import os
import pwd
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from harness.errors import MachineError

RESULTS_CURE = "another folder with --results"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)


def read_whole(path: Path) -> str:
    """Returns a file's text. Raises MachineError if it can't be read, UnicodeDecodeError if it is not UTF-8."""
    with disk_errors(path, "read"):
        return path.read_text(encoding="utf-8")


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file atomically. Raises MachineError, and keeps the old file, if the new one can't be written."""
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(path), replaced(path) as stream:
        stream.write(data)


@contextmanager
def replaced(path: Path, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Yields a stream whose content replaces the file when the block ends without an error, and is discarded otherwise.

    The content, and then the name, are flushed to the disk before this returns. Raises OSError; without overwrite
    FileExistsError if there is a file of that name, even one that was created while the block ran.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        # Exclusively, so that a file or link that somebody else created under that name is never written to.
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            new_name(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    # Not every file system can flush a folder.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def new_name(path: Path, name: Path) -> None:
    """Rename a file. Raises FileExistsError if there is a file of that name, even one that was created meanwhile."""
    if os.path.lexists(name):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name))
    try:
        # Unlike a rename, a link never replaces another file.
        name.hardlink_to(path)
    except FileExistsError:
        raise
    except OSError:  # not every file system has links
        path.replace(name)
    else:
        path.unlink(missing_ok=True)


def check_writable(folder: Path, files: Iterable[Path] = ()) -> None:
    """Create the folder. Raises MachineError unless a file can be made in it, and each of the files be written.

    The files' content stays as it is, and those that are missing stay so.
    """
    probe = folder / f".writable-{os.getpid()}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()
    for path in files:
        # As they will be opened: a system may forbid O_CREAT alone, for others' files in folders such as /tmp.
        with disk_errors(path), suppress(FileNotFoundError):
            flags = os.O_CREAT if path.exists() else 0
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | flags))


@contextmanager
def disk_errors(path: Path | str, doing: str = "write", elsewhere: str = RESULTS_CURE) -> Iterator[None]:
    """Convert an OSError to a MachineError with the path, the reason, its owner if that is the reason, and a cure.

    doing is what failed: write or read. elsewhere is what the cure suggests instead, such as "another file".
    """
    try:
        yield
    except OSError as error:
        owner = _other_owner(Path(path)) if error.errno in _NOT_ALLOWED else None
        raise MachineError(
            f"can't {doing} {path}: {error.strerror or error}" + ("" if owner is None else f" (it belongs to {owner})"),
            _cure(error, Path(path), doing, elsewhere, owner),
        ) from error


def _other_owner(path: Path) -> str | None:
    """Returns the user that a file belongs to, or else the nearest folder above it; None for this process's user."""
    for place in (path, *path.absolute().parents):
        with suppress(OSError):
            user = place.lstat().st_uid
            if user == os.geteuid():
                return None
            with suppress(KeyError):
                return pwd.getpwuid(user).pw_name
            return f"user {user}"
    return None


def _cure(error: OSError, path: Path, doing: str, elsewhere: str, owner: str | None) -> str:
    if owner is not None:
        return f"Let {owner} allow you to {doing} it, or name {elsewhere}."
    if doing == "read":
        return "Leave a run's files where they are until it has ended."
    if error.errno == errno.EACCES and path.exists():
        return f"Make it writable (chmod u+w {path}), or name {elsewhere}."
    room = "Free space on the disk, or name" if error.errno in _NO_ROOM else "Name"
    return f"{room} {elsewhere}."
