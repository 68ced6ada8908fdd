"""The one lock: what a file stands for belongs to one process at a time, and is free as soon as that process ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.artifacts.atomic import disk_errors
from harness.errors import UsageError

# What a file system answers that has no locks, or whose lock server can't be reached.
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
_POLL_SECONDS = 0.01


@contextmanager
def exclusive_lock(path: Path, *, wait: bool, held: str = "") -> Iterator[None]:
    """Hold the lock that path stands for while the block runs.

    The file is made where it is missing, never replaced or removed; the kernel frees the lock when this process ends,
    however it ends, and a child that this process forks never has it. A second lock in the same process is another's.

    wait: wait until the lock is free, rather than raising. held: what to say when another process has it.
    Raises UsageError when another process has the lock and wait is false, MachineError when the file can't be written
    or the file system has no locks.
    """
    # It loads for 85 ms, which a command line with a typing error should not wait for.
    from filelock import FileLock, Timeout

    # Never by the mere presence of the file, which would outlive a process that is killed.
    lock = FileLock(path, blocking=wait, poll_interval=_POLL_SECONDS, fallback_to_soft=False)
    try:
        # Some versions of filelock would make the folder: a run's, which somebody has removed.
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
