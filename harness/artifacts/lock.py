"""Locks by file: one process at a time holds a lock, and it is free as soon as that process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.artifacts.atomic import disk_errors
from harness.errors import UsageError
from models.notes import Note

# The errors of file systems without locks, or with an unreachable lock server.
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
_POLL_SECONDS = 0.01
# What a person should know where there are no locks.


def no_locks(what: str, folder: str) -> Note:
    """The note that two commands on a folder can't keep each other out; what names them."""
    return Note(
        f"the file system of {folder!r} has no locks: don't start {what} at the same time",
        "--results on a local disk has locks.",
    )


@contextmanager
def exclusive_lock(path: Path, *, wait: bool, held: str = "") -> Iterator[bool]:
    """Hold the lock of the file at path while the block runs. Yields whether there is one.

    On a file system without locks, see `has_locks`, the block runs without: nothing keeps another process out.

    The file is created if it is missing, and never replaced or removed. The kernel frees the lock when this process
    ends, however it ends; a child that this process forks never holds it. A second lock on the same file in the same
    process conflicts with the first.

    wait: wait until the lock is free, instead of raising. held: the message if another process holds it.
    Raises UsageError if another process holds the lock and wait is False, MachineError if the file can't be written.
    """
    # Importing it takes 85 ms; a mistyped option should be reported before that.
    from filelock import FileLock, Timeout

    # Never by the mere existence of the file, which would outlive a process that is killed.
    lock = FileLock(path, blocking=wait, poll_interval=_POLL_SECONDS, fallback_to_soft=False)
    locked = True
    with disk_errors(path):
        try:
            # Some versions of filelock would recreate the folder, even if somebody has removed it.
            path.parent.stat()
            lock.acquire()
        except Timeout:
            raise UsageError(held or f"another process holds {path}", "Wait for its end.") from None
        except OSError as error:
            if error.errno not in _CANNOT_LOCK:
                raise
            locked = False
    try:
        yield locked
    finally:
        lock.release()


def is_locked(path: Path) -> bool | None:
    """Returns whether another process holds the lock of the file at path; None where that can't be known.

    Changes nothing, and never raises.
    """
    with suppress(OSError), path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
    return None


def has_locks(folder: Path) -> bool:
    """Returns whether the folder's file system has locks; if there is no such folder, that of the nearest one above it.

    Raises MachineError if no file can be made there.
    """
    place = next(one for one in (folder, *folder.absolute().parents) if os.path.isdir(one))  # noqa: PTH112
    with disk_errors(place), tempfile.TemporaryFile(dir=place, prefix=".lock-") as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _CANNOT_LOCK
    return True
