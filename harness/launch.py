"""Starts one worker per device through paddle.distributed.launch, waits for them, and tells what ended them."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from harness.device import Devices, worker_environment
from harness.endings import death, keep_logs, left_failure, stall, stalled
from harness.errors import TrainingError
from harness.nodes import Node
from harness.plan import RunPlan
from harness.rank_watch import Pulse, RankWatch
from harness.record import RunFiles
from harness.tables.files import write_whole
from harness.watchdog import TELL_STACKS

# The workers come through the same entry as the user, so that they import what the user's process does.
ENTRY = Path(__file__).parents[1] / "run_bench.py"
WORKER_COMMAND = "worker"
# In a rank's environment, the process that called `run_workers`.
RUN_PID = "PPLCNET_BENCH_RUN_PID"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded here, as nothing may be loaded between fork and exec.
_LIBC = ctypes.CDLL(None)
POLL_SECONDS = 0.2
STOP_SECONDS = 20.0
# For the launcher to end the other ranks once one has failed; it takes 1 s to see it, then 3 s and 1.2 s a rank.
END_SECONDS = 25.0
# For a rank's own watchdog to be quicker than this process, which sees less.
WATCHDOG_GRACE_SECONDS = 20.0


def run_workers(
    files: RunFiles,
    devices: Devices,
    plan: RunPlan,
    environment: Mapping[str, str],
    poll: Callable[[], None] = lambda: None,
    *,
    node: Node | None = None,
    stall_seconds: float = math.inf,
    say: Callable[[str], None] = lambda _: None,
    kept: Path | None = None,
) -> None:
    """Run this node's ranks to their end, calling poll a few times a second.

    Raises the error a rank left behind, or TrainingError with what ended the first rank, or with where each was when
    none moved on for stall_seconds, or when the other nodes didn't come; the logs are then kept, beside the tables or
    where kept says. A first Ctrl-C asks the ranks to end by themselves and waits for them; a second ends everything.
    Both go on as KeyboardInterrupt, unless the ranks leave an error of their own, or have finished.
    """
    kept = kept or files.folder / f"{files.run}.logs"
    env = {**worker_environment(devices, plan.compute_threads, environment), RUN_PID: str(os.getpid())}
    # The launcher writes the whole environment of each rank beside the logs, secrets and all: to a private folder.
    with tempfile.TemporaryDirectory(prefix="pplcnet-bench-") as folder:
        logs = Path(folder)
        with (logs / "launcher.log").open("wb") as output:
            process = subprocess.Popen(
                launch_command(plan.ranks_per_node, logs, files.record, node),
                env=env if node is None else node.environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
            watch = RankWatch(process.pid, plan.ranks_per_node)
            run = _Running(process, watch, logs, plan, node, stall_seconds, say)
            with _stopped_at_exit(run):
                run.wait(poll)
        poll()
        _raise_what_ended(run, process.returncode, kept)


@dataclass(slots=True)
class _Running:
    """A launcher and its ranks while they run. asked_to_end: by the first Ctrl-C; stalled: nothing moved on."""

    process: subprocess.Popen[bytes]
    watch: RankWatch
    logs: Path
    plan: RunPlan
    node: Node | None
    stall_seconds: float
    say: Callable[[str], None]
    asked_to_end: bool = False
    stalled: bool = False
    unjoined: bool = False
    launcher_told_at: float | None = None

    def wait(self, poll: Callable[[], None]) -> None:
        """Return when the launcher has ended, or had to be ended; KeyboardInterrupt passes at the second Ctrl-C."""
        started_at = time.monotonic()
        failed_at: float | None = None
        pulse = Pulse(self.logs)
        while self.process.poll() is None:
            try:
                self.watch.wait(POLL_SECONDS)
                poll()
                now = time.monotonic()
                if failed_at is None and self.watch.first_failed is not None:
                    failed_at = now
                    if stalled(self.logs):
                        # Before the launcher ends the others: those that can say where they are.
                        self.watch.send(TELL_STACKS)
                if pulse.longest_silence_seconds() > self.stall_seconds + WATCHDOG_GRACE_SECONDS:
                    self.stalled = True
                    self.watch.send(TELL_STACKS)
                    time.sleep(POLL_SECONDS)
                self.unjoined = self.node is not None and self._joins_too_late(now - started_at, self.node.join_seconds)
                # Left to itself the launcher waits for a rank that doesn't end, for good if the kernel holds that rank.
                overdue = failed_at is not None and now - failed_at > END_SECONDS
                if self.launcher_told_at is not None:
                    overdue = now - self.launcher_told_at > STOP_SECONDS
                if self.stalled or self.unjoined or overdue:
                    self.kill()
            except KeyboardInterrupt:  # noqa: PERF203 - wherever in a round it comes
                if self.asked_to_end:
                    raise
                self._ask_to_end()

    def kill(self) -> None:
        """End the launcher and its ranks at once, stopped ones too."""
        self.watch.send(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _ask_to_end(self) -> None:
        """Have the ranks finish their step and save.

        The launcher isn't told, as it would kill them a few seconds later. It does so, too, once a rank has ended with
        an error; ranks that save end together, behind a barrier, so that none is still at work then.
        """
        self.asked_to_end = True
        self.watch.look()
        if self.watch.send(signal.SIGTERM):
            self.say("finishing the step and saving; press Ctrl-C again to stop at once")
        else:
            self.process.terminate()
            self.launcher_told_at = time.monotonic()

    def _joins_too_late(self, seconds: float, limit_seconds: float) -> bool:
        return seconds > limit_seconds and len(list(self.logs.glob("joined.*"))) < self.plan.ranks_per_node


def _raise_what_ended(run: _Running, code: int, kept: Path) -> None:
    """Raise what ended the ranks; nothing when they finished."""
    logs, plan, node = run.logs, run.plan, run.node
    if not code:
        return
    left = left_failure(logs)
    if left is not None:
        raise left
    if run.asked_to_end:
        raise KeyboardInterrupt
    keep_logs(logs, kept)
    if run.unjoined and node is not None:
        raise TrainingError(
            f"{node.count} nodes were expected at {node.master[0]}:{node.master[1]} within {node.join_seconds:g} s, and"
            " not all came",
            "Check that every node runs, with the same --nnodes and --master and a --node-rank of its own; that node 0"
            f" can be reached at {node.master[0]} (firewall), and the nodes at one another on any port; or give more"
            f" --join-seconds.\nLogs: {kept}",
        )
    first_rank = 0 if node is None else node.rank * plan.ranks_per_node
    if run.stalled or stalled(logs):
        raise stall(logs, plan, first_rank, run.stall_seconds, kept)
    raise death(logs, plan, run.watch.first_failed, first_rank, code, kept)


def launch_command(ranks: int, logs: Path, record: Path, node: Node | None = None) -> list[str]:
    """The launcher's command line; ranks are this node's.

    It is given no backend: it would fall back to its legacy mode.
    """
    return [
        sys.executable, "-m", "paddle.distributed.launch",
        "--nproc_per_node", str(ranks),
        "--log_dir", str(logs),
        "--enable_gpu_log", "0",
        *([] if node is None else node.launcher_options()),
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


def die_with_run(environment: Mapping[str, str]) -> None:
    """Have this rank end with its launcher, and at once if the run it belongs to has ended already."""
    die_with_parent()
    run = environment.get(RUN_PID)
    if run is not None and sys.platform == "linux":
        try:
            ended = psutil.Process(os.getppid()).ppid() != int(run)
        except psutil.Error:
            ended = True
        if ended:
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


def leave_failure(environment: Mapping[str, str], code: int, message: str, cure: str, kind: str = "") -> None:
    """Leave a rank's error, with the exit code it stands for, where `run_workers` looks for it.

    kind is empty, or what `harness.endings` tells apart.
    """
    told = {"code": code, "message": message, "cure": cure, "kind": kind}
    write_whole(failure_file(environment), json.dumps(told))


def failure_file(environment: Mapping[str, str]) -> Path:
    """Where a rank leaves its error for this process."""
    return Path(environment["PADDLE_LOG_DIR"]) / f"failure.{environment['PADDLE_TRAINER_ID']}.json"


def rank_file(environment: Mapping[str, str], name: str) -> Path | None:
    """A rank's file of that name in the launcher's log folder; None where no launcher started it."""
    if "PADDLE_LOG_DIR" not in environment:
        return None
    return Path(environment["PADDLE_LOG_DIR"]) / f"{name}.{environment['PADDLE_TRAINER_ID']}"


@contextmanager
def _stopped_at_exit(run: _Running) -> Iterator[None]:
    """Leave no launcher behind, whatever ends this block; the launcher ends its ranks when it is told to stop."""
    process = run.process
    try:
        yield
    finally:
        if process.poll() is None and not run.asked_to_end:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        if process.poll() is None:
            run.kill()
        run.watch.close()
