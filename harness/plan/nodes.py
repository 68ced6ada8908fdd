"""A run on several nodes: how this node reaches the others, and whether all were started for the same run."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

import psutil

from harness.errors import MachineError, TrainingError, UsageError
from harness.plan.declaration import OWN, flag
from harness.plan.options import RunConfig, run_options
from harness.plan.plan import RunPlan, decided_values
from harness.plan.schedulers.place import Place
from models.notes import Note

# Settings of a plan that may differ between nodes, besides the options that are declared so.
OWN_SETTINGS = frozenset({"notes", "device_id", "rank_cores"})
# The facts about the data set that all nodes must agree on; its name and place may differ.
SHARED_FACTS = ("train_images", "val_images", "num_classes", "augmentation", "fingerprint")
# What to call settings whose name alone doesn't say what to change.
CALLED = {
    "ranks": "ranks (--gpus times --nnodes)",
    "fingerprint": "--data (digest of the names, order and labels of all images)",
}


# Kubernetes gives a pod its name when it has started; a name server may answer for longer that there is none.
NAME_SECONDS = 1.0
SAME_OPTIONS = "Start every node with the same options and data, except for --node-rank."


@dataclass(frozen=True, slots=True)
class Node:
    """One of the `count` machines that train together, by its rank; node 0 records for all.

    master is node 0's numeric address and port; address is this machine's own one on the interface that leads there.
    A machine that trains alone is node 0 of one, and needs none of these. place is what `--nnodes auto` found, None
    without it.
    """

    count: int = 1
    rank: int = 0
    master: tuple[str, int] = ("127.0.0.1", 0)
    address: str = "127.0.0.1"
    interface: str = "lo"
    place: Place | None = None

    @property
    def is_alone(self) -> bool:
        """Whether there is no other node."""
        return self.count == 1

    @property
    def records(self) -> bool:
        """Whether this node writes the tables and checkpoints."""
        return self.rank == 0

    @property
    def meeting_place(self) -> str:
        """Node 0's address and port, as --master has them."""
        return "{}:{}".format(*self.master)

    def first_rank(self, ranks_per_node: int) -> int:
        """The global number of the node's first rank."""
        return self.rank * ranks_per_node

    def launcher_options(self) -> list[str]:
        """What Paddle's launcher needs to find the other nodes, and its own address.

        Without an address of its own, it would use the one that the host's name resolves to: often 127.0.0.1, or none,
        or one that this machine had before.
        """
        if self.is_alone:
            return ["--host", self.address]
        return [
            *("--nnodes", str(self.count)),
            *("--master", self.meeting_place),
            *("--rank", str(self.rank)),
            *("--host", self.address),
        ]

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment with what gloo, NCCL and the launcher's store need to find the other ranks.

        By default gloo listens on the address that the host's name resolves to, and fails if there is none; ranks of
        one machine need no more than the loopback interface. NCCL picks an interface by itself, and is left alone on
        one machine; the launcher uses proxies to reach its store on another. NCCL takes a name for the beginning of
        one, so that eth1 would allow eth10, too; "=" asks for exactly this one. gloo takes a whole name. Variables that
        the user has set are kept.
        """
        added = {"GLOO_SOCKET_IFNAME": self.interface, **environment}
        if self.is_alone:
            return added
        added.setdefault("NCCL_SOCKET_IFNAME", f"={self.interface}")
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in added.get(name, "").split(",") if host]
            added[name] = ",".join([*hosts, *({self.master[0]} - set(hosts))])
        return added


def find_node(config: RunConfig, place: Place | None = None, say: Callable[[str], None] = lambda _: None) -> Node:
    """The place of this machine among the nodes; place is what `--nnodes auto` found.

    Where node 0's name may come late, waits for it as long as nodes wait for one another, and says so.

    Raises UsageError when --master is not an address that can be reached, or not node 0's; MachineError when its port
    is taken; TrainingError when the name of node 0 has not come.
    """
    if config.nnodes == 1 or config.node_rank is None:
        return Node(place=place)
    host, port = config.master_address()
    try:
        number = _number_of(host, port)
    except OSError as error:
        if place is None or not place.late_name:
            raise UsageError(
                f"--master {config.master}: {host!r} has no IPv4 address ({error})",
                "Give node 0's numeric IPv4 address.",
            ) from error
        node = Node(config.nnodes, config.node_rank, (host, port), place=place)
        number = _late_number(node, config.rendezvous_timeout, say)
    if config.node_rank == 0 and host != number and ip_address(number).is_loopback:
        number = _number_for_others(config, number, None if place is None else place.other)
    address = route_to(number, port)
    interface = interface_of(address)
    if config.node_rank == 0:
        _check_master(config, number, port)
    return Node(config.nnodes, config.node_rank, (number, port), address, interface, place)


def _number_of(host: str, port: int) -> str:
    """The first IPv4 address of a host. Raises OSError."""
    return str(socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])


def _number_for_others(config: RunConfig, number: str, other: str | None) -> str:
    """Node 0's own address on the way to another node, where its own name leads to itself alone. Raises UsageError.

    Debian's /etc/hosts has 127.0.1.1 for the name of the machine itself; the other nodes find its real address.
    """
    with suppress(OSError, UsageError):
        if other is not None:
            return route_to(_number_of(other, 1), 1)
    raise UsageError(
        f"--master {config.master} is {number} on this machine, where no other node can reach it",
        "Give node 0's numeric IPv4 address with --master; or take its name off that line of /etc/hosts.",
    )


def _late_number(node: Node, timeout: float, say: Callable[[str], None]) -> str:
    """The address of the master's name, as soon as it has one. Raises TrainingError after this time (s)."""
    host, port = node.master
    say(
        Note(
            f"waiting up to {timeout:g} s for an address of {host}",
            "See that node 0's pod runs, and that a headless Service has its name.",
        )
    )
    began = time.monotonic()
    while time.monotonic() < began + timeout:
        time.sleep(min(NAME_SECONDS, timeout))
        with suppress(OSError):
            return _number_of(host, port)
    raise not_all_joined(node, timeout, f": {host} has no IPv4 address")


def route_to(number: str, port: int) -> str:
    """The address of this machine on the route to another one. Raises UsageError without a route.

    Nothing is sent: connecting a UDP socket only picks the route.
    """
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
    raise MachineError(f"no network interface of this machine has its address {address}", "See ip address.")


def _check_master(config: RunConfig, number: str, port: int) -> None:
    own = {item.address for items in psutil.net_if_addrs().values() for item in items if item.family == socket.AF_INET}
    if number not in own:
        raise UsageError(
            f"--master {config.master} is not an address of this machine, but --node-rank 0 makes it the master",
            f"This machine has the addresses {', '.join(sorted(own))}; give one of them on every node.",
        )
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # As Python's HTTP server does, which is the launcher's store: a port that a run has just left can be used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise MachineError(
                f"can't listen on port {port} of --master {config.master} ({error.strerror})",
                "Another run or program uses it (see ss -ltnp); give another port on every node.",
            ) from error


def run_signature(config: RunConfig, plan: RunPlan) -> dict[str, Any]:
    """What all ranks of a run must agree on, by the names of settings, as JSON values."""
    own = {name for name, option in run_options().items() if option.nodes == OWN} | OWN_SETTINGS
    # Devices of different kinds would compute differently, whatever --device each node was started with.
    shared = {
        name: value for name, value in decided_values(config, plan).items() if name not in own or name == "device"
    }
    facts = {name: getattr(plan.data, name) for name in SHARED_FACTS}
    agreed: dict[str, Any] = json.loads(json.dumps({**shared, **facts}, default=asdict))
    return agreed


def check_signatures(signatures: Sequence[Mapping[str, Any]], ranks_of_node: Iterable[int]) -> None:
    """Raise UsageError unless all ranks have the same signature; ranks_of_node is the node of each.

    The error names each differing value of the first node that differs, beside node 0's.
    """
    first = signatures[0]
    for node, other in zip(ranks_of_node, signatures, strict=True):
        names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if names:
            lines = [
                f"{_called(name)}: {first.get(name)} on node 0, {other.get(name)} on node {node}" for name in names
            ]
            raise UsageError(
                f"node {node} was started for a different run than node 0",
                "\n".join([*lines, SAME_OPTIONS]),
            )


def not_all_joined(node: Node, timeout: float, missing: str = "") -> TrainingError:
    """Returns the error for nodes that did not join within the time limit (s)."""
    return TrainingError(
        f"not all of the {node.count} nodes joined at {node.meeting_place} within {timeout:g} s{missing}",
        "Check that every node runs, with the same --nnodes and --master and its own --node-rank; that node 0 is"
        f" reachable at {node.master[0]} (firewall), and that the nodes can reach one another on any port; or raise"
        " --rendezvous-timeout.",
    )


def _called(name: str) -> str:
    return flag(name) if name in run_options() else CALLED.get(name, name.replace("_", " "))
