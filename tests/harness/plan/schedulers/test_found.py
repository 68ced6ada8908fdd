"""`--nnodes auto`: what each scheduler and launcher says, and what is refused because it can't be right."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main, parse
from harness.errors import TrainingError, UsageError
from harness.plan.declaration import AUTO
from harness.plan.nodes import find_node
from harness.plan.options import RunConfig
from harness.plan.schedulers.found import find_place, placed
from harness.plan.schedulers.place import Place
from tests.support.started import hydra, kubeflow, kubernetes, open_mpi, paddle, slurm, slurm_script, torchrun

GPUS = "gpu[01-02]"
IN_SLURM = {"SLURM_JOB_ID": "4127", "SLURM_JOB_NODELIST": GPUS, "SLURM_JOB_NUM_NODES": "2"}


def without(variables: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}


@pytest.mark.parametrize(
    ("environment", "launcher", "job", "master"),
    [
        (slurm(1, GPUS), "Slurm", "4127", "gpu01:24127"),
        ({**slurm(1, GPUS), "SLURMD_NODENAME": "gpu02"}, "Slurm", "4127", "gpu01:24127"),
        # A step on some of a job's nodes.
        ({**slurm(1, "gpu[07-08]"), "SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_NODELIST": "gpu[05-08]"}, "Slurm", "4127",
         "gpu07:24127"),
        # What older versions set.
        (without(slurm(1, GPUS), "SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"), "Slurm",
         "4127", "gpu01:24127"),
        # srun --mpi=pmi2
        ({**slurm(1, GPUS), "PMI_RANK": "1", "PMI_SIZE": "2"}, "Slurm", "4127", "gpu01:24127"),
        ({**slurm(1, GPUS), "MASTER_ADDR": "gpu01-ib", "MASTER_PORT": "7000"}, "Slurm", "4127", "gpu01-ib:7000"),
        # A script that counts the ranks of other tools.
        ({**slurm(1, GPUS), "WORLD_SIZE": "8"}, "Slurm", "4127", "gpu01:24127"),
        ({**slurm(1, GPUS), "WORLD_SIZE": "2", "RANK": "1"}, "Slurm", "4127", "gpu01:24127"),
        ({**open_mpi(1), "MASTER_ADDR": "10.0.0.1"}, "Open MPI", "", "10.0.0.1:20000"),
        # mpirun in a job of Slurm: the daemon that started this is a step of one task on the second node.
        ({**open_mpi(1), **IN_SLURM, "SLURM_STEP_ID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1"},
         "Open MPI", "4127", "gpu01:24127"),
        ({**hydra(1), "MASTER_ADDR": "10.0.0.1"}, "MPICH or Intel MPI", "", "10.0.0.1:20000"),
        ({**hydra(1), **IN_SLURM}, "MPICH or Intel MPI", "4127", "gpu01:24127"),
        # torchrun's own store may be at MASTER_PORT.
        (torchrun(1), "torchrun", "77", "10.0.0.1:20077"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7000"}, "torchrun", "", "a:7000"),
        (kubernetes(1), "Kubernetes", "pplcnet", f"pplcnet-0.pplcnet:{20000 + zlib.crc32(b'pplcnet') % 10000}"),
        (kubeflow(1), "Kubeflow", "", "train-master-0:23456"),
        (kubeflow(1, ranks_per_pod=8), "Kubeflow", "", "train-master-0:23456"),
        # Kubeflow's newer operator makes Indexed Jobs.
        ({"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "t-0", "PET_MASTER_PORT": "29400",
          "JOB_COMPLETION_INDEX": "1"}, "Kubeflow", "", "t-0:29400"),
        (paddle(1), "Paddle", "", "10.0.0.1:6170"),
    ],
)  # fmt: skip
def test_node_1_of_2_is_found(environment: dict[str, str], launcher: str, job: str, master: str) -> None:
    given, place = placed({"nnodes": AUTO, "epochs": 3}, environment)
    assert given == {"nnodes": 2, "node_rank": 1, "master": master, "epochs": 3}
    assert place is not None
    assert (place.launcher, place.job, place.count, place.rank) == (launcher, job, 2, 1)


def test_both_nodes_have_the_same_master() -> None:
    for made in (slurm, torchrun, kubernetes, kubeflow, paddle):
        masters = {placed({"nnodes": AUTO}, made(rank))[0]["master"] for rank in (0, 1)}
        assert len(masters) == 1


def test_jobs_that_run_at_once_have_ports_of_their_own() -> None:
    ports = {Place("Slurm", 2, 0, str(job)).master_port for job in range(4127, 4127 + 10000)}
    assert ports == set(range(20000, 30000))


@pytest.mark.parametrize(
    "environment",
    [
        slurm(0, "gpu01", 1), slurm_script(1), {**slurm_script(1), "SLURM_STEP_ID": "4294967290"},
        open_mpi(0, 1), hydra(0, 1), torchrun(0, 1), kubernetes(0, 1), kubeflow(0, 1), paddle(0, 1),
    ],
)  # fmt: skip
def test_one_node_is_a_plain_run(environment: dict[str, str]) -> None:
    """Whatever the command line says of the others, which it may have had before."""
    given, place = placed({"nnodes": AUTO, "master": "a:1", "node_rank": 0}, environment)
    assert given == {"nnodes": 1}
    assert place is not None
    assert (place.count, place.rank) == (1, 0)
    assert find_node(RunConfig(**given), place).is_alone


def test_what_is_given_wins_where_it_agrees() -> None:
    given, _ = placed({"nnodes": AUTO, "node_rank": 1, "master": "10.1.1.1:99"}, slurm(1, GPUS))
    assert given == {"nnodes": 2, "node_rank": 1, "master": "10.1.1.1:99"}
    assert placed({"nnodes": 2, "node_rank": 1}, slurm(0, GPUS)) == ({"nnodes": 2, "node_rank": 1}, None)


REFUSED: list[tuple[dict[str, str], str, str]] = [
    ({}, "no scheduler or launcher has started this", "srun"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE says 2 nodes, and nothing says which this one is", "RANK"),
    ({**slurm(1, GPUS), "WORLD_SIZE": "2", "RANK": "0"},
     "Slurm says node 1 of 2 (SLURM_NNODES, SLURM_NODEID), torchrun says node 0 of 2 (WORLD_SIZE, RANK)", "Unset"),
    ({**kubernetes(0), "RANK": "0", "OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"},
     "Open MPI says node 0 of 3 (OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_RANK), torchrun says node 0 of 2", "Unset"),
    ({"WORLD_SIZE": "2", "RANK": "2"}, "torchrun says node 2 of 2; numbers begin with 0", "RANK"),
    ({"WORLD_SIZE": "0", "RANK": "0"}, "torchrun says that there are 0 nodes (WORLD_SIZE)", "WORLD_SIZE"),
    ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two', which is not a whole number", "WORLD_SIZE"),
    ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1', which is not a whole number", "RANK"),
    ({"PET_NNODES": "1:4", "PET_NODE_RANK": "0"}, "PET_NNODES is '1:4', which is not a whole number", "PET_NNODES"),
    ({"RANK": "0"}, "WORLD_SIZE is not set, though others of its launcher's variables are", "WORLD_SIZE"),
    ({"PADDLE_NNODES": "2", "PADDLE_MASTER": "a:1"}, "PADDLE_RANK is not set", "PADDLE_RANK"),
    ({**slurm(1, GPUS), "SLURM_STEP_NUM_TASKS": "8"}, "Slurm started 4 tasks on this node",
     "srun --ntasks-per-node=1"),
    ({**slurm(0, "gpu01", 1), "SLURM_LOCALID": "1"}, "Slurm started 2 tasks on this node", "--ntasks-per-node=1"),
    (open_mpi(1, 8, local=4), "Open MPI started 4 tasks on this node", "mpirun --map-by ppr:1:node"),
    (hydra(1, 8, local=4), "MPICH or Intel MPI started 4 tasks on this node", "-ppn 1"),
    (torchrun(1, 8, local=4), "torchrun started 4 tasks on this node", "--nproc-per-node=1"),
    (slurm_script(2), "Slurm job 4127 has 2 nodes, and only its script or shell has started this", "srun"),
    ({**slurm_script(2), "SLURM_STEP_ID": "4294967290"}, "Slurm job 4127 has 2 nodes, and only its", "srun"),
    (slurm(1, "gpu[01-03]"), "Slurm's list has 3 nodes (gpu01, gpu02, gpu03), its count is 2", "SLURM"),
    ({**slurm(1, GPUS), "SLURMD_NODENAME": "gpu09"}, "this is node gpu09, which is not in Slurm's list (gpu01, gpu02)",
     "SLURM"),
    (slurm(1, "gpu[01-"), "SLURM_STEP_NODELIST is 'gpu[01-', which is not a list of nodes (no comma at '[01-')",
     "--master"),
    (open_mpi(1), "Open MPI doesn't say which machine is node 0 of 2", "mpirun -x MASTER_ADDR"),
    (without(kubernetes(1), "MASTER_ADDR"), "Kubernetes doesn't say which machine is node 0 of 2", "MASTER_ADDR"),
    (without(kubernetes(1), "WORLD_SIZE"), "this is pod 1 of an Indexed Job, and WORLD_SIZE, the number of its pods",
     "completions"),
    ({**slurm(1, GPUS), "MASTER_PORT": "99999"}, "MASTER_PORT is 99999, which is not a port from 1 to 65535", "Unset"),
    ({**slurm(1, GPUS), "MASTER_PORT": "tcp://10.0.0.1:80"}, "MASTER_PORT is 'tcp://10.0.0.1:80', which is not a",
     "MASTER_PORT"),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "said", "cure"), REFUSED)
def test_a_contradiction_is_refused_in_one_line_with_a_cure(environment: dict[str, str], said: str, cure: str) -> None:
    with pytest.raises(UsageError) as caught:
        placed({"nnodes": AUTO}, environment)
    assert caught.value.message.startswith(f"--nnodes auto: {said}")
    assert "\n" not in caught.value.message + caught.value.cure
    assert cure in caught.value.cure
    assert caught.value.exit_code == 2


def test_a_master_of_paddle_s_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"PADDLE_MASTER 10\.0\.0\.1 is not a HOST:PORT"):
        find_place({**paddle(1), "PADDLE_MASTER": "10.0.0.1"})


def test_a_number_of_this_node_that_differs_is_refused() -> None:
    with pytest.raises(UsageError, match="--node-rank is 0, but Slurm says that this is node 1") as caught:
        placed({"nnodes": AUTO, "node_rank": 0}, slurm(1, GPUS))
    assert caught.value.cure == "Omit --node-rank, or give --nnodes as a number."


def test_the_command_line_refuses_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in slurm_script(2).items():
        monkeypatch.setenv(name, value)
    assert main(["--nnodes", "auto"]) == 2
    assert capsys.readouterr().err == (
        "error: --nnodes auto: Slurm job 4127 has 2 nodes, and only its script or shell has started this\n"
        "  Start it on every node: srun --ntasks-per-node=1 python run_bench.py ...\n"
    )


def test_a_dry_run_says_who_started_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in slurm(1, GPUS).items():
        monkeypatch.setenv(name, value)
    assert main(["--nnodes", "auto", "--dry-run", "--data", "digits", "--device", "cpu", "--gpus", "1"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "started by Slurm, job 4127: node 1 of 2; node 0 is gpu01:24127"


def test_auto_is_found_out_before_a_configuration_is_made() -> None:
    values: Any = {"nnodes": AUTO}
    with pytest.raises(UsageError, match="--nnodes auto is for a command line, and this is none"):
        RunConfig(**values)


def test_a_file_may_have_it_as_well(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('nnodes = "auto"\nepochs = 3\n', encoding="utf-8")
    given, _ = placed(parse(["--config", str(file)])[0], slurm(1, GPUS))
    assert given == {"nnodes": 2, "node_rank": 1, "master": "gpu01:24127", "epochs": 3}


def test_a_master_whose_name_is_unknown_is_refused() -> None:
    given, place = placed({"nnodes": AUTO}, {**slurm(1, GPUS), "MASTER_ADDR": "no.such.host.invalid"})
    with pytest.raises(UsageError, match=r"'no\.such\.host\.invalid' has no IPv4 address"):
        find_node(RunConfig(**given), place)


def addresses(monkeypatch: pytest.MonkeyPatch, known: Mapping[str, str]) -> None:
    """Let the names of nodes have these addresses."""

    def answer(host: str, port: int, *_: object) -> Any:
        if host not in known:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_a_name_that_leads_to_this_machine_alone_is_not_what_others_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Debian's /etc/hosts: node 0 takes its address on the way to another node of the list."""
    addresses(monkeypatch, {"gpu01": "127.0.1.1", "gpu02": "10.0.0.2"})
    monkeypatch.setattr("harness.plan.nodes.route_to", lambda number, _: {"10.0.0.2": "127.0.0.1"}.get(number, number))
    given, place = placed({"nnodes": AUTO}, slurm(0, GPUS))
    assert find_node(RunConfig(**given), place).meeting_place == "127.0.0.1:24127"


def test_it_is_refused_where_no_other_node_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, {"gpu01": "127.0.1.1"})
    given, place = placed({"nnodes": AUTO}, {**open_mpi(0), "MASTER_ADDR": "gpu01"})
    with pytest.raises(UsageError, match=r"--master gpu01:20000 is 127\.0\.1\.1 on this machine, where no other node"):
        find_node(RunConfig(**given), place)


def test_the_name_of_a_pod_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods start in any order, and a name server may know node 0's a little later."""
    answers: list[Any] = [socket.gaierror("not yet"), socket.gaierror("not yet"), None]

    def answer(host: str, port: int, *_: object) -> Any:
        if (error := answers.pop(0)) is not None:
            raise error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr("harness.plan.nodes.NAME_SECONDS", 0.01)
    said: list[str] = []
    given, place = placed({"nnodes": AUTO}, {**kubernetes(1), "MASTER_PORT": "6170"})
    node = find_node(RunConfig(**given), place, said.append)
    assert node.meeting_place == "127.0.0.1:6170"
    assert said == ["waiting up to 300 s for an address of pplcnet-0.pplcnet"]


def test_a_name_of_a_pod_that_does_not_come_ends_the_wait() -> None:
    given, place = placed({"nnodes": AUTO}, kubernetes(1, master="no.such.host.invalid"))
    with pytest.raises(TrainingError, match=r"not all of the 2 nodes joined at no\.such\.host\.invalid:\d+ within 0"):
        find_node(RunConfig(**given, rendezvous_timeout=0.01), place)
