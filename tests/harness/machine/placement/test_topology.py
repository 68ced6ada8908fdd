from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.machine.placement.topology import PhysicalCore, Topology, gpu_node, read_topology
from tests.support.made_up_machines import two_sockets, write, write_machine


def test_threads_of_a_core_and_nodes_are_read(tmp_path: Path) -> None:
    cores = read_topology(two_sockets(tmp_path)).allowed(set(range(32)))
    assert [core.cores for core in cores] == [(core, core + 16) for core in range(16)]
    assert [core.node for core in cores] == [core.package for core in cores] == [0] * 8 + [1] * 8


def test_only_allowed_cores_count(tmp_path: Path) -> None:
    cores = read_topology(two_sockets(tmp_path)).allowed({1, 17, 20, 9})
    assert cores == (PhysicalCore(0, 0, (1, 17)), PhysicalCore(0, 0, (20,)), PhysicalCore(1, 1, (9,)))


def test_several_nodes_of_one_package(tmp_path: Path) -> None:
    machine = write_machine(tmp_path, {0: [(0,), (1,)], 1: [(2,), (3,)]}, packages={0: 0, 1: 0})
    cores = read_topology(machine).allowed({0, 1, 2, 3})
    assert [(core.node, core.package) for core in cores] == [(0, 0), (0, 0), (1, 0), (1, 0)]


def test_packages_are_nodes_where_the_kernel_knows_no_nodes(tmp_path: Path) -> None:
    machine = write_machine(tmp_path, {0: [(0,), (2,)], 1: [(1,), (3,)]}, numa=False)
    assert [(core.node, *core.cores) for core in read_topology(machine).allowed({0, 1, 2, 3})] == [
        (0, 0), (0, 2), (1, 1), (1, 3),
    ]  # fmt: skip


def test_a_node_without_cores_and_an_unknown_package(tmp_path: Path) -> None:
    machine = write_machine(tmp_path, {0: [(0,), (1,)]}, packages={0: -1})
    write(machine / "sys/devices/system/node/node1/cpulist", "")
    assert read_topology(machine).allowed({0, 1}) == (PhysicalCore(0, 0, (0,)), PhysicalCore(0, 0, (1,)))


def test_without_sys_each_core_is_a_physical_one(tmp_path: Path) -> None:
    topology = read_topology(tmp_path)
    assert topology == Topology()
    assert topology.allowed({3, 1}) == (PhysicalCore(0, 0, (1,)), PhysicalCore(0, 0, (3,)))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system doesn't report the cores it allows")
def test_this_machine() -> None:
    allowed = os.sched_getaffinity(0)
    assert {number for core in read_topology().allowed(allowed) for number in core.cores} == allowed


@pytest.mark.parametrize(
    ("pci_bus_id", "node"),
    [("00000000:17:00.0", 0), ("00000000:C1:00.0", 1), ("00010000:02:00.0", 1), ("00000000:03:00.0", None),
     ("00000000:04:00.0", None), ("", None), ("../../etc", None)],
)  # fmt: skip
def test_the_node_of_a_gpu(pci_bus_id: str, node: int | None, tmp_path: Path) -> None:
    gpus = {"0000:17:00.0": 0, "0000:c1:00.0": 1, "10000:02:00.0": 1, "0000:03:00.0": -1}
    assert gpu_node(pci_bus_id, two_sockets(tmp_path, gpus=gpus)) == node
