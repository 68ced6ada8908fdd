"""Locks by file: one process at a time holds a lock, and it is free as soon as that process ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.artifacts.atomic import disk_errors
from harness.errors import UsageError

# The errors of file systems without locks, or with an unreachable lock server.
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
_POLL_SECONDS = 0.01


@contextmanager
def exclusive_lock(path: Path, *, wait: bool, held: str = "") -> Iterator[None]:
    """Hold the lock of the file at path while the block runs.

    The file is created if it is missing, and never replaced or removed. The kernel frees the lock when this process
    ends, however it ends; a child that this process forks never holds it. A second lock on the same file in the same
    process conflicts with the first.

    wait: wait until the lock is free, instead of raising. held: the message if another process holds it.
    Raises UsageError if another process holds the lock and wait is False, MachineError if the file can't be written or
    the file system has no locks.
    """
    # Importing it takes 85 ms; a mistyped option should be reported before that.
    from filelock import FileLock, Timeout

    # Never by the mere existence of the file, which would outlive a process that is killed.
    lock = FileLock(path, blocking=wait, poll_interval=_POLL_SECONDS, fallback_to_soft=False)
    try:
        # Some versions of filelock would recreate the folder, even if somebody has removed it.
        path.parent.stat()
        lock.acquire()
    except Timeout:
        raise UsageError(held or f"another process holds {path}", "Wait for its end.") from None
    except OSError as error:
        with disk_errors(path, "lock" if error.errno in _CANNOT_LOCK else "write"):
            raise
    try:
        yield
    finally:
        lock.release()
