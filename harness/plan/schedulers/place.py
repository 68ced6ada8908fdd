"""A process's place among the nodes of a run, and the variables by which what started it says so."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError

# The master's port without MASTER_PORT: one of these, by the job. Below those that Linux gives to connections
# (net.ipv4.ip_local_port_range, from 32768 on), and those of Kubernetes' node ports (from 30000 on).
FIRST_PORT, PORTS = 20000, 10000
MASTER_ADDRESS, MASTER_PORT = "MASTER_ADDR", "MASTER_PORT"


@dataclass(frozen=True, slots=True)
class Place:
    """Node `rank` of `count` is this process, as `launcher` says, which started it within a job.

    job is empty if the launcher has no name for it. host is node 0's name or address, port the one that was set for the
    master; None if neither is known. other is the name of another node, if the launcher says it. late_name: node 0's
    name may have no address yet.
    """

    launcher: str
    count: int
    rank: int
    job: str = ""
    host: str | None = None
    port: int | None = None
    other: str | None = None
    late_name: bool = False

    @property
    def master_port(self) -> int:
        """The port that was set, otherwise one by the job, so that two jobs don't meet on a machine they share."""
        if self.port is not None:
            return self.port
        # Jobs that run at the same time have numbers that are close to each other.
        number = int(self.job) if self.job.isascii() and self.job.isdigit() else zlib.crc32(self.job.encode())
        return FIRST_PORT + number % PORTS

    def as_record(self) -> dict[str, Any]:
        """Returns what a run's record has of it."""
        return {"launcher": self.launcher, "job": self.job}

    def __str__(self) -> str:
        started = f"started by {self.launcher}{self.job and f', job {self.job}'}"
        return f"{started}: " + ("the only node" if self.count == 1 else f"node {self.rank} of {self.count}")


@dataclass(frozen=True, slots=True)
class Variables:
    """Environment variables; one that is set to nothing counts as not set."""

    environment: Mapping[str, str]

    def has(self, *names: str) -> bool:
        """Whether one of them is set."""
        return any(self.environment.get(name) for name in names)

    def text(self, *names: str) -> str | None:
        """The value of the first of them that is set."""
        return next((self.environment[name] for name in names if self.environment.get(name)), None)

    def number(self, *names: str) -> int:
        """The number in the first of them that is set.

        Raises UsageError for anything else than a whole number that isn't negative, or if none is set.
        """
        name = next((name for name in names if self.environment.get(name)), None)
        if name is None:
            raise UsageError(
                f"--nnodes auto: {names[0]} is not set, though others of its launcher's variables are",
                f"Set {names[0]}, or give --nnodes, --node-rank and --master.",
            )
        value = self.environment[name]
        if not (value.isascii() and value.isdigit()):
            raise UsageError(
                f"--nnodes auto: {name} is {value!r}, which is not a whole number",
                f"Set {name} to one, or give --nnodes, --node-rank and --master.",
            )
        return int(value)

    def number_or(self, default: int, *names: str) -> int:
        """The number in the first of them that is set, default if none is. Raises UsageError."""
        return self.number(*names) if self.has(*names) else default
