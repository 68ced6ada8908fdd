"""Writes files atomically: a reader sees the old content or the new, whatever happens to the writer."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from harness.errors import MachineError

RESULTS_CURE = "another folder with --results"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        _give_name(temporary, path, overwrite)
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


def _give_name(temporary: Path, path: Path, overwrite: bool) -> None:
    """Rename the file; without overwrite through a link, which unlike a rename never replaces another file."""
    if not overwrite:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            raise
        except OSError:  # not every file system has links
            pass
        else:
            return
    temporary.replace(path)


def check_writable(folder: Path) -> None:
    """Create the folder. Raises MachineError unless a file can be written in it."""
    probe = folder / f".writable-{os.getpid()}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()


@contextmanager
def disk_errors(path: Path | str, doing: str = "write", elsewhere: str = RESULTS_CURE) -> Iterator[None]:
    """Convert an OSError to a MachineError with the path, the reason and a cure.

    doing is what failed: write, read or lock. elsewhere is what the cure suggests instead, such as "another file".
    """
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"can't {doing} {path}: {error.strerror or error}", _cure(error, doing, elsewhere)
        ) from error


def _cure(error: OSError, doing: str, elsewhere: str) -> str:
    if doing == "read":
        return "Leave a run's files where they are until it has ended."
    room = "Free space on the disk, or name" if error.errno in _NO_ROOM else "Name"
    return f"{room} {elsewhere}."
