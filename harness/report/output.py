"""Output that nobody reads any more: into a pipe whose reader has ended, or to a terminal that was closed.

A run that has trained for days must not be lost for that, nor a table to `| head` end with a traceback.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field

# Nobody reads it, which is no error: a pipe without a reader, a terminal that is gone.
_UNREAD = (errno.EPIPE, errno.EIO)


class _Descriptor(io.FileIO):
    """A file descriptor that discards everything after a write has failed; error is why."""

    error: OSError | None = None

    def write(self, data: object, /) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        if self.error is None:
            try:
                return super().write(data) or 0  # type: ignore[arg-type]
            except BlockingIOError:
                raise
            except OSError as error:
                self.error = error
        return size


@dataclass(frozen=True, slots=True)
class Output:
    """The standard output and standard error of this process."""

    descriptors: list[_Descriptor] = field(default_factory=list)

    def flushed(self) -> str:
        """Write what is buffered. Returns why output was lost that somebody may have wanted; empty if none was."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        errors = [one.error for one in self.descriptors if one.error is not None]
        return next((str(error.strerror) for error in errors if error.errno not in _UNREAD), "")


def tolerate_lost_output() -> Output:
    """Let this process go on when its output can't be written. Returns its streams, to be asked at its end."""
    _open_missing()
    output = Output()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.flush()
        raw = _Descriptor(stream.fileno(), "w", closefd=False)
        output.descriptors.append(raw)
        buffered = io.BufferedWriter(raw)
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                buffered,
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering or name == "stderr",
                write_through=stream.write_through,
            ),
        )
    return output


def _open_missing() -> None:
    """Open the standard descriptors that were closed at the start, so that no file of a run gets their numbers."""
    for number in range(3):
        if not _is_open(number):
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
