"""Whose a run's files are: the claim of a new run's name, and the lock of a run that a process carries out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from harness.artifacts.atomic import check_writable, disk_errors
from harness.artifacts.file_names import LOCK, check_run_name
from harness.artifacts.lock import exclusive_lock, is_locked
from harness.artifacts.record import RunFiles
from harness.errors import UsageError


@contextmanager
def claimed(
    folder: Path, given: str | None, usual: str, *, lock: bool = False, option: str = "--run-name"
) -> Iterator[RunFiles]:
    """Yields the files of a run, under a name that no other run has, not even one that starts at this moment.

    given is the name that was asked for, by that option; without it the usual one gets a number where it is taken.
    lock: hold the run's lock while the block runs. The name is free again if the block leaves the record as empty as it
    found it. Raises UsageError when the given name is taken or belongs to something else than a run, MachineError when
    nothing can be written in the folder.
    """
    if given is not None:
        check_run_name(given, option)
    check_writable(folder)
    for number in itertools.count(1):
        files = RunFiles(folder, given or (usual if number == 1 else f"{usual}-{number}"))
        with ExitStack() as stack:
            taken = files.existing() or _take(files, stack, lock=lock)
            if not taken:
                stack.callback(free_name, files)
                yield files
                return
        if given and is_running(files):
            raise UsageError(f"run {given!r} is running in another process", f"Give another {option}.")
        if given:
            raise UsageError(f"{taken[0]} exists already", f"Give another {option}, or remove its files.")


def _take(files: RunFiles, stack: ExitStack, *, lock: bool) -> list[Path]:
    """Take the name, with its lock where that is asked for. Returns the files by which another run has it already."""
    if lock:
        try:
            stack.enter_context(exclusive_run_lock(files))
        except UsageError:
            return [files.checkpoints]
    with disk_errors(files.record):
        try:
            files.record.touch(exist_ok=False)
        except FileExistsError:
            return [files.record]
    return []


def free_name(files: RunFiles) -> None:
    """Remove what a claim has made, if it is all that there is of the run: an empty record and the lock's folder."""
    with suppress(OSError):
        if not is_abandoned(files):
            return
        files.record.unlink()
        (files.lock).unlink(missing_ok=True)
        files.checkpoints.rmdir()


def is_abandoned(files: RunFiles) -> bool:
    """Returns whether a run ended before it had a record: that is empty, and there is no other file with content."""
    if files.record.stat().st_size or set(files.existing()) - {files.record, files.checkpoints}:
        return False
    return not files.checkpoints.exists() or {path.name for path in files.checkpoints.iterdir()} <= {LOCK}


def is_running(files: RunFiles) -> bool:
    """Returns whether another process carries out the run; False where the file system has no locks."""
    return bool(is_locked(files.lock))


@contextmanager
def exclusive_run_lock(files: RunFiles) -> Iterator[None]:
    """Lock the run for this process. Raises UsageError when another one has it, MachineError when locking fails."""
    # The lock is on a file and not on the folder, whose locks network file systems don't share.
    path = files.lock
    with disk_errors(path):
        files.checkpoints.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(path, wait=False, held=f"run {files.run!r} is running in another process"):
        yield
