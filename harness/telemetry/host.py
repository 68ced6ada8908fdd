"""What the host is and does: its processor, how busy it is, the memory in use, the cores this run may use."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

# From psutil's documentation of cpu_percent: calls closer than this see few clock ticks or none, which reads 0.0.
_MIN_SPAN_SECONDS = 0.1

# More than any memory, less than the largest multiple of any page size below 2^63.
_UNLIMITED_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class HostSample:
    """What the host was doing at one moment; None is unknown.

    All of it is the whole host's, other processes and cores that this one may not use included. cpu_util_percent is the
    mean of all cores since the reading before; memory_used_bytes is what could not be given to a program.
    """

    cpu_util_percent: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None


class HostProbe:
    """Reads the host through psutil.

    psutil counts per thread, so the first reading of each thread only starts the count and has no utilisation. Readings
    closer than 0.1 s repeat the last utilisation.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thread: int | None = None
        self._read_at_seconds = 0.0
        self._util_percent: float | None = None

    def sample(self) -> HostSample:
        """What the host is doing at this moment."""
        thread, at_seconds = threading.get_ident(), self._clock()
        if thread != self._thread:
            psutil.cpu_percent(interval=None)
            self._thread, self._read_at_seconds, self._util_percent = thread, at_seconds, None
        elif at_seconds - self._read_at_seconds >= _MIN_SPAN_SECONDS:
            self._util_percent = psutil.cpu_percent(interval=None)
            self._read_at_seconds = at_seconds
        memory = psutil.virtual_memory()
        return HostSample(self._util_percent, float(memory.used), float(memory.total))


def cpu_name() -> str:
    """The processor's name, such as "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz"; "CPU" when nothing says it."""
    return _model_name(Path("/proc/cpuinfo")) or platform.processor() or "CPU"


def available_cores() -> int:
    """How many cores this process can keep busy: those it may run on, limited by its control groups' quota; at least 1.

    A quota of a part of a core is rounded down, so that as many threads never wait for the quota.
    """
    cores = len(_allowed_cores()) or os.cpu_count() or 1
    quota = quota_cores(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(1, cores if quota is None else min(cores, int(quota)))


def _allowed_cores() -> frozenset[int]:
    """The cores the calling thread may run on; empty where the system does not say (macOS)."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _model_name(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (" ".join(line.partition(":")[2].split()) for line in lines if line.startswith("model name"))
    return next(filter(None, names), "")


def quota_cores(membership: Path, root: Path) -> float | None:
    """The tightest CPU quota, in cores, of the groups a process is in; None without one.

    membership is its /proc/<pid>/cgroup, root where the groups are mounted. A quota on a group holds for all groups
    below it. Source: the kernel's admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc (cpu.cfs_quota_us).
    """
    quotas = [quota for group in _groups(membership, root, "cpu") if (quota := _group_quota(group)) is not None]
    return min(quotas, default=None)


def memory_limit_bytes(membership: Path, root: Path) -> int | None:
    """The lowest memory limit of the groups a process is in, found as quota_cores finds them; None without one.

    Source: the kernel's admin-guide/cgroup-v2 (memory.max) and cgroup-v1/memory (memory.limit_in_bytes).
    """
    limits = [limit for group in _groups(membership, root, "memory") if (limit := _group_limit(group)) is not None]
    return min(limits, default=None)


def _groups(membership: Path, root: Path, controller: str) -> Iterator[Path]:
    """The controller's groups the process is in, from its own up to the mounted root.

    In a container the path may be the host's while its last group is mounted as the root: the root always counts.
    """
    try:
        lines = membership.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (root / controllers, root / controller) if controllers else (root,):
            group = mount / path.lstrip("/")
            yield group
            yield from (parent for parent in group.parents if parent == mount or mount in parent.parents)


def _group_quota(group: Path) -> float | None:
    """One group's quota in cores: cpu.max in version 2, cpu.cfs_quota_us over cpu.cfs_period_us in version 1."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _group_limit(group: Path) -> int | None:
    """One group's limit in bytes: memory.max in version 2, memory.limit_in_bytes in version 1."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((group / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # "max" is no number
            continue
        # Version 1 writes "no limit" as the largest multiple of the page size below 2^63.
        return limit if limit < _UNLIMITED_BYTES else None
    return None
