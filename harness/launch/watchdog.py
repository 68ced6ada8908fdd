"""Ends a rank that makes no progress, with the stacks of its threads in its log.

Progress is also reported by the modification time of a file.
"""

from __future__ import annotations

import faulthandler
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# The format that faulthandler writes (CPython, Python/traceback.c and Modules/faulthandler.c).
TIMED_OUT = re.compile(r"^Timeout \(.*\)!$", re.MULTILINE)
THREAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):$", re.MULTILINE)
FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)
PACKAGES = ("harness", "pipelines", "models")
# The entry function of the thread that trains; the other threads wait for samples or events.
ENTRY_FUNCTION = "run_rank"
# Makes a rank write its stacks and continue. A real-time signal, as others mean that the run should end; the last ones
# are those that libraries and debuggers use least.
DUMP_STACKS = signal.SIGRTMAX - 2
# Small compared with the shortest limit, 5 s; resetting a timer and a file's time costs too much for every batch.
MIN_SECONDS = 0.2


@dataclass(slots=True)
class _Armed:
    """The process's only watchdog, because faulthandler has one timer.

    seconds is None while it is off, start_seconds None once a step has been made.
    """

    seconds: float | None = None
    start_seconds: float | None = None
    pulse: Path | None = None
    counted_at: float = float("-inf")


_armed = _Armed()


def arm(seconds: float, pulse: Path | None = None, *, start_seconds: float | None = None) -> None:
    """End this process after `seconds` without `progress`, with every thread's stack on standard error.

    Until the first step is over, that is start_seconds, if given; the time of the pulse then stays unknown.

    The timer is a thread of faulthandler that needs no interpreter lock, so that it fires while native code holds it.
    pulse is a file whose modification time is that of the last progress; see `harness.launch.rank_monitor`.
    """
    _armed.seconds, _armed.start_seconds, _armed.pulse = seconds, start_seconds, pulse
    faulthandler.register(DUMP_STACKS, file=sys.stderr, all_threads=True)
    progress()


def progress() -> None:
    """Restart the watchdog's timer, at most once every MIN_SECONDS. Does nothing in a process that isn't armed."""
    now = time.monotonic()
    if _armed.seconds is None or now - _armed.counted_at < MIN_SECONDS:
        return
    _armed.counted_at = now
    faulthandler.dump_traceback_later(_armed.start_seconds or _armed.seconds, exit=True, file=sys.stderr)
    if _armed.pulse is not None and _armed.start_seconds is None:
        _armed.pulse.touch()


def step_made() -> None:
    """Count the end of a step: from the first one on, the limit is that of a step."""
    if _armed.start_seconds is not None:
        _armed.start_seconds, _armed.counted_at = None, float("-inf")
    progress()


def silent_seconds() -> float:
    """Returns the seconds since the last progress that restarted the timer; 0 if there was none."""
    return 0.0 if _armed.seconds is None or _armed.counted_at < 0 else time.monotonic() - _armed.counted_at


def timed_out(log: str) -> bool:
    """Returns whether the watchdog ended the rank that wrote this log."""
    return TIMED_OUT.search(log) is not None


def innermost_frame(log: str, root: Path) -> str | None:
    """Returns where the training thread was in the last stacks of a log; None if the log has no stacks.

    That is the innermost frame of code under root, the repository, such as "harness/training/ranks.py:31 in gather".
    """
    parts = THREAD.split(log)[1:]
    stacks = [[match.groupdict() for match in FRAME.finditer(part)] for part in parts]
    training = [stack for stack in stacks if any(frame["function"] == ENTRY_FUNCTION for frame in stack)]
    # The main thread comes last; it is used if the entry function lies deeper than the stacks that were written.
    for stack in (*training[-1:], *stacks[-1:]):
        for frame in stack:
            path = Path(frame["file"])
            if path.is_relative_to(root) and path.relative_to(root).parts[0] in PACKAGES:
                return f"{path.relative_to(root)}:{frame['line']} in {frame['function']}"
    return None
