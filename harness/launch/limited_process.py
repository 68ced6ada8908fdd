"""A process with a time limit, which is killed with everything that it started: what it runs may crash or hang."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import psutil

from harness.launch.process_tree import die_with_parent

if TYPE_CHECKING:
    from typing_extensions import Self

# A process that the kernel can't end, such as one that waits for a driver, is left behind after this time.
KILL_SECONDS = 5.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended: in_time, and its exit code (negative: by a signal; None: the kernel could not end it)."""

    in_time: bool
    code: int | None

    @property
    def signal_name(self) -> str:
        """The signal that ended it; empty if none did."""
        if self.code is None or self.code >= 0:
            return ""
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"


class LimitedProcess:
    """A command that runs from when this is made; inside a `with`, at whose end it is over. It ends with its parent.

    Its input, output and errors are file descriptors.
    """

    def __init__(
        self,
        command: Sequence[str],
        limit_seconds: float,
        *,
        environment: Mapping[str, str],
        cwd: str | os.PathLike[str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        self.pid = self._process.pid
        self._deadline = time.monotonic() + limit_seconds

    def end(self) -> End:
        """Wait for its end, and kill it when its time is up. Returns how it ended."""
        in_time = self._has_ended()
        while not in_time and time.monotonic() < self._deadline:
            time.sleep(POLL_SECONDS)
            in_time = self._has_ended()
        self._kill()
        return End(in_time, self._process.returncode)

    def _has_ended(self) -> bool:
        """Whether the process has ended, which is left for `_kill` to collect."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill(self) -> None:
        """Kill what still runs: the process's group, and children in groups of their own."""
        process = self._process
        if process.returncode is not None:
            return
        children: list[psutil.Process] = []
        with suppress(psutil.Error):
            children = psutil.Process(process.pid).children(recursive=True)
        # Not yet waited for, so that the number is still this group's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._kill()


def read_whole(descriptor: int) -> str:
    """Returns the whole text of a file in memory, whatever has been read of it."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("utf-8", "replace")


def last_line(text: str, max_characters: int = 2000) -> str:
    """Returns the last line of a text that isn't blank, up to max_characters; empty without one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:max_characters] if lines else ""
