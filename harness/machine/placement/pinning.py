"""Keeps a process on its cores, and reads back where it may run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

import psutil

from harness.errors import MachineError
from harness.machine.placement.core_lists import format_cores

CURE = "Leave the placement to the operating system: --affinity none."


def can_pin() -> bool:
    """Returns whether this operating system can keep a process on some cores (macOS can't)."""
    return hasattr(os, "sched_setaffinity")


def pin(cores: AbstractSet[int]) -> None:
    """Keep this process on these cores: all threads that it has, and what it will start.

    Raises MachineError where that isn't possible.
    """
    try:
        for thread in _threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cores)
    except OSError as error:
        raise MachineError(f"a rank can't be kept on cores {format_cores(cores)} ({error.strerror})", CURE) from error
    # The kernel leaves out cores that the process's control group has lost.
    if (found := os.sched_getaffinity(0)) != cores:
        raise MachineError(
            f"a rank may only use cores {format_cores(found)} of {format_cores(cores)}, which the run was planned with",
            f"Start the run again. {CURE}",
        )


def cores_in_use() -> frozenset[int]:
    """Returns the cores that this process's threads and the processes that it started may run on.

    Empty if the operating system doesn't report them.
    """
    if not can_pin():
        return frozenset()
    found: set[int] = set()
    for thread in (*_threads(), *(child.pid for child in psutil.Process().children(recursive=True))):
        with suppress(ProcessLookupError):
            found |= os.sched_getaffinity(thread)
    return frozenset(found)


def _threads() -> Iterator[int]:
    """The numbers of this process's threads, the calling one's first."""
    yield 0
    with suppress(OSError):
        yield from sorted(int(path.name) for path in Path("/proc/self/task").iterdir())
