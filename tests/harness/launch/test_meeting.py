"""Case B9: how nodes agree on a run before their ranks start. Every node is a thread, on the loopback interface."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import harness.launch.meeting
from harness.errors import MachineError, TrainingError, UsageError
from harness.launch.meeting import Meeting, open_meeting
from harness.launch.node_link import MAX_LINE_BYTES
from harness.plan.nodes import Node
from models.errors import ActionableError

HOST = "127.0.0.1"
SHARED = {"epochs": 3, "model": "x0_25"}
SIGNATURE = {"epochs": 3, "ranks": 2}
TIMEOUT = 60.0


@pytest.fixture
def port() -> int:
    with socket.create_server((HOST, 0)) as server:
        number: int = server.getsockname()[1]
    return number


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


class Nodes:
    """The nodes of one run; what they print is in said."""

    def __init__(self, port: int, pool: ThreadPoolExecutor, count: int = 2) -> None:
        self.port, self.count, self._pool = port, count, pool
        self.said: list[str] = []

    @contextmanager
    def meeting(self, rank: int, timeout: float = TIMEOUT, count: int | None = None) -> Iterator[Meeting]:
        node = Node(count or self.count, rank, (HOST, self.port))
        with open_meeting(node, timeout, self.said.append) as meeting:
            yield meeting

    def later(self, part: Callable[..., Any], rank: int, **more: Any) -> Future[Any]:
        def run() -> Any:
            with self.meeting(rank, **more) as meeting:
                return part(meeting)

        return self._pool.submit(run)


@pytest.fixture
def nodes(port: int, pool: ThreadPoolExecutor) -> Nodes:
    return Nodes(port, pool)


def take_part(meeting: Meeting, signature: Mapping[str, Any] = SIGNATURE) -> Mapping[str, Any] | None:
    """What a node does that has nothing against the run; the options that it got."""
    if meeting.node.records:
        meeting.propose(SHARED)
        shared: Mapping[str, Any] | None = SHARED
    else:
        shared = meeting.options()
    if shared is not None:
        meeting.meet(signature)
        meeting.start()
    return shared


@pytest.mark.parametrize("count", [2, 4])
def test_all_get_the_options_and_then_the_port_is_free(port: int, pool: ThreadPoolExecutor, count: int) -> None:
    nodes = Nodes(port, pool, count)
    others = [nodes.later(take_part, rank) for rank in range(1, count)]
    with nodes.meeting(0) as meeting:
        take_part(meeting)
        # As Paddle's launcher does, at once and on all addresses.
        with socket.create_server(("", port)):
            assert [other.result() for other in others] == [SHARED] * (count - 1)


def test_a_finished_run_ends_every_node(nodes: Nodes) -> None:
    other = nodes.later(take_part, 1)
    with nodes.meeting(0) as meeting:
        meeting.finish()
    assert other.result() is None


@pytest.mark.parametrize("proposed", [False, True], ids=["before the options", "while the other prepares"])
def test_what_ends_node_0_ends_the_others(nodes: Nodes, proposed: bool) -> None:
    prepared = threading.Event()

    def prepare(meeting: Meeting) -> None:
        meeting.options()
        prepared.wait()
        meeting.meet(SIGNATURE)
        meeting.start()

    other = nodes.later(prepare, 1)
    with pytest.raises(MachineError, match=r"^no room$"), nodes.meeting(0) as meeting:  # noqa: PT012
        if proposed:
            meeting.propose(SHARED)
            # Until it has them.
            threading.Timer(0.5, prepared.set).start()
        raise MachineError("no room", "make some")
    prepared.set()
    with pytest.raises(ActionableError) as caught:
        other.result()
    assert (caught.value.message, caught.value.cure) == ("node 0 ended: no room", "make some")
    assert caught.value.exit_code == MachineError.exit_code


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (UsageError("no folder x", "give one"), "no folder x", 2),
        (KeyboardInterrupt(), "interrupted", 75),
        (ZeroDivisionError(), "an error in the harness", 1),
    ],
)
def test_what_ends_another_node_ends_all(
    port: int, pool: ThreadPoolExecutor, error: BaseException, message: str, code: int
) -> None:
    nodes = Nodes(port, pool, 3)

    def fail(meeting: Meeting) -> None:
        meeting.options()
        raise error

    failing, other = nodes.later(fail, 1), nodes.later(take_part, 2)
    with pytest.raises(ActionableError) as caught, nodes.meeting(0) as meeting:
        take_part(meeting)
    assert (caught.value.message, caught.value.exit_code) == (f"node 1 ended: {message}", code)
    with pytest.raises(ActionableError, match=f"^node 0 ended: node 1 ended: {message}$"):
        other.result()
    assert isinstance(failing.exception(), type(error))


def test_nodes_that_mean_other_runs_are_told_the_difference(nodes: Nodes) -> None:
    other = nodes.later(lambda meeting: take_part(meeting, {"epochs": 4, "ranks": 2}), 1)
    different = r"^node 1 was started for a different run than node 0$"
    with pytest.raises(UsageError, match=different), nodes.meeting(0) as meeting:
        take_part(meeting)
    with pytest.raises(ActionableError) as caught:
        other.result()
    assert caught.value.exit_code == 2
    assert caught.value.cure.startswith("--epochs: 3 on node 0, 4 on node 1\n")


def test_a_node_that_does_not_come_is_named(port: int, pool: ThreadPoolExecutor) -> None:
    nodes = Nodes(port, pool, 3)
    other = nodes.later(take_part, 2)
    with pytest.raises(TrainingError) as caught, nodes.meeting(0, timeout=1.0) as meeting:
        take_part(meeting)
    assert caught.value.message == f"not all of the 3 nodes joined at {HOST}:{port} within 1 s: node 1 has not come"
    with pytest.raises(ActionableError, match=r"^node 0 ended: not all of the 3 nodes joined"):
        other.result()


def test_node_0_that_does_not_come_is_not_waited_for_for_good(nodes: Nodes) -> None:
    with pytest.raises(TrainingError, match=r"within 0.5 s: node 0 doesn't answer$"), nodes.meeting(1, 0.5) as meeting:
        take_part(meeting)
    assert nodes.said == []


def test_a_node_says_for_whom_it_waits(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.launch.meeting, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(TrainingError), nodes.meeting(1, 0.5) as meeting:
        take_part(meeting)
    with pytest.raises(TrainingError), nodes.meeting(0, 0.5) as meeting:
        take_part(meeting)
    assert nodes.said == [
        f"waiting up to 0.5 s for node 0 at {HOST}:{nodes.port}", "waiting up to 0.5 s: node 1 has not come"
    ]  # fmt: skip


def test_two_machines_under_one_number_and_another_number_of_nodes_are_turned_away(nodes: Nodes) -> None:
    come = threading.Event()

    def take_part_noticed(meeting: Meeting) -> None:
        meeting.options()
        come.set()
        meeting.meet(SIGNATURE)
        meeting.start()

    with nodes.meeting(0) as meeting:
        meeting.propose(SHARED)
        first = nodes.later(take_part_noticed, 1)
        come.wait()
        with pytest.raises(ActionableError, match=r"^node 0 ended: another machine has joined with --node-rank 1$"):
            nodes.later(take_part, 1).result()
        with pytest.raises(ActionableError, match=r"^node 0 ended: --nnodes is 2 on node 0, 3 on node 2$"):
            nodes.later(take_part, 2, count=3).result()
        meeting.meet(SIGNATURE)
        meeting.start()
        first.result()
    assert len(nodes.said) == 2


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[" * (MAX_LINE_BYTES - 2) + b"\n",
        b"x" * (4 * MAX_LINE_BYTES),
        b'{"kind": "hello", "value": {"node": true, "nodes": 2}}\n',
        b'{"kind": "hello", "value": [1, 2]}\n',
        b'{"kind": [], "value": {}}\n',
        b'{"kind": "start", "value": {}}\n',
        json.dumps({"kind": "hello", "value": {"node": -1, "nodes": 2}}).encode() + b"\n",
        b"\xff\n",
    ],
)
def test_strangers_on_the_port_change_nothing(nodes: Nodes, text: bytes) -> None:
    with nodes.meeting(0) as meeting, socket.create_connection((HOST, nodes.port)) as stranger:
        stranger.sendall(text)
        silent = socket.create_connection((HOST, nodes.port))
        other = nodes.later(take_part, 1)
        take_part(meeting)
        assert other.result() == SHARED
        silent.close()


def test_a_node_that_was_lost_may_come_again(nodes: Nodes) -> None:
    with nodes.meeting(0) as meeting:
        meeting.propose(SHARED)
        with socket.create_connection((HOST, nodes.port)) as lost, lost.makefile("rb") as stream:
            lost.sendall(b'{"kind": "hello", "value": {"node": 1, "nodes": 2}}\n')
            assert b'"options"' in stream.readline()
        host = threading.Thread(target=take_part, args=(meeting,))
        host.start()
        come = nodes.later(take_part, 1)
        while (error := come.exception()) is not None:
            # Node 0 has not noticed yet.
            assert "another machine has joined" in str(error)
            come = nodes.later(take_part, 1)
        assert come.result() == SHARED
        host.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 404 Not Found\r\n\r\n",
        b'{"kind": "options", "value": {"epochs": 3}',
        b"",
    ],
)
def test_something_else_on_node_0_s_port_is_waited_for(nodes: Nodes, pool: ThreadPoolExecutor, answer: bytes) -> None:
    """Such as the launcher of an earlier run, which is about to end."""
    with socket.create_server((HOST, nodes.port)) as earlier:
        other = nodes.later(take_part, 1)
        connection, _ = earlier.accept()
        with connection:
            connection.sendall(answer)
    with nodes.meeting(0) as meeting:
        take_part(meeting)
    assert other.result() == SHARED


def answering(server: socket.socket, *lines: bytes) -> None:
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as stream:
        stream.readline()
        connection.sendall(b"".join(lines))


@pytest.mark.parametrize(
    ("lines", "said", "code"),
    [
        ([b'{"kind": "wait", "value": {}}\n'], "was lost before the run began", 5),
        ([b'{"kind": "start", "value": {}}\n'], "was lost before the run began", 5),
        ([b'{"kind": "ended", "value": {}}\n'], "^node 0 ended: no reason given$", 5),
        ([b'{"kind": "ended", "value": {"message": 1, "cure": 2, "exit_code": 0}}\n'], "no reason given", 5),
        ([b'{"kind": "ended", "value": {"message": "so", "cure": "", "exit_code": 4}}\n'], "^node 0 ended: so$", 4),
    ],
)
def test_a_node_ends_with_what_it_can_make_of_node_0(
    nodes: Nodes, pool: ThreadPoolExecutor, lines: list[bytes], said: str, code: int
) -> None:
    with socket.create_server((HOST, nodes.port)) as server:
        pool.submit(answering, server, *lines)
        with pytest.raises(ActionableError, match=said) as caught, nodes.meeting(1) as meeting:
            take_part(meeting)
    assert caught.value.exit_code == code


def test_a_silent_node_0_is_not_waited_for_for_good(
    nodes: Nodes, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.launch.meeting, "MAX_SILENCE_SECONDS", 0.3)
    with socket.create_server((HOST, nodes.port)) as server:
        ended = threading.Event()

        def be_silent() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b'{"kind": "wait", "value": {}}\n')
                ended.wait()

        pool.submit(be_silent)
        try:
            with pytest.raises(TrainingError, match="was lost before the run began"), nodes.meeting(1) as meeting:
                take_part(meeting)
        finally:
            ended.set()


def test_a_port_that_is_taken_is_refused(nodes: Nodes) -> None:
    with socket.create_server((HOST, nodes.port)):
        meeting = nodes.meeting(0)
        with pytest.raises(MachineError, match="can't listen on"):
            meeting.__enter__()
