"""The signals that ask a run or a command to end, and what its processes do when one arrives.

Schedulers send them before they take a machine away, a terminal when it is closed, and a person with Ctrl-C. They may
come to one process of a run or to all at once, several times, and at any moment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from harness.errors import INTERRUPTED_EXIT_CODE

# By this one the launching process asks the ranks.
ASK = signal.SIGTERM
STOP_SIGNALS = (ASK, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# One press of Ctrl-C may arrive twice, from the terminal and from a program that passes it on.
AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Asked:
    """Whether this process was asked to end: when first (monotonic seconds), and by Ctrl-C again.

    polled: a block looks here, so that the first request raises nothing.
    """

    first_at: float | None = None
    again: bool = False
    polled: bool = False


_asked = _Asked()


def heeded() -> tuple[signal.Signals, ...]:
    """Returns the signals that end this process in order: not those that it ignores since it was started.

    nohup and shells start a process so; a run that nohup started survives its terminal. ASK is always heeded.
    """
    return tuple(number for number in STOP_SIGNALS if number == ASK or signal.getsignal(number) != signal.SIG_IGN)


def listen() -> None:
    """Raise KeyboardInterrupt in the main thread when the first of the signals arrives.

    A second Ctrl-C raises it once more, AGAIN_SECONDS later at the earliest. All others are without effect, so that
    nothing disturbs the end.
    """
    _asked.first_at, _asked.again, _asked.polled = None, False, False
    for number in heeded():
        signal.signal(number, _on_stop)


def _on_stop(number: int, _: object) -> None:
    now = time.monotonic()
    if _asked.first_at is None:
        _asked.first_at = now
        if not _asked.polled:
            raise KeyboardInterrupt
    elif number == signal.SIGINT and not _asked.again and now - _asked.first_at >= AGAIN_SECONDS:
        _asked.again = True
        raise KeyboardInterrupt


def requested() -> bool:
    """Returns whether this process was asked to end."""
    return _asked.first_at is not None


def check() -> None:
    """Raise KeyboardInterrupt if this process was asked to end."""
    if requested():
        raise KeyboardInterrupt


@contextmanager
def polled() -> Iterator[None]:
    """Let a first request raise nothing while the block runs; the block calls `requested` where it can end."""
    before, _asked.polled = _asked.polled, True
    try:
        yield
    finally:
        _asked.polled = before


def block() -> None:
    """Hold the signals back, in this process and in those that it starts, until `end_at_once` lets them through.

    For Paddle's launcher, which would end its ranks within seconds; in a rank that is starting they wait.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def end_at_once() -> None:
    """End this process without a word when one of the signals arrives, or has arrived while they were held back.

    For a rank that has nothing to save yet.
    """

    def end(*_: object) -> NoReturn:
        os._exit(INTERRUPTED_EXIT_CODE)

    for number in heeded():
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def ignore() -> None:
    """Ignore the signals from now on: for a process that has done its work, whose interpreter still has to end."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
