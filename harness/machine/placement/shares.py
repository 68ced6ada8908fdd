"""How the ranks of a machine share its cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import TypeVar

from harness.machine.placement.topology import PhysicalCore, Topology

# The values of --affinity besides auto: a rank is kept on its share of the cores, or not.
PIN, NONE = "pin", "none"

Item = TypeVar("Item")
Shares = tuple[tuple[int, ...], ...]


def share_cores(
    topology: Topology, allowed: AbstractSet[int], ranks: int, gpu_nodes: Sequence[int | None] = ()
) -> Shares:
    """Returns the cores of each rank, of those allowed.

    gpu_nodes are the NUMA nodes that the ranks' GPUs hang on. A rank gets cores of its GPU's node, which the ranks of
    that node divide; without GPUs, or where one of these nodes is unknown or has no allowed core, the ranks are dealt
    out to the nodes so that the smallest share is as large as it can be. With fewer ranks than nodes, each gets several
    nodes, or parts of them.

    Ranks that share a node differ by one physical core at most. The threads of a physical core stay together unless
    there are more ranks than physical cores. Where there are more ranks than cores, all of them get all cores: the
    operating system then divides the time more evenly than shares could.
    """
    nodes: dict[int, list[PhysicalCore]] = {}
    for core in topology.allowed(allowed):
        nodes.setdefault(core.node, []).append(core)
    near = [node for node in gpu_nodes if node in nodes]
    if len(near) == ranks:
        homes = near
    elif len(nodes) <= ranks <= len(allowed):
        homes = _dealt(nodes, ranks)
    else:
        return _cut([core for cores in nodes.values() for core in cores], ranks)
    counts = Counter(homes)
    shares = {node: iter(_cut(nodes[node], count)) for node, count in counts.items()}
    return tuple(next(shares[node]) for node in homes)


def _dealt(groups: Mapping[int, Sequence[PhysicalCore]], ranks: int) -> list[int]:
    """The number of each rank's group of cores, in increasing order.

    Each rank goes where the ranks then have most physical cores, or most cores where that is less than one for each.
    """
    taken = dict.fromkeys(groups, 0)

    def room(number: int) -> tuple[int, ...]:
        share, cores = taken[number] + 1, groups[number]
        return len(cores) // share, sum(len(core.cores) for core in cores) // share, -taken[number], -number

    for _ in range(ranks):
        taken[max(groups, key=room)] += 1
    return [number for number in sorted(groups) for _ in range(taken[number])]


def _cut(cores: Sequence[PhysicalCore], ranks: int) -> Shares:
    """The cores of each of the ranks that share these physical ones."""
    numbers = tuple(sorted(number for core in cores for number in core.cores))
    if ranks > len(numbers):
        return (numbers,) * ranks
    if ranks <= len(cores):
        return tuple(tuple(sorted(number for core in part for number in core.cores)) for part in _parts(cores, ranks))
    sharing = Counter(_dealt({number: [core] for number, core in enumerate(cores)}, ranks))
    return tuple(tuple(part) for number, core in enumerate(cores) for part in _parts(core.cores, sharing[number]))


def _parts(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """Consecutive parts, whose lengths differ by one at most."""
    ends = [-(-len(items) * number // count) for number in range(count + 1)]
    return [items[start:end] for start, end in pairwise(ends)]
