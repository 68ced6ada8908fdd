"""Measures what the processes of one run have used: CPU time and storage reads of a process and its descendants.

/proc is read without psutil, which costs four to seven times as much: for 41 processes of 636, queried twice a second,
2.4 % of a core instead of 0.5 %, because it reads every process of the host in each search for new ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Listing every process of a host may take longer than reading those of the run.
_SCAN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What a run's processes have used since they started; None is unknown.

    cpu_seconds is user and system time, summed over cores. read_bytes is what was read from storage on their behalf:
    without reads from the page cache, but including reads through mapped memory that the page cache couldn't serve.
    """

    cpu_seconds: float | None = None
    read_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class _Process:
    """One process at one reading. started, in clock ticks since boot, and the id identify it uniquely."""

    parent: int
    started: int
    cpu_ticks: int
    read_bytes: int | None


class _Sum:
    """A sum over running processes that includes those that have ended, and so never decreases."""

    def __init__(self) -> None:
        self._ended = 0
        self._last = 0

    def keep(self, value: int) -> None:
        """Keep counting the value of a process that has ended."""
        self._ended += value

    def with_living(self, value: int) -> int:
        """Returns the whole sum; value is the part of the running processes.

        The sum is kept from decreasing: what a child used is lost if its parent ignores SIGCHLD.
        """
        self._ended += max(0, self._last - self._ended - value)
        self._last = self._ended + value
        return self._last


class RunProcesses:
    """The process root_pid and all its descendants, from /proc.

    New processes are searched for every 2 s at most, and then count with everything they have used. The kernel adds
    what a child has used to its parent's figures once the parent has waited for it, so each process counts with its
    waited-for children, and the sum over the running ones is complete. A process that ends without being waited for by
    another process of the run counts with its last reading.

    Source: proc_pid_stat(5) (cutime, cstime); for storage reads the kernel's wait_task_zombie, which proc_pid_io(5)
    doesn't mention.
    """

    def __init__(
        self, root_pid: int, *, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._proc, self._clock = str(proc), clock
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        # Parents before their children, see _read_all.
        self._known: dict[int, _Process | None] = {root_pid: None}
        self._foreign: set[int] = set()
        self._scanned_at_seconds: float | None = None
        self._cpu_ticks, self._read_bytes = _Sum(), _Sum()

    def usage(self) -> ProcessUsage:
        """Returns what they have used so far. Unknown if no process, or not every one's storage reads, can be read."""
        at_seconds = self._clock()
        if self._scanned_at_seconds is None or at_seconds - self._scanned_at_seconds >= _SCAN_SECONDS:
            self._scanned_at_seconds = at_seconds
            self._scan()
        processes = self._read_all()
        if not processes:
            return ProcessUsage()
        cpu_ticks = self._cpu_ticks.with_living(sum(process.cpu_ticks for process in processes))
        reads = [process.read_bytes for process in processes if process.read_bytes is not None]
        return ProcessUsage(
            cpu_ticks / self._ticks_per_second,
            float(self._read_bytes.with_living(sum(reads))) if len(reads) == len(processes) else None,
        )

    def _scan(self) -> None:
        """Find descendants among the processes that weren't there at the previous scan."""
        try:
            there = {int(name) for name in os.listdir(self._proc) if name.isdigit()}  # noqa: PTH208 - twice as fast
        except OSError:
            return
        parents = {}
        for pid in there - self._foreign - self._known.keys():
            if (stat := self._stat(pid)) is not None:
                parents[pid] = int(stat[1])
        while children := [pid for pid, parent in parents.items() if parent in self._known]:
            for pid in children:
                del parents[pid]
                self._known[pid] = None
        self._foreign = there - self._known.keys()

    def _read_all(self) -> list[_Process]:
        """Read every known process, and forget those that have ended.

        Parents are read before their children: a child that still exists isn't included in its parent's figures. If a
        child has ended, its parent may or may not have included it, so all are read again.
        """
        while True:
            read = {pid: self._read(pid, before) for pid, before in self._known.items()}
            gone = {pid: self._known[pid] for pid, process in read.items() if process is None}
            for process in gone.values():
                if process is not None and process.parent not in self._known:
                    self._cpu_ticks.keep(process.cpu_ticks)
                    self._read_bytes.keep(process.read_bytes or 0)
            living = {pid: process for pid, process in read.items() if process is not None}
            self._known = {**living}
            if not gone:
                return list(living.values())

    def _read(self, pid: int, before: _Process | None) -> _Process | None:
        """Returns None if the process has ended, even if another process has its id."""
        stat = self._stat(pid)
        if stat is None or (before is not None and int(stat[19]) != before.started):
            return None
        return _Process(int(stat[1]), int(stat[19]), sum(map(int, stat[11:15])), self._storage_reads(pid))

    def _stat(self, pid: int) -> list[bytes] | None:
        """Returns /proc/<pid>/stat from the third field (state) on, because the second (the name) may hold anything."""
        try:
            with open(f"{self._proc}/{pid}/stat", "rb") as stream:  # noqa: PTH123 - called often
                return stream.read().rpartition(b")")[2].split()
        except OSError:
            return None

    def _storage_reads(self, pid: int) -> int | None:
        try:
            with open(f"{self._proc}/{pid}/io", "rb") as stream:  # noqa: PTH123
                return next((int(line[11:]) for line in stream if line.startswith(b"read_bytes:")), None)
        except (OSError, ValueError):
            return None
