"""Folders for this process alone, in the folder for temporary files; what dead processes left there is removed.

A folder holds a lock that the kernel frees when the process ends, however it ends: a free lock proves that the folder
is left over. Where the file system has no locks nothing is proven, and nothing removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import MachineError

PREFIX = "pplcnet-bench-"
LOCK = "lock"
_CURE = "Name one that can be written and has room: TMPDIR=/path/to/folder"


@contextmanager
def private_folder(purpose: str) -> Iterator[Path]:
    """Yields an empty folder that only this user can read, and removes it when the block ends.

    purpose is a word for its name. First removes the folders that dead processes of this user left. Raises MachineError
    where no folder can be made.
    """
    folder, lock = _made(purpose)
    sweep(folder.parent)
    try:
        yield folder
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


def sweep(parent: Path) -> None:
    """Remove the private folders in parent that dead processes of this user left."""
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path))


def _made(purpose: str) -> tuple[Path, int | None]:
    """Returns a new folder and the descriptor of its lock; None where the file system has no locks."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
        # Another process must never see the lock before it is held.
        unheld = folder / f".{LOCK}"
        lock = os.open(unheld, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            unheld.unlink()
            return folder, None
        unheld.rename(folder / LOCK)
    except OSError as error:
        # Where none could be chosen, Python's message names all that it tried.
        where = f" in {tempfile.tempdir}" if tempfile.tempdir is not None else ""
        raise MachineError(f"no temporary folder can be made{where}: {error.strerror or error}", _CURE) from error
    return folder, lock


def _remove_if_dead(folder: Path) -> None:
    # A folder of another user, or a link in a folder's place, is never followed.
    descriptor = os.open(folder / LOCK, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or folder.lstat().st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: if that is cut short, it is still known to be left over."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name == LOCK:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108
    shutil.rmtree(folder, ignore_errors=True)
