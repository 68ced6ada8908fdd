"""How a rank is asked to end: by a signal, after the step it is in."""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass(slots=True)
class StopRequest:
    """Whether this rank was asked to end. All ranks end together, so one that asks is enough (see `Ranks.any`)."""

    requested: bool = False

    @staticmethod
    def on_signals() -> StopRequest:
        """A request that is made when SIGTERM or SIGINT arrives."""
        request = StopRequest()

        def ask(*_: object) -> None:
            request.requested = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask)
        return request
