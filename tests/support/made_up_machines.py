"""Folders that look like /sys of machines with any arrangement of cores, and of the GPUs on their buses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.machine.placement.core_lists import format_cores


def write_machine(
    root: Path,
    nodes: Mapping[int, Sequence[Iterable[int]]],
    *,
    packages: Mapping[int, int] | None = None,
    gpus: Mapping[str, int] | None = None,
    numa: bool = True,
) -> Path:
    """A machine whose NUMA nodes have these physical cores, each given by its hyper-threads; returns root.

    packages has the processor package of a node where it isn't the node's number, gpus the node of each GPU by the
    kernel's name of it. Without numa, the kernel knows no nodes.
    """
    system = root / "sys/devices/system"
    for node, physical_cores in nodes.items():
        siblings = [tuple(core) for core in physical_cores]
        if numa:
            write(system / f"node/node{node}/cpulist", format_cores(number for core in siblings for number in core))
        for core in siblings:
            for number in core:
                folder = system / f"cpu/cpu{number}/topology"
                write(folder / "thread_siblings_list", format_cores(core))
                write(folder / "physical_package_id", str((packages or {}).get(node, node)))
    for name, gpus_node in (gpus or {}).items():
        write(root / "sys/bus/pci/devices" / name / "numa_node", str(gpus_node))
    return root


def write(file: Path, text: str) -> None:
    """Write a line into a file, whose folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n", encoding="ascii")


def two_sockets(root: Path, gpus: Mapping[str, int] | None = None) -> Path:
    """Two sockets of 8 physical cores with 2 threads each; node 0 has cores 0 to 7 and 16 to 23."""
    nodes = {node: [(core, core + 16) for core in range(8 * node, 8 * node + 8)] for node in (0, 1)}
    return write_machine(root, nodes, gpus=gpus)
