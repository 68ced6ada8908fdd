"""Several machines, and runs that take days."""

from __future__ import annotations

from dataclasses import dataclass

from harness.plan.declaration import AUTO, CELL, FREE, HIDDEN, OWN, UNMARKED, option

# Ranks exchange their records about once a second.
MIN_STALL_TIMEOUT = 5.0
MAX_TIMEOUT = 7 * 86400.0


@dataclass(frozen=True, kw_only=True)
class OperationOptions:
    """See `harness.plan.options.RunConfig`."""

    nnodes: int = option(
        1, "several nodes", "Number of machines that train together. Start the same command on each. auto: this"
        " number, this node's and the master are what srun, mpirun, torchrun or Kubernetes says that started it.",
        metavar="N", at_least=1, resume=FREE, compare=HIDDEN, row=CELL, word=AUTO,
    )  # fmt: skip
    master: str | None = option(
        None, "several nodes", "Address of node 0 and a free port on it, such as 10.0.0.1:6170.", metavar="HOST:PORT",
        resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    node_rank: int | None = option(
        None, "several nodes", "Number of this node, from 0. Node 0 writes the tables.", metavar="R", at_least=0,
        resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    rendezvous_timeout: float = option(
        300.0, "several nodes", "Abort the run if not all nodes have joined after this many seconds.",
        metavar="SECONDS", above=0, at_most=MAX_TIMEOUT, resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    checkpoint_minutes: float = option(
        15.0, "long runs", "Minutes between two checkpoints. Each epoch also ends with one.",
        metavar="MINUTES", above=0, resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    stall_timeout: float = option(
        600.0, "long runs", "Abort the run if any rank makes no progress for this many seconds. At least 5. Until"
        " the first step it is at least 600, as loading libraries and listing images takes long on slow disks.",
        metavar="SECONDS", at_least=MIN_STALL_TIMEOUT, at_most=MAX_TIMEOUT, resume=FREE, nodes=OWN, compare=HIDDEN,
        row=UNMARKED,
    )  # fmt: skip
