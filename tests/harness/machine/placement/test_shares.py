"""The shares of ranks on made-up machines."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from harness.machine.placement.core_lists import format_cores, parse_cores
from harness.machine.placement.shares import share_cores
from harness.machine.placement.topology import PhysicalCore, Topology, read_topology
from tests.support.made_up_machines import two_sockets, write, write_machine


def machine(*nodes: Iterable[tuple[int, ...]]) -> Topology:
    """A machine whose nodes, from 0 on, have these physical cores."""
    return Topology(tuple(PhysicalCore(node, node, core) for node, cores in enumerate(nodes) for core in cores))


def shared(topology: Topology, allowed: str, ranks: int, *gpu_nodes: int | None) -> list[str]:
    return [format_cores(share) for share in share_cores(topology, set(parse_cores(allowed)), ranks, gpu_nodes)]


def single(count: int) -> list[tuple[int, ...]]:
    return [(number,) for number in range(count)]


SMALL = machine(single(2))
# 4 physical cores, whose threads are numbered side by side.
THREADED = machine([(0, 1), (2, 3), (4, 5), (6, 7)])
# 2 sockets of 8 physical cores; the second threads are 16 to 31.
SERVER = machine(*([(core, core + 16) for core in range(8 * node, 8 * node + 8)] for node in (0, 1)))


@pytest.mark.parametrize(
    ("topology", "allowed", "ranks", "shares"),
    [
        (machine(single(1)), "0", 1, ["0"]),
        (machine(single(1)), "0", 2, ["0", "0"]),
        (SMALL, "0-1", 1, ["0-1"]),
        (SMALL, "0-1", 2, ["0", "1"]),
        (SMALL, "0-1", 3, ["0-1"] * 3),
        (SMALL, "0-1", 4, ["0-1"] * 4),
        (machine(single(3)), "0-2", 2, ["0-1", "2"]),
        (machine(single(10)), "0-9", 4, ["0-2", "3-4", "5-7", "8-9"]),
        # Threads of a physical core stay together ...
        (THREADED, "0-7", 1, ["0-7"]),
        (THREADED, "0-7", 2, ["0-3", "4-7"]),
        (THREADED, "0-7", 3, ["0-3", "4-5", "6-7"]),
        (THREADED, "0-7", 4, ["0-1", "2-3", "4-5", "6-7"]),
        # ... unless ranks are more than physical cores.
        (THREADED, "0-7", 5, ["0", "1", "2-3", "4-5", "6-7"]),
        (THREADED, "0-7", 6, ["0", "1", "2", "3", "4-5", "6-7"]),
        (THREADED, "0-7", 8, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        (THREADED, "0-7", 9, ["0-7"] * 9),
        (machine([(0, 1), (2,), (3,)]), "0-3", 4, ["0", "1", "2", "3"]),
        # What a control group allows.
        (THREADED, "1,3,5", 2, ["1,3", "5"]),
        (THREADED, "1,3,5,7", 2, ["1,3", "5,7"]),
        (THREADED, "0-2", 2, ["0-1", "2"]),
        (THREADED, "2", 1, ["2"]),
        # Nodes.
        (SERVER, "0-31", 1, ["0-31"]),
        (SERVER, "0-31", 2, ["0-7,16-23", "8-15,24-31"]),
        (SERVER, "0-31", 3, ["0-3,16-19", "4-7,20-23", "8-15,24-31"]),
        (SERVER, "0-31", 4, ["0-3,16-19", "4-7,20-23", "8-11,24-27", "12-15,28-31"]),
        (SERVER, "0-7,16-23", 2, ["0-3,16-19", "4-7,20-23"]),
        (SERVER, "1,3,5,9,11,13", 2, ["1,3,5", "9,11,13"]),
        # The smallest share is as large as it can be.
        (SERVER, "0-7,8", 2, ["0-3", "4-7"]),
        (SERVER, "0-2,8", 2, ["0-2", "8"]),
        # With fewer ranks than nodes.
        (machine([(0,), (1,)], [(2,), (3,)], [(4,), (5,)], [(6,), (7,)]), "0-7", 2, ["0-3", "4-7"]),
        (machine([(0,), (1,)], [(2,), (3,)], [(4,), (5,)]), "0-5", 2, ["0-2", "3-5"]),
        # More ranks than physical cores on nodes of different size.
        (machine([(0, 1), (2, 3), (4, 5)], [(6, 7)]), "0-7", 6, ["0", "1", "2-3", "4-5", "6", "7"]),
        (machine([(0, 1), (2, 3), (4, 5)], [(6, 7)]), "0-7", 8, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        # Nothing is known of the machine.
        (Topology(), "0-3", 2, ["0-1", "2-3"]),
        (SMALL, "0-3", 2, ["0-1", "2-3"]),
    ],
)
def test_shares(topology: Topology, allowed: str, ranks: int, shares: list[str]) -> None:
    assert shared(topology, allowed, ranks) == shares


@pytest.mark.parametrize(
    ("allowed", "gpu_nodes", "shares"),
    [
        ("0-31", (0, 0, 1, 1), ["0-3,16-19", "4-7,20-23", "8-11,24-27", "12-15,28-31"]),
        # In the order of the ranks' GPUs, whatever node comes first.
        ("0-31", (1, 0, 1, 0), ["8-11,24-27", "0-3,16-19", "12-15,28-31", "4-7,20-23"]),
        ("0-31", (1,), ["8-15,24-31"]),
        ("0-31", (1, 1), ["8-11,24-27", "12-15,28-31"]),
        ("0-31", (0, 1, 1, 1), ["0-7,16-23", "8-10,24-26", "11-13,27-29", "14-15,30-31"]),
        ("0-3,12-15", (0, 1), ["0-3", "12-15"]),
        # More GPUs on a node than it has cores: its ranks share them all.
        ("0-1,8-15", (0, 0, 0, 1), ["0-1", "0-1", "0-1", "8-15"]),
        # A node that is unknown, or has no allowed core.
        ("0-31", (None, None), ["0-7,16-23", "8-15,24-31"]),
        ("0-31", (1, None), ["0-7,16-23", "8-15,24-31"]),
        ("0-7", (1, 1), ["0-3", "4-7"]),
        ("0-7", (0, 2), ["0-3", "4-7"]),
    ],
)
def test_ranks_run_next_to_their_gpus(allowed: str, gpu_nodes: tuple[int | None, ...], shares: list[str]) -> None:
    assert shared(SERVER, allowed, len(gpu_nodes), *gpu_nodes) == shares


@pytest.mark.parametrize(("topology", "ranks"), [*product((SMALL, THREADED, SERVER), range(1, 40))])
def test_what_holds_for_any_shares(topology: Topology, ranks: int) -> None:
    allowed = {number for core in topology.physical_cores for number in core.cores}
    shares = share_cores(topology, allowed, ranks)
    assert len(shares) == ranks
    assert {number for share in shares for number in share} == allowed
    if ranks <= len(allowed):
        # Nobody's core is another one's.
        assert sum(map(len, shares)) == len(allowed)
    if ranks <= len(topology.physical_cores):
        assert all(
            set(core.cores) <= set(share) or not set(core.cores) & set(share)
            for core, share in product(topology.physical_cores, shares)
        )


def test_a_tree_of_sys_and_what_is_missing_from_it(tmp_path: Path) -> None:
    everything = ",".join(map(str, range(32)))
    assert shared(read_topology(two_sockets(tmp_path / "whole")), everything, 2) == ["0-7,16-23", "8-15,24-31"]
    assert shared(read_topology(tmp_path), everything, 2) == ["0-15", "16-31"]
    # A node that has memory alone.
    memory = write_machine(tmp_path / "memory", {0: single(4)})
    write(memory / "sys/devices/system/node/node1/cpulist", "")
    assert shared(read_topology(memory), "0-3", 2, 0, 0) == ["0-1", "2-3"]
    assert shared(read_topology(memory), "0-3", 2, 0, 1) == ["0-1", "2-3"]
