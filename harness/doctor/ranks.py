"""The check of the ranks: Paddle's launcher starts them, and they add up numbers together.

Each rank says how far it has come, so that one that hangs can be named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.doctor.check import FAIL, OK, Context, Finding, devices_of, skip
from harness.launch.launcher import launch_command
from harness.launch.process_tree import die_with_parent, launcher_environment
from harness.machine.device import local_rank, open_device
from harness.machine.device_kinds import device_kind
from harness.plan.nodes import Node
from models.words import count_of

# Within the check's own limit, so that the rank that is silent can be named.
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.1
SUMMED_BYTES = 16 * 2**20
REPEATS = 3
# A rank that ends closes its connections, while another may still receive through them.
END_SECONDS = 0.5
RANK_SCRIPT = f"import sys; sys.path[0] = {str(ROOT)!r}; from harness.doctor.ranks import be_rank; be_rank()\n"
STARTED, JOINED, DONE = "started", "joined", "done"
HANG_CURE = (
    "try, one at a time: NCCL_P2P_DISABLE=1, NCCL_SHM_DISABLE=1 (GPUs), unset GLOO_SOCKET_IFNAME (CPU); and a firewall"
    " must let processes of this machine connect to one another"
)


def all_reduce(context: Context) -> Finding:
    """Ranks that Paddle's launcher starts, one per device, add up numbers to the right sum."""
    devices = devices_of(context)
    if devices.count < 2:
        return skip("a run would have one rank here, which adds up nothing with others; --gpus N starts more")
    backend, alone = device_kind(devices.kind).backend, Node()
    # Below the check's temporary folder, which is removed whatever happens.
    folder = Path(tempfile.mkdtemp())
    script = folder / "rank.py"
    script.write_text(RANK_SCRIPT, encoding="utf-8")
    with (folder / "launcher.log").open("wb") as output:
        process = subprocess.Popen(
            launch_command(devices.count, folder, (str(script), devices.kind, str(folder)), alone.launcher_options()),
            env=launcher_environment(alone.environment(os.environ)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    deadline = time.monotonic() + WAIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if process.poll() is None:
        return _hung(folder, devices.count, backend)
    return judge_sums(read_sums(folder, devices.count), devices.count, backend, _last_words(folder))


def judge_sums(sums: Sequence[dict[str, Any] | None], count: int, backend: str, last_words: str) -> Finding:
    """Returns the finding for what each rank has added up and how long that took; None of a rank without an answer."""
    right = count * (count + 1) / 2
    expected = f"{right:g} on each of {count_of(count, 'rank')}"
    missing = [str(rank) for rank, values in enumerate(sums) if values is None]
    if missing:
        return Finding(
            FAIL,
            f"no sum from rank {', '.join(missing)}",
            expected,
            f"the ranks could not start or join through {backend}: {last_words}",
            HANG_CURE,
        )
    answers = [values for values in sums if values is not None]
    wrong = [f"rank {rank}: {one['sum']:g}" for rank, one in enumerate(answers) if one["sum"] != right]
    if wrong:
        return Finding(FAIL, ", ".join(wrong), expected, f"{backend} adds up wrongly", HANG_CURE)
    rate = SUMMED_BYTES / max(max(one["seconds"] for one in answers), 1e-9)
    return Finding(OK, f"{right:g} on {count_of(count, 'rank')}, {backend}, {rate / 1e9:.2f} GB/s", expected)


def read_sums(folder: Path, count: int) -> list[dict[str, Any] | None]:
    """Returns what each rank has written; None for one that has written no answer."""
    stages = [_stage(folder, rank) for rank in range(count)]
    return [stage if stage.get("stage") == DONE else None for stage in stages]


def _stage(folder: Path, rank: int) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads((folder / f"stage.{rank}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read


def _hung(folder: Path, count: int, backend: str) -> Finding:
    stages = {rank: str(_stage(folder, rank).get("stage", "not started")) for rank in range(count)}
    order = ("not started", STARTED, JOINED, DONE)
    least = min(stages.values(), key=order.index)
    silent = ", ".join(str(rank) for rank, stage in stages.items() if stage == least)
    where = {"not started": "has not started", STARTED: "waits for the others to join"}.get(least, "waits for the sum")
    return Finding(
        FAIL,
        f"no sum within {WAIT_SECONDS:g} s; rank {silent} {where}",
        f"a sum on each of {count_of(count, 'rank')}",
        f"{backend} hangs: {_last_words(folder)}",
        HANG_CURE,
    )


def _last_words(folder: Path) -> str:
    """Returns the last line of the first log that names an error, else of the launcher's."""
    logs = [folder / "launcher.log", *sorted(folder.glob("workerlog.*"))]
    texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists()]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no output"])[-1][:300]


def add_up(kind: str, folder: Path) -> None:
    """Be one rank: join the others, add up, and write what came out."""
    rank = int(os.environ["PADDLE_TRAINER_ID"])

    def report(stage: str, **values: float) -> None:
        unfinished = folder / f".stage.{rank}"
        unfinished.write_text(json.dumps({"stage": stage, **values}), encoding="utf-8")
        unfinished.replace(folder / f"stage.{rank}")

    report(STARTED)
    import paddle

    open_device(kind, local_rank())
    paddle.distributed.init_parallel_env()
    report(JOINED)
    seconds = []
    for _ in range(REPEATS):
        values = paddle.full([SUMMED_BYTES // 4], rank + 1, dtype="float32")
        # Reading a value waits for what came before.
        values[0].item()
        began = time.monotonic()
        paddle.distributed.all_reduce(values)
        low, high = float(values.min().item()), float(values.max().item())
        seconds.append(time.monotonic() - began)
    report(DONE, sum=low if low == high else float("inf"), seconds=min(seconds))


def be_rank() -> None:
    """Be the rank that Paddle's launcher started with a kind of device and a folder."""
    die_with_parent()
    add_up(sys.argv[1], Path(sys.argv[2]))
    time.sleep(END_SECONDS)
    os._exit(0)
