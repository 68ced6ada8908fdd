"""What the host is and does: its processor, how busy it is, the memory in use, the cores this run may use."""

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

# From psutil's documentation of cpu_percent: readings closer than this see few clock ticks or none, which reads 0.0.
_MIN_SPAN_SECONDS = 0.1

# More than any memory, less than the largest multiple of any page size below 2^63.
_UNLIMITED_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class HostSample:
    """What the host was doing at one moment; None is unknown.

    memory_used_bytes is what could not be given to a program. Everything else spans from the reading before, and the
    percentages are shares of all the host's cores, those included that this process may not use. cpu_util_percent has
    every process in it, foreign_util_percent those outside this run; steal_percent is what a hypervisor gave to other
    guests while this one had work. swap_bytes went in and out together, by all processes; storage_read_bytes are the
    run's own (see ProcessUsage). quota_throttled_seconds is how long the run's control group was kept from running by
    its CPU quota, added up over cores.
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

    processes are the run's own; without them foreign_util_percent and storage_read_bytes are unknown. The first reading
    only starts the counts. One closer than 0.1 s to the last that was taken repeats its percentages and leaves the
    bytes and seconds to the next, so that these add up to what they count.
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
        """What the host is doing at this moment."""
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
    """What a counter grew by since it was last known."""

    def __init__(self) -> None:
        self._last: float | None = None

    def since_last(self, count: float | None) -> float | None:
        """None at first, and where the count is unknown; the next one that is known then covers the time."""
        if count is None:
            return None
        last, self._last = self._last, count
        return None if last is None else max(0.0, count - last)


def _cpu_shares(before: Any, now: Any, own_before: float | None, own_now: float | None) -> HostSample:
    """What the cores did between two readings of psutil.cpu_times and of our processes' CPU seconds.

    Busy is all but idle and waiting for storage, as in psutil's cpu_percent; stolen time is busy for the host, but not
    with foreign processes.
    """
    if before is None:
        return HostSample()
    # user and nice hold the guests' time already. A count may fall back a little (psutil issue 1210).
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
    """What was swapped in and out since the host started, in bytes; None where it isn't counted.

    Not through psutil, which gives 0 for a count that the system lacks, and takes every page for one of 4 KiB.
    """
    try:
        pages = re.findall(rb"^pswp(?:in|out) (\d+)$", vmstat.read_bytes(), re.MULTILINE)
    except OSError:
        return None
    return float(sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")) if len(pages) == 2 else None


def _throttled_seconds(group: Path | None) -> float | None:
    """How long a control group's quota kept it from running, added up over cores; None without a group or a count.

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
    """The tightest CPU quota, in cores, of the groups a process is in; None without one."""
    tightest = _tightest_quota(membership, root)
    return None if tightest is None else tightest[0]


def _tightest_quota(membership: Path, root: Path) -> tuple[float, Path] | None:
    """The tightest CPU quota, in cores, of the groups a process is in, and the group that has it; None without one.

    membership is its /proc/<pid>/cgroup, root where the groups are mounted. A quota on a group holds for all groups
    below it. Source: the kernel's admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc (cpu.cfs_quota_us).
    """
    quotas = [
        (quota, group) for group in _groups(membership, root, "cpu") if (quota := _group_quota(group)) is not None
    ]
    return min(quotas, key=lambda pair: pair[0], default=None)


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
