"""What disturbs a turn from outside: other programs, a hypervisor, a quota, swapping."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.analysis.interference import (
    BUSY_PERCENT,
    FOREIGN_CPU_PERCENT,
    QUOTA_SHARE,
    STEAL_PERCENT,
)
from harness.machine.host import HostProbe, HostSample
from harness.machine.placement.core_lists import read_cores
from harness.machine.processes import RunProcesses

FOREIGN_CPU, CPU_STEAL, CPU_QUOTA, SWAP = "foreign_cpu", "cpu_steal", "cpu_quota", "swap"
ONLINE = Path("/sys/devices/system/cpu/online")
NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")


@dataclass(frozen=True, slots=True)
class CoreSeconds:
    """Seconds of the cores that an engine is kept on, of one moment to the next, summed over them.

    wall is the time / core, foreign what other programs had, stolen what a hypervisor gave to other guests.
    """

    wall: float
    cores: int
    foreign: float
    stolen: float

    def share(self, seconds: float) -> float:
        """These seconds as a share of the cores' time."""
        return seconds / (self.wall * self.cores) if self.wall > 0 else 0.0


def reasons(cores: CoreSeconds, host: HostSample) -> tuple[str, ...]:
    """Returns what disturbed a turn.

    foreign_cpu: other programs had FOREIGN_CPU_PERCENT of the engine's own cores, or, as for a run (see
    `harness.analysis.interference`), of all cores while these are busy. cpu_steal, cpu_quota and swap are as for a run,
    the first on the engine's own cores. Shares of a turn of a second are known to some percent, as the kernel counts
    ticks of 10 ms.
    """
    found = []
    busy_host = (host.cpu_util_percent or 0.0) >= BUSY_PERCENT
    if 100 * cores.share(cores.foreign) >= FOREIGN_CPU_PERCENT or (
        busy_host and (host.foreign_util_percent or 0.0) >= FOREIGN_CPU_PERCENT
    ):
        found.append(FOREIGN_CPU)
    if 100 * cores.share(cores.stolen) >= STEAL_PERCENT:
        found.append(CPU_STEAL)
    if cores.wall > 0 and (host.quota_throttled_seconds or 0.0) / cores.wall >= QUOTA_SHARE:
        found.append(CPU_QUOTA)
    if (host.swap_bytes or 0.0) >= 1:
        found.append(SWAP)
    return tuple(found)


@dataclass(slots=True)
class Disturbances:
    """Looks at the host before and after each turn. cores are those of the engine; none: all of the host's."""

    cores: Sequence[int] = ()
    _processes: RunProcesses = field(default_factory=lambda: RunProcesses(os.getpid()))
    _host: HostProbe | None = None
    _times: Mapping[int, Any] = field(default_factory=dict)
    _own_seconds: float | None = None
    _begun: float = 0.0

    def begin(self) -> None:
        """Start to look."""
        if self._host is None:
            self._host = HostProbe(processes=self._processes)
        self._host.sample()
        self._own_seconds = self._processes.usage().cpu_seconds
        self._times, self._begun = _core_times(self.cores), time.monotonic()

    def end(self) -> tuple[str, ...]:
        """Returns what has disturbed the time since `begin`."""
        assert self._host is not None
        wall, now = time.monotonic() - self._begun, _core_times(self.cores)
        own = self._processes.usage().cpu_seconds
        used = own - self._own_seconds if own is not None and self._own_seconds is not None else None
        spent = core_seconds(wall, self._times, now, used)
        return reasons(spent, self._host.sample())


def core_seconds(wall: float, before: Mapping[int, Any], now: Mapping[int, Any], own: float | None) -> CoreSeconds:
    """Returns what has become of the cores' time between two readings; own is what the measurement itself used."""
    busy = stolen = 0.0
    for core in before.keys() & now.keys():
        spent = {name: getattr(now[core], name) - getattr(before[core], name) for name in now[core]._fields}
        busy += sum(max(0.0, seconds) for name, seconds in spent.items() if name not in NOT_BUSY)
        stolen += max(0.0, spent.get("steal", 0.0))
    foreign = 0.0 if own is None else max(0.0, busy - stolen - own)
    return CoreSeconds(wall, max(1, len(before.keys() & now.keys())), foreign, stolen)


def _core_times(cores: Sequence[int]) -> dict[int, Any]:
    times = psutil.cpu_times(percpu=True)
    online = read_cores(ONLINE)
    # The list has those that are online, in their order.
    numbered = dict(zip(online if len(online) == len(times) else range(len(times)), times, strict=True))
    return {core: one for core, one in numbered.items() if core in cores} if cores else numbered
