"""The ranks of this node as the process sees them that started their launcher: who ended, of what, who stands still."""

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

# Those that end a process from outside or by a fault of its own; a rank whose peer is gone raises or aborts.
FIRST_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
ENDED_STATES = (b"Z", b"X")
PULSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RankExit:
    """A rank that ended. rank is global, local_rank its number on this node.

    exit_code is negative for a signal, and None where nobody saw it.
    """

    rank: int
    local_rank: int
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class _Rank:
    """A living rank. started (clock ticks since boot) and the id make a process unique."""

    rank: int
    local_rank: int
    pid: int
    started: bytes
    handle: int | None


class RankMonitor:
    """Follows the ranks that a launcher starts, from outside: its children with PADDLE_TRAINER_ID.

    The launcher looks about once a second and names the failed rank with the lowest number. Here a rank's end wakes the
    waiting process up (pidfd_open(2)), which reads the exit code from /proc before the launcher takes it (proc(5)), so
    that `exits` are in order. Not for use after `close`.
    """

    def __init__(self, launcher_pid: int, expected: int) -> None:
        self._launcher_pid, self._expected = launcher_pid, expected
        self._launcher_handle = _handle(launcher_pid)
        self._living: dict[int, _Rank] = {}
        self._seen: set[int] = set()
        self.exits: list[RankExit] = []

    def wait(self, seconds: float) -> None:
        """Return when a rank or the launcher ends, or after so many seconds."""
        handles = [self._launcher_handle, *(rank.handle for rank in self._living.values())]
        poll = select.poll()
        for handle in handles:
            if handle is not None:
                poll.register(handle, select.POLLIN)
        poll.poll(seconds * 1000)
        self.look()

    def look(self) -> None:
        """Note new ranks and ended ones."""
        if len(self.exits) + len(self._living) < self._expected:
            for pid in self._children():
                self._meet(pid)
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
        # Of several that ended between two looks, one that no other can have taken along comes first.
        self.exits += sorted(ended, key=lambda one: -(one.exit_code or 0) not in FIRST_SIGNALS)

    @property
    def first_failed(self) -> RankExit | None:
        """The rank that failed first, as far as is known."""
        return next((ending for ending in self.exits if ending.exit_code != 0), None)

    def send(self, number: int) -> bool:
        """Send every living rank a signal; whether there was one."""
        for rank in self._living.values():
            with suppress(ProcessLookupError):
                # The handle stays that process's, whoever gets its id.
                if rank.handle is not None:
                    signal.pidfd_send_signal(rank.handle, number)
                else:
                    os.kill(rank.pid, number)
        return bool(self._living)

    def close(self) -> None:
        """Let go of the processes."""
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

    def _meet(self, pid: int) -> None:
        if pid in self._seen:
            return
        fields = _stat(pid)
        try:
            environment = dict(
                item.partition(b"=")[::2] for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            )
        except OSError:
            return
        # A child that hasn't become the rank yet has the launcher's environment, and is looked at again.
        if fields is None or b"PADDLE_TRAINER_ID" not in environment:
            return
        number, local = (int(environment[name]) for name in (b"PADDLE_TRAINER_ID", b"PADDLE_LOCAL_RANK"))
        self._living[pid] = _Rank(number, local, pid, fields[19], _handle(pid))
        # Last, so that a signal between the two doesn't lose a rank.
        self._seen.add(pid)


class Pulse:
    """When each rank last made progress, by files whose time of change it moves on."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._now = folder, now
        self._last: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None

    def max_silence_seconds(self) -> float:
        """How long the rank that has been still for longest has been so; 0 before any has begun.

        Measured between looks, so that a clock that is set doesn't count.
        """
        at = self._now()
        if self._looked_at is None or at - self._looked_at >= PULSE_SECONDS:
            self._looked_at = at
            for path in pulse_files(self._folder):
                with suppress(OSError):
                    changed = path.stat().st_mtime_ns
                    if self._last.get(path.name, (None, at))[0] != changed:
                        self._last[path.name] = (changed, at)
        return max((at - since for _, since in self._last.values()), default=0.0)


def _stat(pid: int) -> list[bytes] | None:
    """/proc/<pid>/stat from the third field (state) on, as the second (the name) may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:  # it has ended, or the kernel is older than 5.3
        return None
