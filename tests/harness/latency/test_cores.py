"""The cores that an engine is kept on."""

from __future__ import annotations

import pytest

from harness.latency.cores import timing_cores
from harness.machine.placement.topology import PhysicalCore, Topology

# Two nodes of three physical cores, each with two hyper-threads; node 1 has one more.
NODES = {0: (0, 1, 2), 1: (3, 4, 5, 6)}
TWO_NODES = Topology(
    tuple(PhysicalCore(node, node, (core, core + 8)) for node, cores in NODES.items() for core in cores)
)
ALL = frozenset({*range(7), *range(8, 15)})


@pytest.mark.parametrize(
    ("threads", "cores"),
    [
        (1, (6,)),
        (2, (5, 6)),
        (4, (3, 4, 5, 6)),
        # No node has enough physical cores.
        (5, (2, 3, 4, 5, 6)),
        (7, (0, 1, 2, 3, 4, 5, 6)),
        # No machine has; the second hyper-threads then come after the first ones.
        (8, (0, 1, 2, 3, 4, 5, 6, 14)),
        (99, (*range(7), *range(8, 15))),
    ],
)
def test_each_thread_has_a_physical_core_of_one_node(threads: int, cores: tuple[int, ...]) -> None:
    assert timing_cores(TWO_NODES, ALL, threads) == cores


def test_only_allowed_cores_count() -> None:
    assert timing_cores(TWO_NODES, {0, 8, 1, 3}, 2) == (0, 1)
    assert timing_cores(TWO_NODES, {3, 11}, 2) == (3, 11)


def test_an_unknown_topology_has_its_cores() -> None:
    assert timing_cores(Topology(), {0, 1}, 1) == (1,)
    assert timing_cores(Topology(), frozenset(), 1) == ()
