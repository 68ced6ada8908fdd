"""The messages by which the launching processes of several nodes agree on a run: a JSON object on one line each.

What comes from another node is limited in size and checked for its form; errors become text to print, never more.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

from harness.errors import INTERRUPTED_EXIT_CODE, TrainingError
from models.errors import ActionableError

MAX_LINE_BYTES = 1 << 16
MAX_TEXT = MAX_LINE_BYTES // 32  # two texts, of which each character may take 12 bytes as JSON
MAX_SEND_SECONDS = 10.0
MAX_EXIT_CODE = 125


class Kind(str, Enum):
    """What a message says; its value is an object, empty where the kind says it all.

    From another node to node 0: HELLO with its number and the number of nodes, READY with its signature of the run.
    From node 0: WAIT while it is there, OPTIONS that all nodes share, START or FINISHED as the last one. From either:
    ENDED with the reason, as the last one.
    """

    HELLO, READY, OPTIONS, ENDED = "hello", "ready", "options", "ended"
    WAIT, START, FINISHED = "wait", "start", "finished"


class BrokenLinkError(Exception):
    """The connection is closed, or silent, or carries something else than messages."""


class Link:
    """A connection that carries messages."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._stream = connection, connection.makefile("rb")

    def send(self, kind: Kind, value: Mapping[str, Any] = {}) -> None:
        """Send a message. Raises BrokenLinkError."""
        try:
            self._socket.settimeout(MAX_SEND_SECONDS)
            self._socket.sendall(json.dumps({"kind": kind, "value": value}).encode() + b"\n")
        except (OSError, ValueError) as error:  # ValueError: it was closed
            raise BrokenLinkError from error

    def receive(self, seconds: float | None = None) -> tuple[Kind, dict[str, Any]]:
        """Returns the next message's kind and value. Raises BrokenLinkError, also after so many seconds without."""
        try:
            self._socket.settimeout(seconds)
            line = self._stream.readline(MAX_LINE_BYTES)
            message = json.loads(line) if line.endswith(b"\n") else {}
            kind, value = Kind(message["kind"]), message["value"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise BrokenLinkError from error
        if not isinstance(value, dict):
            raise BrokenLinkError
        return kind, value

    def stop_receiving(self) -> None:
        """End a receive that another thread is in."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Close the connection."""
        with suppress(OSError):
            self._stream.close()
            self._socket.close()


def as_value(error: BaseException) -> dict[str, Any]:
    """Returns the value of ENDED for what ends a node."""
    if isinstance(error, ActionableError):
        return {"message": error.message[:MAX_TEXT], "cure": error.cure[:MAX_TEXT], "exit_code": error.exit_code}
    if isinstance(error, KeyboardInterrupt):
        return {"message": "interrupted", "cure": "", "exit_code": INTERRUPTED_EXIT_CODE}
    return {"message": "an error in the harness", "cure": "", "exit_code": ActionableError.exit_code}


def as_error(value: Mapping[str, Any], whose: str) -> ActionableError:
    """Returns the error that ended another node, as far as the value of ENDED describes one."""
    message, cure, code = (value.get(name) for name in ("message", "cure", "exit_code"))
    error = ActionableError(
        f"{whose} ended: {message if isinstance(message, str) else 'no reason given'}",
        cure if isinstance(cure, str) else "",
    )
    error.exit_code = code if type(code) is int and 0 < code <= MAX_EXIT_CODE else TrainingError.exit_code
    return error
