"""The processes of a run: ranks end with their launcher, and the launcher with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

import psutil

# In a rank's environment, the process that called `run_workers`.
RUN_PID = "PPLCNET_BENCH_RUN_PID"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded here, as nothing may be loaded between fork and exec.
_LIBC = ctypes.CDLL(None)


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the one that started it ends, so that no rank trains for nobody.

    parent is that process's id where it is known (in a container it may be 1), to tell whether it has ended already.
    Source: prctl(2), PR_SET_PDEATHSIG. Nothing happens where the system is not Linux.
    """
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def die_with_run(environment: Mapping[str, str]) -> None:
    """Have this rank end with its launcher, and at once if the run it belongs to has ended already."""
    die_with_parent()
    run = environment.get(RUN_PID)
    if run is not None and sys.platform == "linux":
        try:
            ended = psutil.Process(os.getppid()).ppid() != int(run)
        except psutil.Error:
            ended = True
        if ended:
            os.kill(os.getpid(), signal.SIGKILL)


def run_root(environment: Mapping[str, str], rank_pid: int) -> int:
    """The process that the whole run hangs from, seen from one of its ranks: `run_workers`' own, the launcher's parent.

    It is the rank itself where no launcher started it, or where the launcher has ended.
    """
    if "PADDLE_TRAINER_ID" not in environment:
        return rank_pid
    try:
        launcher_pid = psutil.Process(rank_pid).ppid()
        return psutil.Process(launcher_pid).ppid() or rank_pid
    except psutil.Error:
        return rank_pid
