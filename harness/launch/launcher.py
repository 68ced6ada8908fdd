"""Starts one worker per device through paddle.distributed.launch, waits for them, and reports what ended them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import ROOT
from harness.artifacts.record import RunFiles
from harness.errors import INTERRUPTED_EXIT_CODE, TrainingError
from harness.launch import signals
from harness.launch.failures import death, keep_logs, stall, stalled
from harness.launch.paddle_launcher import LAUNCHER_COMMAND
from harness.launch.private_folder import private_folder
from harness.launch.process_tree import die_with_parent, launcher_environment
from harness.launch.rank_files import Notices, first_failure, joined_ranks, leave_lists
from harness.launch.rank_monitor import Pulse, RankMonitor
from harness.launch.watchdog import DUMP_STACKS
from harness.machine.device import Devices, worker_environment
from harness.plan.nodes import Node, not_all_joined
from harness.plan.plan import RunPlan
from models.notes import Note
from pipelines.image_lists import ImageList

# The workers start from the same entry point as the user's process, so that both import the same code.
ENTRY = ROOT / "run_bench.py"
WORKER_COMMAND = "worker"
POLL_SECONDS = 0.2
STOP_SECONDS = 20.0
# Time for the launcher to end the other ranks after one has failed: it notices after 1 s, then takes 3 s and 1.2 s per
# rank.
END_SECONDS = 25.0
# Lets a rank's own watchdog act before this process, which knows less about the rank.
WATCHDOG_GRACE_SECONDS = 20.0


def run_workers(
    files: RunFiles,
    devices: Devices,
    plan: RunPlan,
    environment: Mapping[str, str],
    poll: Callable[[], None] = lambda: None,
    *,
    splits: Mapping[str, ImageList],
    meanwhile: Callable[[], None] = lambda: None,
    node: Node,
    say: Callable[[str], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    kept: Path,
) -> None:
    """Run this node's ranks to their end, calling poll a few times a second, and note with each notice that they leave.

    splits are the lists of the images that the ranks read.
    meanwhile is called once, while the ranks start.

    Raises the error that a rank left. Otherwise raises TrainingError with what ended the first rank, or with the
    position of every rank if none made progress within the plan's limit, or if the other nodes didn't join; the logs
    are then copied to kept. When this process is asked to end (`harness.launch.signals`), it asks the ranks to finish
    their step and waits for them; a second Ctrl-C ends everything. Both raise KeyboardInterrupt, unless the ranks left
    an error or have finished.
    """
    training = plan.training
    ranks = worker_environment(devices, training.compute_threads, environment, training.tf32)
    with private_folder("run") as logs:
        leave_lists(logs, splits)
        with (logs / "launcher.log").open("wb") as output:
            process = subprocess.Popen(
                launch_command(
                    plan.ranks_per_node,
                    logs,
                    (str(ENTRY), WORKER_COMMAND, str(files.record)),
                    node.launcher_options(),
                ),
                env=launcher_environment(node.environment(ranks)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_begin_launcher, os.getpid()),
            )
            watch = RankMonitor(process.pid, plan.ranks_per_node)
            run = _Running(process, watch, logs, plan, node, say)
            notices = Notices(logs)

            def look() -> None:
                poll()
                for notice in notices.new():
                    note(notice)

            with signals.polled(), _stopped_at_exit(run):
                meanwhile()
                run.wait(look)
        look()
        _raise_what_ended(run, process.returncode, kept)


@dataclass(slots=True)
class _Running:
    """A launcher and its ranks while they run.

    asked is the number of ranks that were asked to end, None before. stalled is set when no rank made progress,
    unjoined when nodes are missing after the time limit.
    """

    process: subprocess.Popen[bytes]
    watch: RankMonitor
    logs: Path
    plan: RunPlan
    node: Node
    say: Callable[[str], None]
    asked: int | None = None
    stalled: bool = False
    unjoined: bool = False

    def wait(self, poll: Callable[[], None]) -> None:
        """Return when the launcher has ended or was killed. Raises KeyboardInterrupt at the second Ctrl-C."""
        started_at = time.monotonic()
        failed_at: float | None = None
        pulse = Pulse(self.logs)
        while self.process.poll() is None:
            self.watch.wait(POLL_SECONDS)
            poll()
            now = time.monotonic()
            if signals.requested():
                self._ask_to_end()
            if failed_at is None and self.watch.first_failed is not None:
                failed_at = now
                if stalled(self.logs):
                    # Dump the stacks of the other ranks before the launcher ends them.
                    self.watch.send(DUMP_STACKS)
            if self._is_silent(pulse, now - started_at):
                self.stalled = True
                self.watch.send(DUMP_STACKS)
                time.sleep(POLL_SECONDS)
            self.unjoined = not self.node.is_alone and self._joins_too_late(now - started_at)
            # The launcher would wait for a rank that doesn't end, forever if that rank hangs in the kernel.
            overdue = failed_at is not None and now - failed_at > END_SECONDS
            if self.stalled or self.unjoined or overdue:
                self.kill()

    def kill(self) -> None:
        """Kill the launcher and its ranks at once, including stopped ones."""
        self.watch.send(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _ask_to_end(self) -> None:
        """Ask the ranks, and those that started since, to finish their step and save.

        The launcher would end them within seconds after a signal, so that it gets none. It also ends them once a rank
        has ended with an error; ranks that save end together, after a barrier, so that none is still working then.
        """
        self.watch.look()
        started = self.watch.started
        if self.asked is None and not started:
            self.asked = 0
            self.kill()
        elif started > (self.asked or 0):
            if not self.asked:
                self.say(Note("finishing the step and saving; press Ctrl-C again to stop at once", "Wait a moment."))
            self.asked = started
            self.watch.send(signals.ASK)

    def _is_silent(self, pulse: Pulse, seconds: float) -> bool:
        """Whether a rank made no progress for longer than its own watchdog allows, these seconds after the start."""
        limits, silence = self.plan.operation, pulse.max_silence_seconds()
        if silence is None:
            # A rank counts twice: until it asks for its first batch, and from there on.
            return seconds > 2 * limits.start_seconds(self.plan.nodes) + WATCHDOG_GRACE_SECONDS
        return silence > limits.stall_timeout + WATCHDOG_GRACE_SECONDS

    def _joins_too_late(self, seconds: float) -> bool:
        return seconds > self.plan.operation.rendezvous_timeout and joined_ranks(self.logs) < self.plan.ranks_per_node


def _raise_what_ended(run: _Running, code: int, kept: Path) -> None:
    """Raise the error that ended the ranks; return if they finished."""
    logs, plan, node = run.logs, run.plan, run.node
    if not code:
        return
    left, first = first_failure(logs), run.watch.first_failed
    # When a rank dies, the launcher asks the others to end: one that could do so wasn't what ended the run.
    died = run.asked is None and first is not None and first.exit_code not in (None, INTERRUPTED_EXIT_CODE)
    if left is not None and not (died and left.exit_code == INTERRUPTED_EXIT_CODE):
        raise left
    # A rank that is asked before it trains has nothing to save, and leaves no error; it may end before it is seen. The
    # launcher passes its code on.
    if run.asked is not None or (code if first is None else first.exit_code) == INTERRUPTED_EXIT_CODE:
        raise KeyboardInterrupt
    keep_logs(logs, kept)
    if run.unjoined:
        error = not_all_joined(node, plan.operation.rendezvous_timeout)
        raise TrainingError(error.message, f"{error.cure}\nLogs: {kept}")
    first_rank = node.first_rank(plan.ranks_per_node)
    # A rank may fail and leave the others waiting for it until their watchdogs end them.
    failed_alone = first is not None and not stalled(logs, first.local_rank)
    if run.stalled or (stalled(logs) and not failed_alone):
        raise stall(logs, plan, first_rank, kept)
    raise death(logs, plan, first, code, kept)


def launch_command(ranks: int, logs: Path, program: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Returns the command line of Paddle's launcher, for this number of ranks on this node.

    Each rank runs the program, a script with its arguments; options are further ones of the launcher. It is started by
    `harness.launch.paddle_launcher`.

    No backend is passed, because the launcher would fall back to its legacy mode.
    """
    return [
        sys.executable, str(ENTRY), LAUNCHER_COMMAND,
        "--nproc_per_node", str(ranks),
        "--log_dir", str(logs),
        "--enable_gpu_log", "0",
        *options,
        *program,
    ]  # fmt: skip


def _begin_launcher(parent: int) -> None:
    """Prepare the launcher's process, before it runs: it ends with its parent, and signals don't reach it."""
    die_with_parent(parent)
    signals.block()


@contextmanager
def _stopped_at_exit(run: _Running) -> Iterator[None]:
    """End the launcher when this block ends, for whatever reason; after an error of this process the ranks save."""
    process = run.process
    try:
        yield
    finally:
        if process.poll() is None and not signals.requested() and run.watch.send(signals.ASK):
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        if process.poll() is None:
            run.kill()
        run.watch.close()
