"""Stands in for Paddle's launcher: ranks are forked from a process that has loaded Paddle and DALI already.

Starting the interpreter three times and loading both takes 5 s of a run; forking takes milliseconds. The command line,
the launching process and the ranks are the product's own: only the program between them is another.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

import nvidia.dali.fn
import nvidia.dali.types  # noqa: F401 - loaded before the fork, like all of these
import paddle  # noqa: F401
import pandas  # noqa: F401
import scipy.special  # noqa: F401

import harness.analysis.summarize
import harness.commands.resume
import harness.commands.run
import harness.commands.stored.compare
import harness.commands.stored.export
import harness.launch.launcher
import harness.training.worker
from harness.cli import main
from harness.launch.process_tree import die_with_parent

HOST = "127.0.0.1"
LISTENING = "0A"  # in /proc/net/tcp, proc(5)
POLL_SECONDS = 0.01


def run_command_line(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    printed: str,
    address_bytes: int | None,
) -> None:
    """Be run_bench.py with these arguments: in that environment and folder, printing to the files out and err.

    Each of its processes may have address_bytes of address space, or as much as it likes.
    """
    die_with_parent()
    if address_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
    for number, name in ((1, "out"), (2, "err")):
        _redirect(number, f"{printed}/{name}")
    _redirect(0, os.devnull)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    vars(harness.launch.launcher)["subprocess"] = SimpleNamespace(
        Popen=ForkedLauncher,
        DEVNULL=subprocess.DEVNULL,
        STDOUT=subprocess.STDOUT,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    sys.exit(main(arguments))


class ForkedLauncher:
    """A process that forks the ranks and waits for them, with what of subprocess.Popen the launching process uses.

    Like Paddle's launcher it ends the other ranks once one has failed, and ends with a rank's code.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: int,
        stdout: IO[bytes],
        stderr: int,
        start_new_session: bool,
        preexec_fn: Callable[[], object],
    ) -> None:
        options = dict(pairwise(command))
        ranks, logs = int(options["--nproc_per_node"]), Path(options["--log_dir"])
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        os.setsid()
        preexec_fn()
        os.dup2(stdout.fileno(), 1)
        os.dup2(stdout.fileno(), 2)
        _end_with(lambda: _launch(ranks, logs, env, command[-2:]))

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it is there. Raises TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked launcher", timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return code


def _launch(ranks: int, logs: Path, environment: Mapping[str, str], worker: Sequence[str]) -> int:
    """Fork the ranks and wait for them; the exit code of the first that failed."""
    ports = _free_ports(ranks + 1)
    children: dict[int, int] = {}
    for rank in range(ranks):
        own = {**environment, **_rank_environment(rank, ports, logs)}
        pid = os.fork()
        if not pid:
            for number in (1, 2):
                _redirect(number, str(logs / f"workerlog.{rank}"))
            os.environ.clear()
            os.environ.update(own)
            _end_with(lambda: main(worker))
        children[pid] = rank
        if rank == 0 and ranks > 1:
            # One that comes before the store is there looks again after 3 s.
            _wait_for_listener(ports[-1], pid)
    failed = 0
    while children:
        pid, status = os.waitpid(-1, 0)
        children.pop(pid, None)
        code = os.waitstatus_to_exitcode(status)
        if code and not failed:
            failed = code
            for other in children:
                os.kill(other, signal.SIGTERM)
    return failed if failed >= 0 else 128 - failed


def _rank_environment(rank: int, ports: Sequence[int], logs: Path) -> dict[str, str]:
    """What Paddle's launcher puts into a rank's environment; the last port is the store's."""
    endpoints = [f"{HOST}:{port}" for port in ports[:-1]]
    return {
        "PADDLE_MASTER": f"{HOST}:{ports[-1]}",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        "PADDLE_TRAINERS_NUM": str(len(endpoints)),
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_LOCAL_RANK": str(rank),
        "PADDLE_LOG_DIR": str(logs),
    }


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports: list[int] = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _wait_for_listener(port: int, pid: int) -> None:
    """Return once somebody listens on the port, or the process has ended."""
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with suppress(FileNotFoundError):
                lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
                fields = [line.split() for line in lines]
                if any(one[1].endswith(f":{port:04X}") and one[3] == LISTENING for one in fields):
                    return
        time.sleep(POLL_SECONDS)


def _redirect(number: int, path: str) -> None:
    """Let a file descriptor be a file, which is made."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(opened, number)
    os.close(opened)


def _end_with(work: Callable[[], Any]) -> NoReturn:
    """End this process with the code that the work returns, or with a traceback and 1."""
    code = 1
    try:
        code = work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
