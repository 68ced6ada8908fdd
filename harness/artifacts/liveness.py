"""Which process a record was written by, and whether that process still exists.

A record says "running" until its process has written otherwise, which a process that was killed never does. Only what
proves that it is gone counts: on another machine it may be alive.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from harness.artifacts.lock import is_locked

RUNNING, INTERRUPTED = "running", "interrupted"
# Names that many machines have.
_COMMON_NAMES = ("", "localhost", "localhost.localdomain")


def own_process() -> dict[str, Any]:
    """Returns what identifies this process. A text is empty where the system doesn't tell it.

    host and machine (a digest of /etc/machine-id) name the machine, boot its last start, and namespace the container;
    pid is the process's number there, started when it started, in clock ticks since the machine did. seen_unix_seconds
    is the time of day now.
    """
    machine = _read("/etc/machine-id")
    return {
        "host": socket.gethostname(),
        "machine": hashlib.sha256(f"pplcnet-bench {machine}".encode()).hexdigest()[:16] if machine else "",
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "namespace": _namespace(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "seen_unix_seconds": time.time(),
    }


def is_gone(process: Mapping[str, Any], lock: Path | None = None) -> bool:
    """Returns whether a process that `own_process` described certainly doesn't exist any more.

    lock is a file whose lock (flock(2)) it holds while it exists. False also means that it can't be known: for a
    process on another machine, for one in another container without a lock, and where the system tells too little.
    """
    here = own_process()
    boot = process.get("boot")
    if not boot or not here["boot"]:
        return False
    if boot != here["boot"]:
        # This machine has been started since, if it is the same one.
        same = all(process.get(name) == here[name] for name in ("host", "machine"))
        named = here["host"] not in _COMMON_NAMES and bool(here["machine"])
        seen = process.get("seen_unix_seconds")
        return same and named and isinstance(seen, float) and seen < psutil.boot_time()
    number, started = process.get("pid"), process.get("started")
    if process.get("namespace") == here["namespace"] and isinstance(number, int) and started:
        return not psutil.pid_exists(number) or _start_of(number) not in (started, "")
    # In another container of this machine: the kernel that it shares knows of its locks.
    return lock is not None and is_locked(lock) is False


def shown_status(values: Mapping[str, Any], lock: Path | None = None) -> str:
    """Returns the status to show for the record of a run or series, given as JSON has it.

    That is "interrupted" if it says "running" and the process that wrote it is certainly gone; lock is its lock.
    """
    status = str(values.get("status"))
    attempts = values.get("attempts") or [values]
    last = attempts[-1]
    process = last.get("process") if isinstance(last, Mapping) else None
    if status != RUNNING or not isinstance(process, Mapping):
        return status
    return INTERRUPTED if is_gone(process, lock) else status


def started_unix_seconds() -> float:
    """Returns the time of day at which this process was started, to a clock tick; now where the system doesn't tell.

    psutil's `create_time` counts from the machine's start in whole seconds.
    """
    started = _start_of(os.getpid())
    if not started:
        return time.time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
