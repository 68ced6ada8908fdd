"""Finds out what ended the ranks, from what they left: their errors, exit codes and logs."""

from __future__ import annotations

import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from harness import ROOT
from harness.errors import MachineError, OutOfMemoryError, TrainingError
from harness.launch.gate import BROKEN
from harness.launch.memory import memory_line
from harness.launch.rank_files import pulse_files
from harness.launch.rank_monitor import RankExit
from harness.launch.watchdog import innermost_frame, timed_out
from harness.machine.device_kinds import device_kind
from harness.plan.plan import RunPlan
from models.errors import ActionableError
from models.words import count_of
from pipelines.settings import MIXED_DECODER

# A failed call of NCCL in Paddle's two forms (phi/core/enforce.h, phi/core/distributed/nccl_tools.h in Paddle 3.3.1):
# NCCL error(6), remote process exited or there was a network error.
# Failed, NCCL error /paddle/nccl_tools.cc:38 'remote process exited or there was a network error'
NCCL_ERROR = re.compile(r"NCCL error(?:\(\d+\), |[^\n']*')(?P<words>[^\n.']+)")
# The errors of gloo (gloo/transport/tcp/pair.cc) and NCCL when the other end of a connection is lost. NCCL's are its
# words (ncclGetErrorString) for ncclSystemError and ncclRemoteError.
LOST_CONNECTION = re.compile(
    rf"{re.escape(BROKEN)}|"
    r"gloo::\w+Exception|gloo/transport/tcp|(?i:connection (?:closed|reset) by peer)"
    r"|unhandled system error|remote process exited or there was a network error"
)
# Paddle adds errno's words to an error of NCCL, and advice about shared memory. It does so after EAGAIN as well, which
# a socket may have left; only a full file system says that shared memory is too small. The second line is NCCL's own,
# which it prints with NCCL_DEBUG=WARN.
SHARED_MEMORY_FULL = re.compile(
    r"NCCL error\(\d+\)[^\n]*No space left on device|NCCL WARN Error while creating shared memory segment"
)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where NCCL makes its files, not ours
GLOO_PEER = re.compile(r"pair\.cc:\d+\].*?\[(?P<address>[0-9.]+)\]:\d+")
# The same of what ranks on CPUs meet at before gloo exchanges anything.
GATE_PEER = re.compile(rf"{re.escape(BROKEN)} \[(?P<address>[^]]+)\]")
LOG_TAIL_LINES = 12


def memory_error(plan: RunPlan, rank: int, reason: str) -> OutOfMemoryError:
    """Returns the error for a batch that does not fit into memory; reason is the library's own message."""
    what, batch = device_kind(plan.device).memory, plan.pipeline.batch_size
    cure = "Use a smaller --model or --image-size."
    if batch > 1:
        cure = f"Use --batch-size {batch // 2} or less, or {plan.kind.memory_cure}"
    images = f"{count_of(batch, 'image')} per device {'does' if batch == 1 else 'do'}"
    return OutOfMemoryError(f"{images} not fit into the {what} of rank {rank}: {reason}", cure)


def death(logs: Path, plan: RunPlan, first: RankExit | None, launcher_code: int, kept: Path) -> ActionableError:
    """Returns the error for a run whose ranks left none.

    first is the rank that ended first, None if no rank was seen to end. logs is the folder of the logs, kept the one
    they are copied to.
    """
    name = None if first is None else f"workerlog.{first.local_rank}"
    rest = f"{_tail(logs, name)}\nLogs: {kept}"
    if first is None or name is None:
        return TrainingError(f"the launcher ended with exit code {launcher_code}", rest)
    log = read_log(logs / name)
    if (reason := memory_line(log)) is not None:
        error = memory_error(plan, first.rank, reason)
        return OutOfMemoryError(error.message, f"{error.cure}\n{rest}")
    if first.exit_code is None:
        return TrainingError(f"rank {first.rank} ended first; its exit code is unknown", rest)
    hint = ""
    if first.exit_code < 0:
        how = f"was ended by {_signal_name(-first.exit_code)}"
        if -first.exit_code == signal.SIGKILL:
            hint = "The kernel kills the largest process when memory runs out: check dmesg."
        elif plan.pipeline.decoder == MIXED_DECODER:
            hint = "The GPU's decoder may have crashed. Try --decoder cpu."
    else:
        how = f"ended with exit code {first.exit_code}"
    if SHARED_MEMORY_FULL.search(log):
        return MachineError(
            f"NCCL found no room in {SHARED_MEMORY}{_size_of(SHARED_MEMORY)}, which the ranks of a machine exchange"
            " gradients through",
            "Give the container more: docker run --shm-size=2g, or --ipc=host. Or do without, which is slower: export"
            f" NCCL_SHM_DISABLE=1.\n{rest}",
        )
    failure = device_kind(plan.device).failure
    if failure and (found := re.search(failure, log)) is not None:
        return MachineError(
            f"the device of rank {first.rank} failed: {found[0].strip()}",
            f"Check the device, its driver and the connections between devices.\n{rest}",
        )
    message = f"rank {first.rank} {how}"
    if plan.nodes > 1 and first.exit_code != -signal.SIGKILL and LOST_CONNECTION.search(log):
        peer = GATE_PEER.search(log) or GLOO_PEER.search(log)
        where = "" if peer is None else f" ({peer['address']})"
        message = f"a node was lost: the connection of rank {first.rank} to another node{where} broke"
        hint = f"Check what the run printed on the other nodes, and that they are reachable. Rank {first.rank} {how}."
    elif (reported := NCCL_ERROR.search(log)) is not None:
        hint = f"NCCL reported: {reported['words'].strip()}. See what the other ranks printed, too."
    return TrainingError(message, f"{hint}\n{rest}" if hint else rest)


def stall(logs: Path, plan: RunPlan, first_rank: int, kept: Path) -> TrainingError:
    """Returns the error for a run that made no progress; first_rank is the first rank of this node."""
    positions = []
    for local in range(plan.ranks_per_node):
        frame = innermost_frame(read_log(logs / f"workerlog.{local}"), ROOT)
        positions.append(f"rank {first_rank + local}: {frame or 'no answer (stopped or hung in the kernel)'}")
    hint = "The end of each log has the stacks of all threads."
    limit = plan.operation.stall_timeout
    step = "no step"
    if not pulse_files(logs):
        limit, step = plan.operation.start_seconds(plan.nodes), "no first step"
    if plan.nodes > 1:
        hint += " Another node may have stopped, or the network between them."
    return TrainingError(
        f"{step} for {limit:g} s: {'; '.join(positions)}",
        f"{hint} If a step may take that long, raise --stall-timeout.\nLogs: {kept}",
    )


def stalled(logs: Path, local_rank: int | None = None) -> bool:
    """Returns whether this rank, or any, was ended by its watchdog."""
    pattern = "workerlog.*" if local_rank is None else f"workerlog.{local_rank}"
    return any(timed_out(read_log(path)) for path in logs.glob(pattern))


def keep_logs(logs: Path, kept: Path) -> None:
    """Copy what the ranks printed to the folder kept beside the tables, instead of what an earlier failure left there.

    On a full disk, which may be what ended the run, as much is copied as fits.
    """
    with suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
        # Of more ranks, perhaps.
        for old in kept.glob("workerlog.*"):
            old.unlink()
        for log in sorted(logs.glob("workerlog.*")):
            (kept / log.name).write_bytes(log.read_bytes())


def read_log(path: Path) -> str:
    """Returns a log's text, empty if there is no log."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _size_of(folder: Path) -> str:
    """Returns the size of a folder's file system, worded to follow its name; empty if it is unknown."""
    try:
        return f" ({shutil.disk_usage(folder).total / 2**20:.0f} MiB)"
    except OSError:
        return ""


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def _tail(logs: Path, culprit: str | None) -> str:
    """Returns the end of the culprit's log, or if that is empty of the first log with an error, or of the first log.

    The launcher's log comes last.
    """
    texts = {path.name: read_log(path) for path in (*sorted(logs.glob("workerlog.*")), logs / "launcher.log")}
    order = sorted(texts, key=lambda name: (name != culprit, not re.search("Traceback|Error", texts[name])))
    name = next((name for name in order if texts[name].strip()), None)
    if name is None:
        return "No rank printed anything."
    return "\n".join([f"The end of {name}:", *texts[name].splitlines()[-LOG_TAIL_LINES:]])
