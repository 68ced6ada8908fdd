"""Monitors this node's ranks from outside: which of them ended, with which exit code, and which make no progress."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.launch.rank_files import pulse_files

# Signals that end a process from outside or after its own fault; a rank that lost its peer raises or aborts instead.
FIRST_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
ENDED_STATES = (b"Z", b"X")
PULSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RankExit:
    """A rank that ended. rank is its global number, local_rank its number on this node.

    exit_code is negative for a signal, and None if it is unknown.
    """

    rank: int
    local_rank: int
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class _Rank:
    """A running rank. started (clock ticks since boot) and pid identify its process uniquely."""

    rank: int
    local_rank: int
    pid: int
    started: bytes
    handle: int | None


class RankMonitor:
    """Monitors the ranks that a launcher starts: its children with PADDLE_TRAINER_ID.

    The launcher polls about once a second and names the failed rank with the lowest number. Here the end of a rank
    wakes the waiting process up (pidfd_open(2)), which reads the exit code from /proc before the launcher collects it
    (proc(5)), so that `exits` are in order. Can't be used after `close`.
    """

    def __init__(self, launcher_pid: int, expected: int) -> None:
        self._launcher_pid, self._expected = launcher_pid, expected
        self._launcher_handle = _handle(launcher_pid)
        self._living: dict[int, _Rank] = {}
        self._seen: set[int] = set()
        self.exits: list[RankExit] = []

    def wait(self, seconds: float) -> None:
        """Return when a rank or the launcher ends, or after the given seconds."""
        handles = [self._launcher_handle, *(rank.handle for rank in self._living.values())]
        poll = select.poll()
        for handle in handles:
            if handle is not None:
                poll.register(handle, select.POLLIN)
        poll.poll(seconds * 1000)
        self.look()

    def look(self) -> None:
        """Update the list of running ranks and `exits`."""
        if len(self.exits) + len(self._living) < self._expected:
            for pid in self._children():
                self._add(pid)
        ended = []
        for pid, rank in list(self._living.items()):
            fields = _stat(pid)
            if fields is not None and fields[19] == rank.started and fields[0] not in ENDED_STATES:
                continue
            known = fields is not None and fields[19] == rank.started
            code = os.waitstatus_to_exitcode(int(fields[49])) if known and fields is not None else None
            ended.append(RankExit(rank.rank, rank.local_rank, code))
            if rank.handle is not None:
                os.close(rank.handle)
            del self._living[pid]
        # Of several ranks that ended since the last look, those come first that can't have ended because of another.
        self.exits += sorted(ended, key=lambda one: -(one.exit_code or 0) not in FIRST_SIGNALS)

    @property
    def started(self) -> int:
        """The number of ranks that were seen, those that have ended included."""
        return len(self._seen)

    @property
    def first_failed(self) -> RankExit | None:
        """The rank that failed first, as far as is known; None if no rank failed."""
        return next((rank_exit for rank_exit in self.exits if rank_exit.exit_code != 0), None)

    def send(self, number: int) -> bool:
        """Send a signal to every running rank. Returns whether there is one."""
        for rank in self._living.values():
            with suppress(ProcessLookupError):
                # The handle keeps referring to that process, even if its id is reused.
                if rank.handle is not None:
                    signal.pidfd_send_signal(rank.handle, number)
                else:
                    os.kill(rank.pid, number)
        return bool(self._living)

    def close(self) -> None:
        """Close the handles of the processes."""
        for handle in (self._launcher_handle, *(rank.handle for rank in self._living.values())):
            if handle is not None:
                os.close(handle)
        self._launcher_handle = None
        self._living = {}

    def _children(self) -> Iterator[int]:
        try:
            for task in Path(f"/proc/{self._launcher_pid}/task").iterdir():
                yield from map(int, (task / "children").read_text(encoding="ascii").split())
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            with suppress(psutil.Error):
                yield from (child.pid for child in psutil.Process(self._launcher_pid).children())

    def _add(self, pid: int) -> None:
        if pid in self._seen:
            return
        fields = _stat(pid)
        try:
            environment = dict(
                item.partition(b"=")[::2] for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            )
        except OSError:
            return
        # A child that hasn't become the rank yet still has the launcher's environment; it is checked again later.
        if fields is None or b"PADDLE_TRAINER_ID" not in environment:
            return
        number, local = (int(environment[name]) for name in (b"PADDLE_TRAINER_ID", b"PADDLE_LOCAL_RANK"))
        self._living[pid] = _Rank(number, local, pid, fields[19], _handle(pid))
        # Last, so that an interruption between the two statements doesn't lose a rank.
        self._seen.add(pid)


class Pulse:
    """When each rank last made progress, by the modification times of its files."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._now = folder, now
        self._last: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None

    def max_silence_seconds(self) -> float | None:
        """Returns the longest time since a rank last made progress, in seconds; None before any has made a step.

        Measured with a monotonic clock between calls, so that setting the system's clock has no effect.
        """
        at = self._now()
        if self._looked_at is None or at - self._looked_at >= PULSE_SECONDS:
            self._looked_at = at
            for path in pulse_files(self._folder):
                with suppress(OSError):
                    changed = path.stat().st_mtime_ns
                    if self._last.get(path.name, (None, at))[0] != changed:
                        self._last[path.name] = (changed, at)
        return max((at - since for _, since in self._last.values()), default=None)


def _stat(pid: int) -> list[bytes] | None:
    """Returns /proc/<pid>/stat from the third field (state) on, because the second (the name) may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:  # it has ended, or the kernel is older than 5.3
        return None
