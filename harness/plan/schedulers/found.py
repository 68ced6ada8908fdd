"""What `--nnodes auto` stands for: the place among the nodes that the environment has, with the given options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.errors import UsageError
from harness.plan.declaration import AUTO
from harness.plan.option_checks import MAX_PORT
from harness.plan.schedulers.place import MASTER_ADDRESS, MASTER_PORT, Place, Variables
from harness.plan.schedulers.readers import READERS


def placed(given: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Mapping[str, Any], Place | None]:
    """Returns the given options with what `--nnodes auto` stands for, and the place that was found; None without it.

    Raises UsageError if the environment has no place, contradicts itself, or contradicts a given option.
    """
    if given.get("nnodes") != AUTO:
        return given, None
    place = find_place(environment)
    asked = given.get("node_rank")
    if asked not in (None, place.rank):
        raise UsageError(
            f"--node-rank is {asked}, but {place.launcher} says that this is node {place.rank}",
            "Omit --node-rank, or give --nnodes as a number.",
        )
    others = {name: value for name, value in given.items() if name not in ("nnodes", "node_rank", "master")}
    if place.count == 1:
        # A machine alone meets nobody, wherever the others would have met.
        return {**others, "nnodes": 1}, place
    master = given.get("master") or _master(place)
    return {**others, "nnodes": place.count, "node_rank": place.rank, "master": master}, place


def find_place(environment: Mapping[str, str]) -> Place:
    """Returns this process's place. Raises UsageError for variables that contradict one another, or have none."""
    variables = Variables(environment)
    found = [(reader.read(variables), reader.names) for reader in READERS if reader.started(variables)]
    if not found:
        raise _nothing_found(variables)
    place, names = found[0]
    for other, other_names in found[1:]:
        if (other.count, other.rank) != (place.count, place.rank):
            raise UsageError(
                f"--nnodes auto: {place.launcher} says node {place.rank} of {place.count} ({', '.join(names)}),"
                f" {other.launcher} says node {other.rank} of {other.count} ({', '.join(other_names)})",
                "Unset the variables of the one that did not start this process.",
            )
    if place.count == 0:
        raise UsageError(
            f"--nnodes auto: {place.launcher} says that there are 0 nodes ({names[0]})",
            f"Set {names[0]} to the number of nodes, or give --nnodes, --node-rank and --master.",
        )
    if place.rank >= place.count:
        raise UsageError(
            f"--nnodes auto: {place.launcher} says node {place.rank} of {place.count}; numbers begin with 0",
            f"See {' and '.join(names)}; or give --nnodes, --node-rank and --master.",
        )
    places = [each for each, _ in found]
    return replace(
        place,
        job=next((each.job for each in places if each.job), ""),
        host=variables.text(MASTER_ADDRESS) or next((each.host for each in places if each.host), None),
        port=_port(variables) or next((each.port for each in places if each.port), None),
        late_name=any(each.late_name for each in places),
    )


def _nothing_found(variables: Variables) -> UsageError:
    if variables.has("WORLD_SIZE"):
        return UsageError(
            f"--nnodes auto: WORLD_SIZE says {variables.text('WORLD_SIZE')} nodes, and nothing says which this one is",
            "Set RANK to this node's number, from 0, or give --nnodes, --node-rank and --master.",
        )
    return UsageError(
        "--nnodes auto: no scheduler or launcher has started this",
        "Start it with srun, mpirun or a job of Kubernetes (docs/nodes.md), or give --nnodes, --node-rank and"
        " --master; omit all of them on one machine.",
    )


def _port(variables: Variables) -> int | None:
    """The port that is set. torchrun's own store may be listening there."""
    if not variables.has(MASTER_PORT) or variables.has("TORCHELASTIC_RUN_ID"):
        return None
    port = variables.number(MASTER_PORT)
    if not 1 <= port <= MAX_PORT:
        raise UsageError(
            f"--nnodes auto: {MASTER_PORT} is {port}, which is not a port from 1 to {MAX_PORT}",
            f"Unset {MASTER_PORT} for a port by the job, or set it to a free one.",
        )
    return port


def _master(place: Place) -> str:
    """Node 0's address and port, as --master has them. Raises UsageError if the address isn't known."""
    if place.host is None:
        raise UsageError(
            f"--nnodes auto: {place.launcher} doesn't say which machine is node 0 of {place.count}",
            f"Set {MASTER_ADDRESS} to its name on every node (mpirun -x {MASTER_ADDRESS}), or give --master.",
        )
    return f"{place.host}:{place.master_port}"
