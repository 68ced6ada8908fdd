"""Time and a host for a sampler: both do as the test says."""

from __future__ import annotations

import threading
from collections.abc import Callable

from harness.machine.host import HostProbe, HostSample

START = 1000.0
UNIX = 1.75e9


class FakeTime:
    """A clock that moves when somebody waits, and ends the sampling when the wait would go past `ends_at`."""

    def __init__(self, ends_at: float) -> None:
        self.now = START
        self.ends_at = ends_at
        self.ended = threading.Event()

    def clock(self) -> float:
        return self.now

    def unix(self) -> float:
        return UNIX + self.now

    def wait(self, seconds: float) -> bool:
        if self.now + seconds > self.ends_at:
            self.ended.set()
            return True
        self.now += seconds
        return False


class ScriptedHost(HostProbe):
    def __init__(self, script: Callable[[], float | None]) -> None:
        super().__init__()
        self._script = script

    def sample(self) -> HostSample:
        return HostSample(self._script(), 3e9, 8e9)
