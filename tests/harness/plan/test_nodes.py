"""Options of several nodes, what a node passes on to its launcher, and what the nodes of a run must agree on."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MachineError, UsageError
from harness.plan.nodes import Node, check_signatures, find_node, interface_of, route_to, run_signature
from harness.plan.options import RunConfig
from harness.plan.plan import facts_of
from pipelines.dataset import open_dataset
from tests.support.data_sets import write_colours
from tests.support.plans import DIGITS, a_config, a_plan


def several(**changes: object) -> RunConfig:
    asked: dict[str, object] = {"nnodes": 2, "master": "127.0.0.1:6170", "node_rank": 0, **changes}
    return RunConfig(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"master": None}, "--nnodes 2 needs --master"),
        ({"node_rank": None}, "--nnodes 2 needs --node-rank"),
        ({"node_rank": None, "master": None}, "--nnodes 2 needs --master and --node-rank"),
        ({"node_rank": 2}, "--node-rank is 2; with --nnodes 2 it must be at most 1"),
        ({"node_rank": -1}, "--node-rank is -1; it must be at least 0"),
        ({"nnodes": 0}, "--nnodes is 0; it must be at least 1"),
        ({"nnodes": 1}, "--master 127.0.0.1:6170 is for a run on several nodes, and --nnodes is 1"),
        ({"nnodes": 1, "master": None}, "--node-rank 0 is for a run on several nodes, and --nnodes is 1"),
        *(({"master": text}, f"--master {text} is not a HOST:PORT with a port from 1 to 65535")
          for text in ("host", "host:", ":6170", "host:0", "host:65536", "host:x", "::1:6170", "host:-1")),
        ({"rendezvous_timeout": 0.0}, "--rendezvous-timeout is 0.0; it must be above 0"),
        ({"repeats": 2}, "--repeats 2 runs on one node only, but --nnodes is 2"),
        ({"device_counts": "1,2", "throughput_only": True}, "--device-counts runs on one node only, but --nnodes is 2"),
        ({"auto_batch": True},
         "--auto-batch finds the batch size of one run on one node; it can't be used with --nnodes"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_together_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        several(**changes)
    assert caught.value.message.startswith(said)


def test_a_machine_alone_is_node_0_of_one() -> None:
    node = find_node(RunConfig())
    assert (node.is_alone, node.records, node.first_rank(4)) == (True, True, 0)


def test_a_machine_alone_needs_no_name() -> None:
    """Case C4: its ranks meet on the loopback interface, whatever the host's name resolves to. NCCL chooses itself."""
    node = find_node(RunConfig())
    assert node.launcher_options() == ["--host", "127.0.0.1"]
    assert node.environment({"NO_PROXY": "a"}) == {"NO_PROXY": "a", "GLOO_SOCKET_IFNAME": "lo"}
    assert node.environment({"GLOO_SOCKET_IFNAME": "eth3"}) == {"GLOO_SOCKET_IFNAME": "eth3"}


def test_a_node_knows_its_address_and_interface() -> None:
    node = find_node(several(node_rank=1))
    assert node == Node(2, 1, ("127.0.0.1", 6170), "127.0.0.1", "lo")
    assert route_to("127.0.0.1", 6170) == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"


def test_the_launcher_and_the_libraries_get_addresses() -> None:
    node = Node(2, 1, ("10.0.0.1", 6170), "10.0.0.2", "eth1")
    assert node.launcher_options() == [
        "--nnodes", "2", "--master", "10.0.0.1:6170", "--rank", "1", "--host", "10.0.0.2"
    ]  # fmt: skip
    passed = node.environment({"NO_PROXY": "localhost", "GLOO_SOCKET_IFNAME": "ib0"})
    assert passed == {
        "NO_PROXY": "localhost,10.0.0.1", "no_proxy": "10.0.0.1",
        "GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "=eth1",
    }  # fmt: skip
    assert node.environment(passed) == passed
    assert node.environment({})["GLOO_SOCKET_IFNAME"] == "eth1"
    assert node.environment({"NCCL_SOCKET_IFNAME": "ib"})["NCCL_SOCKET_IFNAME"] == "ib"


def test_a_master_that_is_elsewhere_is_refused_on_node_0() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:6170 (is not an address of this|can't be reached)"):
        find_node(several(master="192.0.2.1:6170"))


def test_a_master_without_an_address_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'no\.such\.host\.invalid' has no IPv4 address"):
        find_node(several(master="no.such.host.invalid:6170"))


def test_a_port_that_is_taken_is_refused_on_node_0() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(MachineError, match=f"can't listen on port {port} of --master "):
            find_node(several(master=f"127.0.0.1:{port}"))


def test_what_is_a_node_s_own_may_differ() -> None:
    moved = replace(DIGITS, source="/mnt/digits", name="moved")
    first = run_signature(a_config(), a_plan(nodes=2))
    second = run_signature(
        a_config(results="elsewhere", data="/mnt/digits"),
        a_plan(
            nodes=2,
            data=moved,
            decode_threads=4,
            compute_threads=2,
            telemetry_interval=1.0,
            telemetry_library="lib.so",
            affinity="pin",
            rank_cores=("0-3", "4-7"),
            notes=("one",),
        ),
    )
    check_signatures([first, second], [0, 1])
    assert (first["ranks"], first["nodes"], first["train_images"], first["kind"]) == (2, 2, 1347, "epochs")


def test_so_it_may_where_two_loaders_are_measured() -> None:
    plans = [a_plan(nodes=2, compares_loaders=True, decode_threads=count, workers=count) for count in (1, 4)]
    check_signatures([run_signature(a_config(), plan) for plan in plans], [0, 1])


def test_every_difference_is_named_with_both_values() -> None:
    first = run_signature(a_config(), a_plan(nodes=2))
    second = run_signature(a_config(), a_plan(nodes=2, ranks=4, learning_rate=0.05, momentum=0.8))
    with pytest.raises(UsageError) as caught:
        check_signatures([first, first, second], [0, 0, 1])
    assert caught.value.cure.splitlines()[:-1] == [
        "--learning-rate: 0.025 on node 0, 0.05 on node 1",
        "--momentum: 0.9 on node 0, 0.8 on node 1",
        "ranks (--gpus times --nnodes): 2 on node 0, 4 on node 1",
    ]


@pytest.mark.parametrize("what", ["labels", "order"])
def test_nodes_whose_lists_differ_are_refused(tmp_path: Path, what: str) -> None:
    """Case B9: the same counts with other labels, or in another order, would train on nonsense."""
    facts = []
    for place in ("here", "there"):
        write_colours(tmp_path / place)
        lines = sorted(
            f"{path.relative_to(tmp_path / place)} {number % 3}"
            for number, path in enumerate(sorted((tmp_path / place).rglob("*.jpg")))
        )
        if place == "there":
            lines = lines[::-1] if what == "order" else [line[:-1] + str((int(line[-1]) + 1) % 3) for line in lines]
        for split in ("train", "val"):
            (tmp_path / place / f"{split}_list.txt").write_text("\n".join(lines))
        facts.append(facts_of(open_dataset(str(tmp_path / place), 3), place))
    signatures = [run_signature(a_config(), a_plan(nodes=2, data=data)) for data in facts]
    with pytest.raises(UsageError) as caught:
        check_signatures(signatures, [0, 1])
    (line, cure) = caught.value.cure.splitlines()
    assert line.startswith("--data (digest of the names, order and labels of all images): ")
    assert cure == "Start every node with the same options and data, except for --node-rank."
