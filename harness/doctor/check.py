"""What a check is, what it is given, and what it finds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from harness import ROOT
from harness.machine.device import AUTO, Devices, choose_devices, worker_environment

# In the order in which they run: what is quick first, and what needs the others last.
QUICK, DEVICES, RANKS, PIPELINE = "quick", "devices", "ranks", "pipeline"
LEVELS = (QUICK, DEVICES, RANKS, PIPELINE)
OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"
MAKE_INSTALL = "make install"


@dataclass(frozen=True, slots=True)
class Context:
    """What the checks look at; every value can be written as JSON, since each check runs in its own process.

    device, gpus, data and results are those of a run. root is where /proc, /sys and /dev are read, project the
    pyproject.toml that says which versions are needed.
    """

    results: str = "results"
    device: str = AUTO
    gpus: int | None = None
    data: str | None = None
    root: str = "/"
    project: str = str(ROOT / "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: the status, the figure, what was expected, why it isn't ok, and the command that mends it."""

    status: str
    found: str = ""
    expected: str = ""
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check. title is a sentence that says what holds when it is ok.

    function takes the Context and returns the Finding, in a process that is killed after limit_seconds.
    """

    id: str
    level: str
    title: str
    limit_seconds: float
    function: Callable[[Context], Finding]


def skip(reason: str) -> Finding:
    """Returns the finding of a check that can't be made here; such a check never counts as passed."""
    return Finding(SKIP, reason=reason)


def devices_of(context: Context) -> Devices:
    """Returns the devices that a run would take, and gives this process the environment of that run's ranks.

    To be called before Paddle is imported. Raises MachineError if a run would find no devices.
    """
    devices, _ = choose_devices(context.device, context.gpus, os.environ)
    environment = worker_environment(devices, 1, os.environ)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    return devices
