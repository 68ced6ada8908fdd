"""How a machine's cores are arranged: which are threads of one physical core, and which share a NUMA node.

A core is what a thread can be put on; with hyper-threading a physical core has several.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from harness.machine.placement.core_lists import read_cores

# What the kernel reports of a device that is on no node, or of a package that isn't known.
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class PhysicalCore:
    """One physical core: its NUMA node and processor package, and the cores that are its hyper-threads."""

    node: int
    package: int
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """The physical cores of a machine."""

    physical_cores: tuple[PhysicalCore, ...] = ()

    def allowed(self, cores: AbstractSet[int]) -> tuple[PhysicalCore, ...]:
        """Returns the physical cores that have some of these cores, with these alone, neighbours side by side.

        A core that isn't known counts as a physical one on node 0.
        """
        kept = [
            PhysicalCore(core.node, core.package, tuple(number for number in core.cores if number in cores))
            for core in self.physical_cores
        ]
        unknown = cores - {number for core in self.physical_cores for number in core.cores}
        found = [*(core for core in kept if core.cores), *(PhysicalCore(0, 0, (number,)) for number in unknown)]
        return tuple(sorted(found, key=lambda core: (core.node, core.package, core.cores)))


def read_topology(root: Path = Path("/")) -> Topology:
    """Returns the arrangement of the cores that /sys describes; what it doesn't describe is left out.

    root is where /sys is. A machine without NUMA nodes in /sys has its processor packages for nodes.
    """
    system = root / "sys/devices/system"
    nodes = {
        number: int(folder.name.removeprefix("node"))
        for folder in system.glob("node/node[0-9]*")
        for number in read_cores(folder / "cpulist")
    }
    found: dict[tuple[int, ...], PhysicalCore] = {}
    for folder in system.glob("cpu/cpu[0-9]*"):
        siblings = read_cores(folder / "topology/thread_siblings_list")
        if siblings:
            package = max(0, _number(folder / "topology/physical_package_id"))
            found[siblings] = PhysicalCore(nodes.get(siblings[0], 0) if nodes else package, package, siblings)
    return Topology(tuple(found.values()))


def gpu_node(pci_bus_id: str, root: Path = Path("/")) -> int | None:
    """Returns the NUMA node that a GPU hangs on; None if the kernel doesn't know it.

    pci_bus_id is NVML's, whose domain has eight digits ("00000000:17:00.0"); the kernel's has four. The device's
    local_cpulist would say no more: it has the cores of this node, or all cores without one.
    """
    parts = re.fullmatch(r"([0-9a-f]+):([0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])", pci_bus_id.lower())
    if parts is None:
        return None
    node = _number(root / f"sys/bus/pci/devices/{int(parts[1], 16):04x}:{parts[2]}/numa_node")
    return None if node == UNKNOWN else node


def _number(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return UNKNOWN
