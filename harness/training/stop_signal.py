"""How a rank is asked to end: by a signal, after the step it is in."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from harness.launch.signals import heeded


@dataclass(slots=True)
class StopRequest:
    """Whether this rank was asked to end. All ranks end together, so one that asks is enough (see `Ranks.any`)."""

    requested: bool = False

    @staticmethod
    def on_signals() -> StopRequest:
        """A request that is made when one of the signals arrives that ask a run to end."""
        request = StopRequest()

        def ask(*_: object) -> None:
            request.requested = True

        for number in heeded():
            signal.signal(number, ask)
            # A thread that reads an image goes on reading it, instead of failing with EINTR.
            signal.siginterrupt(number, False)
        return request
