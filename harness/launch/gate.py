"""Where ranks meet before they exchange something through gloo.

Gloo gives up on a rank that is 30 s late, and Paddle (3.3.1) has no option for that. A rank may be late for longer: the
storage of its images is away, or it writes a checkpoint to a slow disk. At the gate the others wait without a time
limit; the watchdog's applies.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TOKEN_BYTES = 6  # as a whole number, float64 has it exactly
HERE = b"\1"
# A rank sends its token as soon as it is connected.
STRANGER_SECONDS = 5.0
BROKEN = "the connection broke to the rank at"


@dataclass(frozen=True, slots=True)
class Gate:
    """Rank 0's connections to all others; on another rank, its connection to rank 0. Each has its peer's address."""

    connections: Sequence[tuple[socket.socket, str]]
    leads: bool

    def meet(self) -> None:
        """Return once every rank has called this equally often.

        Raises ConnectionError, with the address of a rank that has ended or can't be reached.
        """
        if self.leads:
            for connection, address in self.connections:
                with _naming(address):
                    _receive(connection, 1)
        for connection, address in self.connections:
            with _naming(address):
                connection.sendall(HERE)
                if not self.leads:
                    _receive(connection, 1)


def open_gate(rank: int, world_size: int, host: str, gather: Callable[[FloatArray], FloatArray], token: bytes) -> Gate:
    """Connect the ranks; every rank calls this at the same moment.

    host is rank 0's address. gather returns every rank's values, on each rank. Whoever connects must know rank 0's
    token, of TOKEN_BYTES.
    """
    if rank:
        port, expected = gather(np.zeros(2))[0].astype(int).tolist()
        connection = socket.create_connection((host, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(expected.to_bytes(TOKEN_BYTES, "big"))
        return Gate([(connection, host)], leads=False)
    with socket.create_server((host, 0), backlog=world_size) as server:
        gather(np.array([server.getsockname()[1], int.from_bytes(token, "big")], np.float64))
        connections: list[tuple[socket.socket, str]] = []
        while len(connections) < world_size - 1:
            connection, (address, *_) = server.accept()
            if _knows(connection, token):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections.append((connection, address))
            else:
                connection.close()
    return Gate(connections, leads=True)


def _knows(connection: socket.socket, token: bytes) -> bool:
    """Whether a peer sends the token soon; anything else, such as a port scan, is not a rank."""
    connection.settimeout(STRANGER_SECONDS)
    try:
        return _receive(connection, TOKEN_BYTES) == token
    except OSError:
        return False
    finally:
        connection.settimeout(None)


@contextmanager
def _naming(address: str) -> Iterator[None]:
    """Turn an error of a connection into one that names the peer, as `harness.launch.failures` finds it in a log."""
    try:
        yield
    except OSError as error:
        raise ConnectionError(f"{BROKEN} [{address}]: {error.strerror or error}") from error


def _receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise ConnectionError("connection closed by peer")
        received += part
    return received
