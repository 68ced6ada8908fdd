"""Decides which cores the ranks of this machine run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from harness.machine.device_kinds import device_kind
from harness.machine.host import allowed_cores
from harness.machine.placement.core_lists import format_cores
from harness.machine.placement.pinning import can_pin
from harness.machine.placement.shares import PIN, share_cores
from harness.machine.placement.topology import gpu_node, read_topology
from harness.plan.plan import PlacementPlan
from models.notes import Note

# By these variables OpenMP and DALI put threads on cores that they name.
BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "DALI_AFFINITY_MASK")
OMIT = "Omit --affinity pin."
WITHOUT = "each rank's cores are chosen without"


def decide_placement(
    affinity: str, devices: Devices, environment: Mapping[str, str], root: Path = Path("/")
) -> tuple[PlacementPlan, tuple[str, ...]]:
    """Returns which cores the ranks of these devices run on, and notes on what couldn't be taken into account.

    affinity is --affinity's value; root is where /sys is. Raises MachineError where pinning isn't possible, UsageError
    where the user's variables bind threads already.
    """
    if affinity != PIN:
        return PlacementPlan(), ()
    if not can_pin():
        raise MachineError("--affinity pin needs Linux: this operating system keeps no process on cores", OMIT)
    if binding := [name for name in BINDING if environment.get(name)]:
        raise UsageError(
            f"{binding[0]} puts threads on cores, and --affinity pin does so, too",
            f"{OMIT} Or unset {binding[0]}.",
        )
    topology, allowed = read_topology(root), allowed_cores()
    gpu_nodes = [gpu_node(gpu.pci_bus_id, root) for gpu in devices.gpus]
    shares = share_cores(topology, allowed, devices.count, gpu_nodes)
    notes = _notes(devices, gpu_nodes, {core.node for core in topology.allowed(allowed)})
    return PlacementPlan(PIN, tuple(format_cores(share) for share in shares)), notes


def _notes(devices: Devices, gpu_nodes: Sequence[int | None], nodes: AbstractSet[int]) -> tuple[str, ...]:
    """Why ranks don't run on the NUMA nodes of their devices, if it matters; nodes are those with allowed cores."""
    kind = device_kind(devices.kind)
    known = [found for found in gpu_nodes if found is not None]
    if far := format_cores({*known} - nodes):
        cure = "Let this process use that node's cores (taskset, --cpuset-cpus), or omit --affinity."
        return (Note(f"{kind.plural} hang on NUMA node {far}, where no core may be used: {WITHOUT}", cure),)
    if kind.on_host or len(known) == devices.count or len(nodes) == 1:
        return ()
    cure = "Omit --affinity, or compare a run without it."
    return (Note(f"the NUMA nodes that the {kind.plural} hang on aren't known here: {WITHOUT}", cure),)
