"""Two nodes: network namespaces of this machine, joined by a virtual cable, each with Paddle's launcher.

Who finds, misses or loses the other is between the launchers' store and the ranks' connections.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness import ROOT
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.record import RunFiles, read_record, write_record
from harness.artifacts.schema import EPOCHS, STEPS
from harness.artifacts.tables import read_table
from tests.support.accelerator import Accelerator
from tests.support.namespaces import MASTER, OTHER, ip, needs_namespaces
from tests.support.plans import a_record
from tests.support.results import result_of
from tests.support.runs import fork, run

PORT = 6170
SMALL = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "4", "--compute-threads", "1")
LEARNT = ["epoch", "images", "train_loss", "val_loss", "top1", "top5", "learning_rate"]


@dataclass(frozen=True)
class Started:
    """A node's process and its folder."""

    process: subprocess.Popen[str]
    folder: Path

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=90)
        return self.process.returncode, out, err

    def tree(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]


def start(
    namespace: str,
    rank: int,
    folder: Path,
    *options: str,
    more: Mapping[str, str] = {},
    small: Sequence[str] = (*SMALL, "--gpus", "1"),
) -> Started:
    own = folder / str(rank)
    # A proxy that nobody runs: the launchers' store would ask it for the master.
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9", **more}
    command = [sys.executable, str(ROOT / "run_bench.py"), "--results", str(own), "--run-name", "it", *small,
               "--nnodes", "2", "--master", f"{MASTER}:{PORT}", "--node-rank", str(rank)]  # fmt: skip
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *command, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    return Started(process, own)


def start_both(namespaces: tuple[str, str], folder: Path, *options: str, more: Mapping[str, str] = {}) -> list[Started]:
    return [start(name, rank, folder, *options, more=more) for rank, name in enumerate(namespaces)]


def start_endless(namespaces: tuple[str, str], colours: Path, folder: Path, *options: str) -> list[Started]:
    """Two nodes that have recorded some steps and have many to go."""
    nodes = start_both(namespaces, folder, "--data", str(colours), "--epochs", "5000", *options)
    steps, deadline = folder / "0" / "it.steps.csv", time.monotonic() + 60
    while (not steps.exists() or steps.read_bytes().count(b"\n") < 12) and time.monotonic() < deadline:
        time.sleep(0.1)
    return nodes


def newest(node: Started) -> str | None:
    """The name of node 0's newest checkpoint."""
    found = newest_checkpoint(node.folder / "it.checkpoints")
    return None if found is None else found[0]


def wait_for_later_checkpoint(node: Started, than: str | None) -> str:
    """Return the name of a checkpoint of node 0 that is newer, as soon as there is one."""
    deadline = time.monotonic() + 90
    while (name := newest(node)) == than or name is None:
        assert node.process.poll() is None, node.end()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return name


@needs_namespaces
@pytest.mark.whole_run
def test_two_nodes_that_are_killed_learn_what_two_ranks_of_one_do(
    namespaces: tuple[str, str], colours: Path, tmp_path: Path
) -> None:
    """Case B9: node 1 is killed, the run resumes with one more epoch, node 0 is killed, and it resumes to its end.

    The epochs before the last one warm the learning rate up, so that their number makes no difference to them.
    """
    asked = ("--data", str(colours), "--epochs", "6", "--lr-warmup-epochs", "6")
    more = ("--resume", "--epochs", "7")
    private = tmp_path / "private"
    private.mkdir()
    started = {"TMPDIR": str(private)}

    nodes = [start(name, rank, tmp_path, *asked, more=started if rank else {}) for rank, name in enumerate(namespaces)]
    first = wait_for_later_checkpoint(nodes[0], None)
    # What node 1 shows of the run.
    (followed,) = private.glob("pplcnet-bench-node-*/it.steps.csv")
    assert {"train", "evaluate"} <= set(read_table(followed, STEPS)["phase"])
    for process in nodes[1].tree():
        process.send_signal(signal.SIGKILL)
    code, _, err = nodes[0].end()
    assert code == 5
    assert err.startswith(f"error: a node was lost: the connection of rank 0 to another node ({OTHER}) broke\n")
    assert "each node's own command line with --resume it" in err
    nodes[1].process.communicate()

    # Node 1 needs no more than the way to node 0, its own data and devices.
    own = ("--data", str(colours), "--device", "cpu", "--gpus", "1", "--compute-threads", "1")
    nodes = start_resumed(namespaces, tmp_path, more, own)
    wait_for_later_checkpoint(nodes[0], first)
    for process in nodes[0].tree():
        process.send_signal(signal.SIGKILL)
    code, _, err = nodes[1].end()
    assert code == 5
    assert err.startswith(f"error: a node was lost: the connection of rank 1 to another node ({MASTER}) broke\n")
    nodes[0].process.communicate()

    nodes = start_resumed(namespaces, tmp_path, ("--resume", "it"), own)
    (code, out, err), (other_code, other_out, other_err) = (node.end() for node in nodes)
    assert (code, other_code) == (0, 0), err + other_err
    # One folder of results, node 0's.
    assert not (nodes[1].folder / "it.json").exists()
    assert f"node 1 is done; node 0 ({MASTER}) has the tables" in other_out
    assert "top-1" not in other_out
    assert "top-1" in out
    record = json.loads((nodes[0].folder / "it.json").read_text())
    assert (record["plan"]["ranks"], record["plan"]["nodes"], len(record["attempts"])) == (2, 2, 3)
    assert record["summary"]["devices"] == 2
    assert len(list(nodes[0].folder.glob("table-cpux2-*"))) == 1

    alone = run(tmp_path / "alone", *SMALL, "--gpus", "2", *asked, "--epochs", "7")
    assert alone.code == 0, alone.err
    assert result_of(RunFiles(nodes[0].folder, "it")).differs(result_of(alone.files)) == []

    # A finished run that is started again ends at once, on every node.
    for node in start_both(namespaces, tmp_path, *asked, *more):
        code, out, err = node.end()
        assert (code, out.splitlines()[-1:], err) == (0, ["nothing to resume: the run is finished"], "")


def start_resumed(
    namespaces: tuple[str, str], folder: Path, first: tuple[str, ...], second: tuple[str, ...]
) -> list[Started]:
    """Two nodes with these options of their own, but none of the run's."""
    return [
        start(name, rank, folder, *options, small=())
        for rank, (name, options) in enumerate(zip(namespaces, (first, second), strict=True))
    ]


@needs_namespaces
@pytest.mark.whole_run
def test_two_nodes_of_a_plugin_s_devices_do_so_too(
    namespaces: tuple[str, str], colours: Path, tmp_path: Path, accelerator: Accelerator
) -> None:
    options = ("--data", str(colours), "--epochs", "1")
    nodes = start_both(namespaces, tmp_path, *options, "--device", "standin", more=accelerator.environment())
    (code, _, err), (other_code, _, other_err) = (node.end() for node in nodes)
    assert (code, other_code) == (0, 0), err + other_err
    local = run(tmp_path / "local", *SMALL, "--gpus", "2", *options)
    there, here = (read_table(folder / "it.epochs.csv", EPOCHS) for folder in (nodes[0].folder, local.folder))
    assert there[LEARNT].to_csv() == here[LEARNT].to_csv()


@needs_namespaces
@pytest.mark.whole_run
def test_nodes_that_mean_other_runs_end_with_what_differs(
    namespaces: tuple[str, str], colours: Path, tmp_path: Path
) -> None:
    first = start(namespaces[0], 0, tmp_path, "--data", str(colours), "--epochs", "2")
    second = start(namespaces[1], 1, tmp_path, "--data", str(colours), "--epochs", "3", "--seed", "4")
    for node in (first, second):
        code, _, err = node.end()
        assert code == 2
        assert re.match("error: (node 0 ended: )?node 1 was started for a different run than node 0\n", err), err
        assert "  --epochs: 2 on node 0, 3 on node 1\n" in err
        assert "  --seed: 0 on node 0, 4 on node 1\n" in err


@pytest.mark.whole_run
def test_what_node_0_refuses_ends_the_others_before_their_ranks_start(colours: Path, tmp_path: Path) -> None:
    """Case B9: a name that is taken, and one epoch too many for a finished run; both nodes are on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        way = ("--nnodes", "2", "--master", f"127.0.0.1:{server.getsockname()[1]}", "--data", str(colours))
    write_record(tmp_path / "it.json", a_record(run="it", status="finished"))
    for options, said in (
        ((), "it.json exists already"),
        (("--resume", "--epochs", "400"), "run 'it' finished after 20 epochs with a learning rate of 0"),
    ):
        named = (*SMALL, *way, "--gpus", "1", "--results", str(tmp_path), "--run-name", "it", *options)
        nodes = [fork(*named, "--node-rank", str(rank)) for rank in (0, 1)]
        (code, _, err), (other_code, _, other_err) = ((end.code, end.out, end.err) for end in (n.end() for n in nodes))
        assert (code, other_code) == (2, 2)
        assert said in err
        assert other_err == err.replace("error: ", "error: node 0 ended: ", 1)
    assert read_record(tmp_path / "it.json").status == "finished"


@needs_namespaces
@pytest.mark.whole_run
def test_a_node_that_does_not_come_is_not_waited_for_for_good(
    namespaces: tuple[str, str], colours: Path, tmp_path: Path
) -> None:
    node = start(namespaces[0], 0, tmp_path, "--data", str(colours), "--epochs", "2", "--rendezvous-timeout", "4")
    code, _, err = node.end()
    assert code == 5
    assert err.startswith(f"error: not all of the 2 nodes joined at {MASTER}:{PORT} within 4 s: node 1 has not come\n")
    assert "--nnodes" in err


@needs_namespaces
@pytest.mark.whole_run
def test_a_network_that_is_gone_ends_both_nodes(namespaces: tuple[str, str], colours: Path, tmp_path: Path) -> None:
    """Nothing tells them; what ends them is the limit without a step."""
    nodes = start_endless(namespaces, colours, tmp_path, "--stall-timeout", "5")
    ip("-n", namespaces[1], "link", "set", "cable1", "down")
    try:
        for rank, node in enumerate(nodes):
            code, _, err = node.end()
            assert code == 5
            assert err.startswith(f"error: no step for 5 s: rank {rank}: harness/")
            assert "the network between them" in err
    finally:
        ip("-n", namespaces[1], "link", "set", "cable1", "up")
