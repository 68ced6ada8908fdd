"""Makes ranks end with their launcher, and the launcher with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

import psutil

# The variable in the environment of a launcher and its ranks with the id of the process that started the launcher.
RUN_PID = "PPLCNET_BENCH_RUN_PID"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded here, because nothing may be loaded between fork and exec.
_LIBC = ctypes.CDLL(None)


def launcher_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment for a launcher that this process starts: what makes it and its ranks this process's."""
    return {**environment, RUN_PID: str(os.getpid())}


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends, so that no rank keeps training without its run.

    parent is the parent's id if it is known (in a container it may be 1); it shows whether the parent has ended
    already. Does nothing on systems other than Linux. Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def die_with_run(environment: Mapping[str, str]) -> None:
    """Have the kernel kill this rank when its launcher ends; end it at once if its run has ended already."""
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
    """Returns the id of the run's root process, seen from a rank: the launcher's parent, which called `run_workers`.

    Returns the rank's own id if no launcher started it, or if the launcher has ended.
    """
    if "PADDLE_TRAINER_ID" not in environment:
        return rank_pid
    try:
        launcher_pid = psutil.Process(rank_pid).ppid()
        return psutil.Process(launcher_pid).ppid() or rank_pid
    except psutil.Error:
        return rank_pid
