"""How a rank is asked to end: by a signal, behind the step it is in."""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass(slots=True)
class StopRequest:
    """Whether this rank was asked to end. All ranks end together, so one that asks is enough (see `Ranks.any`)."""

    made: bool = False

    @staticmethod
    def on_signals() -> StopRequest:
        """A request that SIGTERM or SIGINT makes."""
        request = StopRequest()

        def ask(*_: object) -> None:
            request.made = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask)
        return request
