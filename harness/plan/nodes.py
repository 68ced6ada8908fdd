"""A run on several nodes: how this one reaches the others, and whether they all mean the same run."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from harness.errors import MachineError, UsageError
from harness.plan.config import RunConfig, flag, option_fields
from harness.plan.plan import RunPlan

# What may differ between nodes: where things lie, how a node is reached, how fast it loads.
OWN_OPTIONS = frozenset({
    "gpus", "device", "data", "resume", "checkpoint_minutes",
    "results", "run_name", "master", "node_rank", "rendezvous_timeout", "stall_timeout",
    "compute_threads", "decode_threads", "telemetry_interval", "hw_decoder_load", "width_hint", "height_hint",
})  # fmt: skip
OWN_FIGURES = frozenset({"data", "compute_threads", "decode_threads", "notes", "warmup_given", "total_steps"})
# Of the data set; its name and place are each node's own.
SHARED_FACTS = ("train_images", "val_images", "num_classes", "augmentation")
# Plan's names for what the user gave under another one.
PLANNED = {"ranks": "gpus", "nodes": "nnodes", "warmup_steps": "warmup"}


@dataclass(frozen=True, slots=True)
class Node:
    """A machine among `count` that train together; rank 0 of them is the master's.

    master is node 0's address, in numbers, and port; address is the machine's own on the interface that leads there.
    """

    count: int
    rank: int
    master: tuple[str, int]
    address: str
    interface: str
    rendezvous_timeout: float

    def launcher_options(self) -> list[str]:
        """What Paddle's launcher has to be told."""
        return [
            *("--nnodes", str(self.count)),
            *("--master", "{}:{}".format(*self.master)),
            *("--rank", str(self.rank)),
            # Otherwise it takes what the host's name resolves to, often 127.0.0.1.
            *("--host", self.address),
        ]

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment with what gloo, NCCL and the launcher's store need to find the others; the user's stays.

        Gloo listens on the address that the host's name resolves to, NCCL picks an interface by itself, and the
        launcher asks its store through proxies.
        """
        added = dict(environment)
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            added.setdefault(name, self.interface)
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in added.get(name, "").split(",") if host]
            added[name] = ",".join([*hosts, *({self.master[0]} - set(hosts))])
        return added


def find_node(config: RunConfig) -> Node | None:
    """The place of this machine among the nodes; None for a run on one.

    Raises UsageError when --master is no address that can be reached, or not node 0's; MachineError when its port is
    taken.
    """
    if config.nnodes == 1 or config.node_rank is None:
        return None
    host, port = config.master_address()
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
        number = str(found[0][4][0])
    except OSError as error:
        raise UsageError(
            f"--master {config.master}: {host!r} has no IPv4 address ({error})", "Give node 0's address in numbers."
        ) from error
    address = route_to(number, port)
    interface = interface_of(address)
    if config.node_rank == 0:
        _check_master(config, number, port)
    return Node(config.nnodes, config.node_rank, (number, port), address, interface, config.rendezvous_timeout)


def route_to(number: str, port: int) -> str:
    """The own address on the way to another machine. Nothing is sent: connecting a UDP socket only picks the route."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((number, port))
        except OSError as error:
            raise UsageError(
                f"--master {number}:{port} can't be reached from this machine ({error.strerror})",
                "See ip route; give an address of node 0 that this machine has a route to.",
            ) from error
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """The name of the network interface that has this address. Raises MachineError."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(item.family == socket.AF_INET and item.address == address for item in addresses):
            return name
    raise MachineError(f"no network interface of this machine has its own address {address}", "See ip address.")


def _check_master(config: RunConfig, number: str, port: int) -> None:
    own = {item.address for items in psutil.net_if_addrs().values() for item in items if item.family == socket.AF_INET}
    if number not in own:
        raise UsageError(
            f"--master {config.master} is no address of this machine, which --node-rank 0 makes the master",
            f"This machine has {', '.join(sorted(own))}; give one of them on every node.",
        )
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # As Python's HTTP server does, which the launcher's store is: a port just left by another run will do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise MachineError(
                f"port {port} of --master {config.master} can't be listened on ({error.strerror})",
                "Another run or program has it (ss -ltnp); give another port on every node.",
            ) from error


def run_signature(config: RunConfig, plan: RunPlan) -> dict[str, Any]:
    """What every rank of a run has to agree on, under the names of options; values as JSON has them."""
    planned = {PLANNED.get(name, name): value for name, value in asdict(plan).items() if name not in OWN_FIGURES}
    planned["gpus"] = plan.ranks_per_node
    options = {
        item.name: getattr(config, item.name)
        for item in option_fields()
        if item.name not in OWN_OPTIONS and item.name not in planned
    }
    facts = {name: asdict(plan.data)[name] for name in SHARED_FACTS}
    agreed: dict[str, Any] = json.loads(json.dumps({**options, **planned, **facts}, default=str))
    return agreed


def check_signatures(told: Sequence[Mapping[str, Any]], ranks_of_node: Iterable[int]) -> None:
    """Raise UsageError unless every rank was told the same; told is each rank's terms, ranks_of_node its node.

    The error names each differing value of the first node that differs, beside node 0's.
    """
    first = told[0]
    for node, signature_there in zip(ranks_of_node, told, strict=True):
        names = [name for name in {**first, **signature_there} if first.get(name) != signature_there.get(name)]
        if names:
            lines = [
                f"{_called(name)}: {first.get(name)} on node 0, {signature_there.get(name)} on node {node}"
                for name in names
            ]
            raise UsageError(
                f"node {node} was started for another run than node 0",
                "\n".join([*lines, "Start every node with the same options and data, but for --node-rank."]),
            )


def _called(name: str) -> str:
    return flag(name) if name in {item.name for item in option_fields()} else name.replace("_", " ")
