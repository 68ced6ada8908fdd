"""How a rank is asked to end: by a signal, after the step it is in."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from harness.errors import InterruptedRunError
from harness.launch.signals import heeded


@dataclass(slots=True)
class StopRequest:
    """Whether this rank was asked to end. All ranks end together, so one that asks is enough (see `Ranks.any`)."""

    requested: bool = False

    def check(self) -> None:
        """Raise InterruptedRunError if this rank was asked to end: where no step can end, so that none can be saved."""
        if self.requested:
            raise InterruptedRunError("interrupted while the data could not be read")

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
