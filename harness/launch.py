"""Starts one worker per device through paddle.distributed.launch, waits for them, and tells what ended them."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from harness.device import Devices, worker_environment
from harness.errors import BenchError, TrainingError
from harness.plan import RunPlan
from harness.record import RunFiles
from harness.tables.files import write_whole

# The workers come through the same entry as the user, so that they import what the user's process does.
ENTRY = Path(__file__).parents[1] / "run_bench.py"
WORKER_COMMAND = "worker"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded here, as nothing may be loaded between fork and exec.
_LIBC = ctypes.CDLL(None)
# What Paddle's launcher prints of the first rank, by number, that it finds failed (launch/job/container.py).
FAILED_RANK = re.compile(r"Container rank (?P<rank>\d+) status failed .* code (?P<code>-?\d+) log ")
POLL_SECONDS = 0.2
STOP_SECONDS = 20.0
LOG_TAIL_LINES = 12


def run_workers(
    files: RunFiles,
    devices: Devices,
    plan: RunPlan,
    environment: Mapping[str, str],
    poll: Callable[[], None] = lambda: None,
) -> None:
    """Run the ranks to their end, calling poll a few times a second.

    Raises the error a rank left behind, or TrainingError with the rank, its exit and the end of its log; the logs are
    then kept beside the tables. Ctrl-C ends the ranks and goes on as KeyboardInterrupt.
    """
    # The launcher writes the whole environment of each rank beside the logs, secrets and all: to a private folder.
    with tempfile.TemporaryDirectory(prefix="pplcnet-bench-") as folder:
        logs = Path(folder)
        with (logs / "launcher.log").open("wb") as output:
            process = subprocess.Popen(
                launch_command(plan.ranks, logs, files.record),
                env=worker_environment(devices, plan.compute_threads, environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
            with _stopped_at_exit(process):
                while True:
                    try:
                        code = process.wait(POLL_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        poll()
        poll()
        if code:
            raise _failure(files, logs, code)


def launch_command(ranks: int, logs: Path, record: Path) -> list[str]:
    """The launcher's command line. It is given no backend: it would fall back to its legacy mode."""
    return [
        sys.executable, "-m", "paddle.distributed.launch",
        "--nproc_per_node", str(ranks),
        "--log_dir", str(logs),
        "--enable_gpu_log", "0",
        str(ENTRY), WORKER_COMMAND, str(record),
    ]  # fmt: skip


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the one that started it ends, so that no rank trains for nobody.

    parent is that process's id where it is known (in a container it may be 1), to tell whether it has ended already.
    Source: prctl(2), PR_SET_PDEATHSIG. Nothing happens where the system is not Linux.
    """
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def run_root(environment: Mapping[str, str], rank_pid: int) -> int:
    """The process that the whole run hangs from, seen from one of its ranks: `run_workers`' own, the launcher's parent.

    It is the rank itself where no launcher started it, or where the launcher has ended.
    """
    if "PADDLE_TRAINER_ID" not in environment:
        return rank_pid
    try:
        launcher_pid = psutil.Process(rank_pid).ppid()
        return psutil.Process(launcher_pid).ppid() or rank_pid
    except psutil.Error:
        return rank_pid


def leave_failure(environment: Mapping[str, str], code: int, message: str, cure: str) -> None:
    """Leave a rank's error, with the exit code it stands for, where `run_workers` looks for it."""
    write_whole(failure_file(environment), json.dumps({"code": code, "message": message, "cure": cure}))


def failure_file(environment: Mapping[str, str]) -> Path:
    """Where a rank leaves its error for this process."""
    return Path(environment["PADDLE_LOG_DIR"]) / f"failure.{environment['PADDLE_TRAINER_ID']}.json"


@contextmanager
def _stopped_at_exit(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no launcher behind, whatever ends this block; the launcher ends its ranks when it is told to stop."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _failure(files: RunFiles, logs: Path, code: int) -> BenchError:
    for path in sorted(logs.glob("failure.*.json"), key=lambda path: path.stat().st_mtime):
        with suppress(ValueError, KeyError):
            told = json.loads(path.read_text(encoding="utf-8"))
            error = BenchError(told["message"], told["cure"])
            error.exit_code = told["code"]
            return error
    kept = _keep_logs(files, logs)
    failed = FAILED_RANK.search(_read_log(logs / "launcher.log"))
    if failed is None:
        return TrainingError(f"the launcher ended with exit code {code}", f"{_tail(logs, None)}\nLogs: {kept}")
    rank, exit_code = failed["rank"], int(failed["code"])
    how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    # It names one, and a rank that dies takes those with it that wait for it.
    others = "Another rank may have ended first and taken this one with it." if exit_code < 0 else ""
    tail = _tail(logs, f"workerlog.{rank}")
    return TrainingError(f"rank {rank} {how}", "\n".join(filter(None, (others, tail, f"Logs: {kept}"))))


def _keep_logs(files: RunFiles, logs: Path) -> Path:
    """Copy what the ranks printed, and nothing of the launcher's dumps, beside the tables."""
    kept = files.folder / f"{files.run}.logs"
    kept.mkdir(parents=True, exist_ok=True)
    for log in sorted(logs.glob("workerlog.*")):
        (kept / log.name).write_bytes(log.read_bytes())
    return kept


def _read_log(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _tail(logs: Path, culprit: str | None) -> str:
    """The end of the culprit's log if it holds anything, else of the first log with an error, else of the first at all.

    The launcher's comes last.
    """
    texts = {path.name: _read_log(path) for path in (*sorted(logs.glob("workerlog.*")), logs / "launcher.log")}
    order = sorted(texts, key=lambda name: (name != culprit, not re.search("Traceback|Error", texts[name])))
    name = next((name for name in order if texts[name].strip()), None)
    if name is None:
        return "No rank printed anything."
    return "\n".join([f"The end of {name}:", *texts[name].splitlines()[-LOG_TAIL_LINES:]])
