"""Ranks that wait for one that is late, without the limit of the collective library."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from harness.launch import gate as gate_module
from harness.launch.failures import GATE_PEER
from harness.launch.gate import TOKEN_BYTES, FloatArray, Gate, open_gate

TOKEN = bytes(range(TOKEN_BYTES))


def gates(count: int) -> list[Gate]:
    """The gates of so many ranks."""
    told: dict[str, FloatArray] = {}
    known = threading.Event()

    def gather_of(rank: int) -> Callable[[FloatArray], FloatArray]:
        def gather(values: FloatArray) -> FloatArray:
            if rank == 0:
                told["0"] = values
                known.set()
            known.wait(30)
            return np.stack([told["0"]] * count)

        return gather

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: open_gate(rank, count, "127.0.0.1", gather_of(rank), TOKEN), range(count)))


def close(opened: list[Gate]) -> None:
    for gate in opened:
        for connection, _ in gate.connections:
            connection.close()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("late", [0, 1])
def test_no_rank_passes_before_all_have_come(count: int, late: int) -> None:
    opened = gates(count)
    passed: list[int] = []

    def meet(rank: int) -> None:
        opened[rank].meet()
        passed.append(rank)

    with ThreadPoolExecutor(count) as pool:
        for _ in range(3):
            passed.clear()
            early = [pool.submit(meet, rank) for rank in range(count) if rank != late]
            assert not any(one.done() for one in early)
            assert passed == []
            meet(late)
            for one in early:
                one.result(30)
            assert sorted(passed) == list(range(count))
    close(opened)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_rank_that_is_gone_is_an_error_of_those_that_wait_for_it(gone: int) -> None:
    opened = gates(2)
    close([opened[gone]])
    with pytest.raises(ConnectionError) as caught:
        opened[1 - gone].meet()
    found = GATE_PEER.search(str(caught.value))
    assert found is not None
    assert found["address"] == "127.0.0.1"
    close(opened)


@pytest.mark.parametrize("sent", [b"", b"x", bytes(TOKEN_BYTES)])
def test_who_does_not_know_the_token_is_not_a_rank(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a port scan, which may send nothing and stay connected."""
    monkeypatch.setattr(gate_module, "STRANGER_SECONDS", 0.05)
    strangers: list[socket.socket] = []
    known: dict[str, FloatArray] = {}
    ready = threading.Event()

    def gather(values: FloatArray) -> FloatArray:
        known["0"] = values
        strangers.append(socket.create_connection(("127.0.0.1", int(values[0]))))
        strangers[0].sendall(sent)
        ready.set()
        return np.stack([values] * 2)

    def gather_later(_: FloatArray) -> FloatArray:
        ready.wait(30)
        return np.stack([known["0"]] * 2)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(open_gate, 0, 2, "127.0.0.1", gather, TOKEN)
        second = pool.submit(open_gate, 1, 2, "127.0.0.1", gather_later, TOKEN)
        opened = [first.result(30), second.result(30)]
        meetings = [pool.submit(gate.meet) for gate in opened]
        for meeting in meetings:
            meeting.result(30)
    close(opened)
    strangers[0].close()
