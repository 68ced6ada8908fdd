"""Two nodes that are told by a scheduler's variables who they are, in two network namespaces of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from harness import ROOT
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.record import RunFiles, read_record
from harness.artifacts.schema import EPOCHS, STEPS, TRAIN
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_noise
from tests.support.namespaces import MASTER, needs_namespaces
from tests.support.results import result_of
from tests.support.runs import Run, Started, launch, run, wait_for_steps
from tests.support.started import kubernetes, open_mpi, slurm

pytestmark = [needs_namespaces, pytest.mark.whole_run]

SMALL = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "4", "--compute-threads", "1")
# What the job's Slurm would run, with its options; NODES has a namespace for each node of the job.
SRUN = """
import os, signal, subprocess, sys
names = os.environ["NODES"].split(",")
words = sys.argv[1:]
given = [words.pop(0) for _ in list(words) if words[0].startswith("--")]
assert given == ["--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=0"], given
ids = f"10.77.31.[1-{len(names)}]"
tasks = []
for rank, name in enumerate(names):
    own = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": str(len(names)), "SLURM_STEP_NUM_TASKS": str(len(names)),
           "SLURM_STEP_NODELIST": ids, "SLURM_NODEID": str(rank), "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"}
    tasks.append(subprocess.Popen(["ip", "netns", "exec", name, *words], env={**os.environ, **own}))
signal.signal(signal.SIGUSR1, lambda number, _: [task.send_signal(number) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """
import os, sys
with open(os.environ["QUEUED"], "a") as stream:
    print(*sys.argv[1:], file=stream)
"""


def start_nodes(
    namespaces: Sequence[str], folder: Path, variables: Callable[[int], Mapping[str, str]], *options: str
) -> list[Started]:
    """The same command line on each node, with a shared folder of results."""
    return [
        launch(
            *SMALL, "--gpus", "1", "--nnodes", "auto", "--results", str(folder), "--run-name", "it", *options,
            prefix=("ip", "netns", "exec", name), environment={**os.environ, **variables(rank)},
        )
        for rank, name in enumerate(namespaces)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that two nodes make, on two ranks of one."""
    made = run(tmp_path_factory.mktemp("local"), *SMALL, "--gpus", "2", "--data", str(colours), "--epochs", "3")
    assert made.code == 0, made.err
    return made


@pytest.mark.parametrize(
    ("variables", "started", "job"),
    [
        (slurm, "Slurm, job 4127", {"launcher": "Slurm", "job": "4127"}),
        (lambda rank: {**open_mpi(rank), "MASTER_ADDR": MASTER}, "Open MPI", {"launcher": "Open MPI", "job": ""}),
        (lambda rank: kubernetes(rank, master=MASTER), "Kubernetes, job pplcnet",
         {"launcher": "Kubernetes", "job": "pplcnet"}),
    ],
    ids=["slurm", "mpi", "kubernetes"],
)  # fmt: skip
def test_nodes_that_a_scheduler_started_learn_what_two_ranks_of_one_do(
    namespaces: tuple[str, str], colours: Path, tmp_path: Path, local: Run,
    variables: Callable[[int], Mapping[str, str]], started: str, job: Mapping[str, str],
) -> None:  # fmt: skip
    """As with explicit options, see test_nodes.py."""
    nodes = start_nodes(namespaces, tmp_path, variables, "--data", str(colours), "--epochs", "3")
    ended = [node.end() for node in nodes]
    assert [one.code for one in ended] == [0, 0], ended
    for rank, one in enumerate(ended):
        first = one.out.splitlines()[0]
        assert first.startswith(f"started by {started}: node {rank} of 2; node 0 is {MASTER}:2"), first
    files = RunFiles(tmp_path, "it")
    assert result_of(files).differs(result_of(local.files)) == []
    assert [attempt["started_by"] for attempt in read_record(files.record).attempts] == [job]


def test_a_signal_to_one_node_has_all_of_them_save_and_end_with_75(
    namespaces: tuple[str, str], colours: Path, tmp_path: Path, local: Run
) -> None:
    """To its launching process alone, then to each process of a node; the job comes back and ends as if undisturbed."""
    options = ("--data", str(colours), "--epochs", "3", "--resume", "--checkpoint-minutes", "60")
    files = RunFiles(tmp_path, "it")

    def stopped(rows: int, rank: int, stop: Callable[[Started], None]) -> None:
        nodes = start_nodes(namespaces, tmp_path, slurm, *options)
        wait_for_steps(files, rows, nodes[0])
        stop(nodes[rank])
        ended = [node.end(60) for node in nodes]
        assert [one.code for one in ended] == [75, 75], ended
        said = [one.err.splitlines()[1] for one in ended]
        assert re.fullmatch(r"  A checkpoint after step \d+ was saved. To resume:", said[0]), ended
        assert said[1] == "  Node 0 says what was saved. To go on:"
        assert all("each node's own command line with --resume it" in one.err for one in ended)

    def everywhere(node: Started) -> None:
        process = psutil.Process(node.pid)
        for one in (process, *process.children(recursive=True)):
            one.send_signal(signal.SIGTERM)

    stopped(1, 1, lambda node: node.send_signal(signal.SIGUSR2))
    made = newest_checkpoint(files.checkpoints)
    assert made is not None
    stopped(len(read_table(files.table("steps"), STEPS)) + 1, 0, everywhere)
    ended = [node.end() for node in start_nodes(namespaces, tmp_path, slurm, *options)]
    assert [one.code for one in ended] == [0, 0], ended
    assert result_of(files).differs(result_of(local.files)) == []


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script: Slurm's commands are stand-ins."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
        (commands / name).chmod(0o755)
    return {
        **os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHON": sys.executable,
        "QUEUED": str(tmp_path / "queued"), "SLURM_JOB_ID": "4127",
    }  # fmt: skip


def test_a_job_of_slurm_is_queued_again_and_goes_on_with_fewer_nodes_and_with_more(
    namespaces: tuple[str, str], tmp_path: Path, cluster: dict[str, str]
) -> None:
    """examples/slurm.sh: its time is up within epoch 2, then within epoch 3; another number of nodes goes on each time.

    240 images; a step has 8 on two nodes and 4 on one. What the other devices began is made again.
    """
    data = write_noise(tmp_path / "data", 240, 16)
    files = RunFiles(tmp_path / "results", "job-4127")
    command = ["bash", "examples/slurm.sh", *SMALL, "--gpus", "1", "--data", str(data), "--epochs", "3", "--results",
               str(files.folder), "--image-size", "96"]  # fmt: skip

    def job(nodes: Sequence[str], until_epoch: int | None) -> tuple[int, str]:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**cluster, "NODES": ",".join(nodes)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while until_epoch and not _is_within(files, until_epoch) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        if until_epoch:
            process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=120)
        assert process.returncode == (75 if until_epoch else 0), err
        return _steps_within(files), " ".join(out.split())

    lost, _ = job(namespaces, 2)
    lost_again, said = job(namespaces[:1], 3)
    assert "started by Slurm, job 4127: the only node" in said
    assert f"note: {lost} steps of epoch 2 will be made again, as 1 device can't continue within an epoch of 2" in said
    _, said = job(namespaces, None)
    assert "started by Slurm, job 4127: node 0 of 2" in said
    again = f"{lost_again} steps of epoch 3 will be made again, as 2 devices can't continue within an epoch of 1"
    assert f"note: {again}" in said
    assert (tmp_path / "queued").read_text() == "requeue 4127\n" * 2

    record = read_record(files.record)
    assert again in record.warnings
    # As many as its own devices would have made: 30 in epoch 1, 60 in each of epochs 1 and 2.
    assert [(one["ranks"], one["step"]) for one in record.attempts] == [(2, 0), (1, 30), (2, 120)]
    steps = read_table(files.table("steps"), STEPS)
    train = steps[steps["phase"] == TRAIN]
    assert train.groupby("epoch").size().to_dict() == {1: 30, 2: 60, 3: 30}
    assert train.groupby("epoch")["images"].unique().map(list).to_dict() == {1: [8], 2: [4], 3: [8]}
    assert read_table(files.table("epochs"), EPOCHS)["images"].tolist() == [240, 240, 240]


def _steps_within(files: RunFiles) -> int:
    """The steps of the epoch that the newest checkpoint is within, 0 at an epoch's start."""
    newest = newest_checkpoint(files.checkpoints)
    assert newest is not None
    return int(newest[1]["progress"]["steps"])


def _is_within(files: RunFiles, epoch: int) -> bool:
    """Whether a run has recorded a step of that epoch."""
    path = files.table("steps")
    if not path.exists():
        return False
    steps = read_table(path, STEPS)
    return bool(((steps["phase"] == TRAIN) & (steps["epoch"] == epoch)).any())
