"""Measures the host: its processor, how busy it is, the memory in use, and the cores that this run may use."""

from __future__ import annotations

import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from harness.machine.processes import ProcessUsage, RunProcesses

# The host's label among the devices of a table.
HOST_LABEL = "cpu"

# From psutil's documentation of cpu_percent: readings closer than this see few clock ticks or none, and return 0.0.
_MIN_SPAN_SECONDS = 0.1

# More than any memory, less than the largest multiple of any page size below 2^63.
_UNLIMITED_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class HostSample:
    """The state of the host at one moment; None is unknown.

    memory_used_bytes is the memory that is not available to programs. Everything else covers the time since the
    previous reading, and percentages are shares of all cores of the host, including those that this process may not
    use. cpu_util_percent covers every process, foreign_util_percent those outside this run; steal_percent is what a
    hypervisor gave to other guests while this one had work. swap_bytes is the sum of bytes swapped in and out by all
    processes; storage_read_bytes counts those of the run (see ProcessUsage). quota_throttled_seconds is how long the
    CPU quota kept the run's control group from running, summed over cores.
    """

    cpu_util_percent: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    foreign_util_percent: float | None = None
    steal_percent: float | None = None
    swap_bytes: float | None = None
    storage_read_bytes: float | None = None
    quota_throttled_seconds: float | None = None


class HostProbe:
    """Reads the host through psutil, /proc and the control groups.

    processes are those of the run; without them foreign_util_percent and storage_read_bytes are unknown. The first
    reading only starts the counters. A reading within 0.1 s of the previous one repeats its percentages and leaves
    bytes and seconds to the next one, so that their sums stay correct.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        processes: RunProcesses | None = None,
        *,
        proc: Path = Path("/proc"),
        cgroups: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self._clock = clock
        self._processes = processes
        self._vmstat = proc / "vmstat"
        quota = _tightest_quota(proc / "self" / "cgroup", cgroups)
        self._quota_group = None if quota is None else quota[1]
        self._read_at_seconds = -math.inf
        self._last = HostSample()
        self._cpu: Any = None
        self._own_seconds: float | None = None
        self._swap, self._storage_reads, self._throttled = _Growth(), _Growth(), _Growth()

    def sample(self) -> HostSample:
        """Returns the state of the host at this moment."""
        at_seconds = self._clock()
        if at_seconds - self._read_at_seconds >= _MIN_SPAN_SECONDS:
            self._read_at_seconds = at_seconds
            self._last = sample = self._read()
        else:
            sample = replace(self._last, swap_bytes=None, storage_read_bytes=None, quota_throttled_seconds=None)
        memory = psutil.virtual_memory()
        return replace(sample, memory_used_bytes=float(memory.used), memory_total_bytes=float(memory.total))

    def _read(self) -> HostSample:
        cpu = psutil.cpu_times()
        usage = ProcessUsage() if self._processes is None else self._processes.usage()
        shares = _cpu_shares(self._cpu, cpu, self._own_seconds, usage.cpu_seconds)
        self._cpu, self._own_seconds = cpu, usage.cpu_seconds
        return replace(
            shares,
            swap_bytes=self._swap.since_last(_swapped_bytes(self._vmstat)),
            storage_read_bytes=self._storage_reads.since_last(usage.read_bytes),
            quota_throttled_seconds=self._throttled.since_last(_throttled_seconds(self._quota_group)),
        )


class _Growth:
    """The growth of a counter since it was last known."""

    def __init__(self) -> None:
        self._last: float | None = None

    def since_last(self, count: float | None) -> float | None:
        """Returns the growth; None at first, and if the count is unknown. The next known count covers that time."""
        if count is None:
            return None
        last, self._last = self._last, count
        return None if last is None else max(0.0, count - last)


def _cpu_shares(before: Any, now: Any, own_before: float | None, own_now: float | None) -> HostSample:
    """Returns the use of the cores between two readings of psutil.cpu_times and of the run's CPU seconds.

    All time except idle and waiting for storage is busy, as in psutil's cpu_percent; stolen time counts as busy, but
    not for foreign processes.
    """
    if before is None:
        return HostSample()
    # user and nice already include the guests' time. A counter may decrease slightly (psutil issue 1210).
    fields = [name for name in now._fields if name not in ("guest", "guest_nice")]
    spent = {name: max(0.0, getattr(now, name) - getattr(before, name)) for name in fields}
    total = sum(spent.values())
    if total <= 0.0:
        return HostSample()
    busy = total - spent["idle"] - spent.get("iowait", 0.0)
    steal = spent.get("steal")
    foreign = None
    if own_before is not None and own_now is not None:
        foreign = max(0.0, busy - (steal or 0.0) - (own_now - own_before))
    return HostSample(
        cpu_util_percent=100.0 * busy / total,
        foreign_util_percent=None if foreign is None else 100.0 * foreign / total,
        steal_percent=None if steal is None else 100.0 * steal / total,
    )


def _swapped_bytes(vmstat: Path) -> float | None:
    """Returns the bytes swapped in and out since the host started; None if they aren't counted.

    Not through psutil, which returns 0 for a missing counter, and assumes pages of 4 KiB.
    """
    try:
        pages = re.findall(rb"^pswp(?:in|out) (\d+)$", vmstat.read_bytes(), re.MULTILINE)
    except OSError:
        return None
    return float(sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")) if len(pages) == 2 else None


def _throttled_seconds(group: Path | None) -> float | None:
    """Returns how long its quota kept a control group from running, summed over cores; None without group or counter.

    Source: the kernel's admin-guide/cgroup-v2 (throttled_usec) and scheduler/sched-bwc (throttled_time, in ns).
    """
    if group is None:
        return None
    try:
        counts = dict(line.split() for line in (group / "cpu.stat").read_text(encoding="ascii").splitlines())
        if "throttled_usec" in counts:
            return int(counts["throttled_usec"]) / 1e6
        return int(counts["throttled_time"]) / 1e9
    except (OSError, ValueError, KeyError):
        return None


def cpu_name() -> str:
    """Returns the processor's name, such as "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz"; "CPU" if it is unknown."""
    return _model_name(Path("/proc/cpuinfo")) or platform.processor() or "CPU"


def available_cores() -> int:
    """Returns how many cores this process can keep busy: its allowed cores, limited by its CPU quota; at least 1.

    A fractional quota is rounded down, so that this number of threads never waits for the quota.
    """
    cores = len(allowed_cores()) or os.cpu_count() or 1
    quota = quota_cores(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(1, cores if quota is None else min(cores, int(quota)))


def allowed_cores() -> frozenset[int]:
    """Returns the cores that the calling thread may run on; empty if the system does not report them (macOS)."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _model_name(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (" ".join(line.partition(":")[2].split()) for line in lines if line.startswith("model name"))
    return next(filter(None, names), "")


def quota_cores(membership: Path, root: Path) -> float | None:
    """Returns the lowest CPU quota, in cores, of the groups that a process is in; None if there is no quota."""
    tightest = _tightest_quota(membership, root)
    return None if tightest is None else tightest[0]


def _tightest_quota(membership: Path, root: Path) -> tuple[float, Path] | None:
    """Returns the lowest CPU quota, in cores, of the groups that a process is in, with its group; None without a quota.

    membership is the process's /proc/<pid>/cgroup, root where the groups are mounted. A quota on a group applies to all
    groups below it. Source: the kernel's admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc (cpu.cfs_quota_us).
    """
    quotas = [
        (quota, group) for group in _groups(membership, root, "cpu") if (quota := _group_quota(group)) is not None
    ]
    return min(quotas, key=lambda pair: pair[0], default=None)


def memory_limit_bytes(membership: Path, root: Path) -> int | None:
    """Returns the lowest memory limit of the groups that a process is in, as in quota_cores; None if there is none.

    Source: the kernel's admin-guide/cgroup-v2 (memory.max) and cgroup-v1/memory (memory.limit_in_bytes).
    """
    limits = [limit for group in _groups(membership, root, "memory") if (limit := _group_limit(group)) is not None]
    return min(limits, default=None)


def _groups(membership: Path, root: Path, controller: str) -> Iterator[Path]:
    """Yields the controller's groups that the process is in, from its own up to the mounted root.

    In a container the path may be that of the host while its last group is mounted as the root: the root always counts.
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
    """Returns a group's quota in cores: cpu.max in version 2, cpu.cfs_quota_us / cpu.cfs_period_us in version 1."""
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
    """Returns a group's limit in bytes: memory.max in version 2, memory.limit_in_bytes in version 1."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((group / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # "max" is not a number
            continue
        # Version 1 writes "no limit" as the largest multiple of the page size below 2^63.
        return limit if limit < _UNLIMITED_BYTES else None
    return None
