"""The cores that an engine is kept on while it is timed."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from harness.machine.placement.topology import PhysicalCore, Topology


def timing_cores(topology: Topology, allowed: AbstractSet[int], threads: int) -> tuple[int, ...]:
    """Returns a core for each thread, of those allowed; all of them if there are fewer.

    Each thread gets a physical core of its own, as long as there are any, and all are on one NUMA node if one has
    enough: the node with the most physical cores. Of these the last are taken, as systems serve their devices on the
    first.
    """
    nodes: dict[int, list[PhysicalCore]] = {}
    for core in topology.allowed(allowed):
        nodes.setdefault(core.node, []).append(core)
    whole = max(nodes.values(), key=len, default=[])
    cores = whole if len(whole) >= threads else [core for node in nodes.values() for core in node]
    # The first hyper-thread of each physical core, then the second ones.
    ranked = [(place, -number, core) for number, one in enumerate(cores) for place, core in enumerate(one.cores)]
    return tuple(sorted(core for _, _, core in sorted(ranked)[:threads]))
