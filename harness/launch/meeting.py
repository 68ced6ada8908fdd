"""How the launching processes of several nodes agree on a run before their ranks start, over node 0's --master.

Each of the other nodes connects to node 0, learns the options that all nodes share, prepares, and says that it is ready
for the run of its signature. When all are ready, node 0 lets them start, and leaves the port to Paddle's launcher. A
node that ends before that lets the others know why.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from harness.errors import MachineError, TrainingError, UsageError
from harness.launch.node_link import BrokenLinkError, Kind, Link, as_error, as_value
from harness.plan.nodes import SAME_OPTIONS, Node, check_signatures, not_all_joined
from models.errors import ActionableError
from models.notes import Note

# Node 0 says this often that it is there, and is taken for lost after that many seconds of silence.
HEARTBEAT_SECONDS, MAX_SILENCE_SECONDS = 1.0, 60.0
# The time that a stranger on the port gets to introduce itself.
HELLO_SECONDS = 10.0
POLL_SECONDS = 0.2
# After this time without the others, node 0 says for whom it waits.
START_ALL = "Start every node with the same options, but for --node-rank."
PATIENCE_SECONDS = 3.0
# When node 0 ends, it waits this long for nodes that should learn why.
MAX_TELL_SECONDS = 30.0


class Meeting:
    """One node's part in the agreement; this one is that of a machine that trains alone, which meets nobody."""

    def __init__(self, node: Node = Node()) -> None:  # noqa: B008 - frozen
        self.node = node

    def propose(self, options: Mapping[str, Any]) -> None:
        """On node 0: give the others the options that all nodes share."""

    def options(self) -> Mapping[str, Any] | None:
        """On another node: those options; None if the run is finished. Raises what ended node 0, or TrainingError."""
        return {}

    def meet(self, signature: Mapping[str, Any]) -> None:
        """Say that this node is ready for the run of this signature; on node 0, also wait for the others.

        Raises what ended another node, UsageError for nodes that mean different runs, TrainingError when nodes are
        missing after the time limit.
        """

    def start(self) -> None:
        """Return when all nodes start their ranks, and the master's port is free for Paddle's launcher.

        Raises what ended node 0, TrainingError when it is lost.
        """

    def finish(self) -> None:
        """On node 0: let the others know that the run is finished."""

    def end(self, error: BaseException) -> None:
        """Let the others know what ended this node, unless the ranks have started."""

    def close(self) -> None:
        """Close every connection."""


ALONE = Meeting()


@contextmanager
def open_meeting(node: Node, timeout: float, say: Callable[[str], None]) -> Iterator[Meeting]:
    """A node's meeting with the others, who learn of an error that ends the block before the ranks start.

    timeout is the rendezvous time-out (s); say prints what the user should know meanwhile. Raises MachineError if node
    0 can't listen.
    """
    meeting = Meeting(node) if node.is_alone else (Host if node.records else Guest)(node, timeout, say)
    try:
        yield meeting
    except BaseException as error:
        meeting.end(error)
        raise
    finally:
        meeting.close()


class Host(Meeting):
    """Node 0's part: a thread for each of the other nodes talks to it."""

    def __init__(self, node: Node, timeout: float, say: Callable[[str], None]) -> None:
        super().__init__(node)
        self._timeout, self._say = timeout, say
        try:
            self._server = socket.create_server(node.master, backlog=node.count)
        except OSError as error:
            raise MachineError(
                f"can't listen on {node.meeting_place} ({error.strerror})",
                "Another run or program may use the port (see ss -ltnp); give another one on every node.",
            ) from error
        self._server.settimeout(POLL_SECONDS)
        # What the threads share, under the condition's lock. The verdict is the last message of every connection.
        self._changed = threading.Condition()
        self._links: dict[int, Link] = {}
        self._ready: dict[int, Mapping[str, Any]] = {}
        self._told: set[int] = set()
        self._shared: Mapping[str, Any] | None = None
        self._failed: ActionableError | None = None
        self._verdict: tuple[Kind, Mapping[str, Any]] | None = None
        self._closed = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def propose(self, options: Mapping[str, Any]) -> None:
        """Give the others the options that all nodes share."""
        with self._changed:
            self._shared = options
            self._changed.notify_all()

    def meet(self, signature: Mapping[str, Any]) -> None:
        """Wait until all nodes are ready for the run of this signature; see `Meeting.meet`."""

        def over() -> bool:
            return self._failed is not None or not self._missing()

        with self._changed:
            if not self._changed.wait_for(over, min(PATIENCE_SECONDS, self._timeout)):
                self._say(Note(f"waiting up to {self._timeout:g} s: {self._missing()}", START_ALL))
                self._changed.wait_for(over, self._timeout - PATIENCE_SECONDS)
            missing, failed = self._missing(), self._failed
            signatures = [signature, *(self._ready[rank] for rank in sorted(self._ready))]
        if failed is not None:
            raise failed
        if missing:
            error = not_all_joined(self.node, self._timeout, f": {missing}")
            self._timeout = 0.0  # they were waited for
            raise error
        check_signatures(signatures, range(self.node.count))

    def start(self) -> None:
        """Let the other nodes start, and release the port."""
        self._decide(Kind.START, {}, MAX_TELL_SECONDS)
        self.close()

    def finish(self) -> None:
        """Let the others know that the run is finished."""
        self._tell(Kind.FINISHED, {}, "the run is finished")

    def end(self, error: BaseException) -> None:
        """Let the others know what ended this node; those that come a little later, too, unless after a Ctrl-C."""
        if isinstance(error, ActionableError):
            self._tell(Kind.ENDED, as_value(error), error.message)
        elif self._verdict is None:
            self._decide(Kind.ENDED, as_value(error), HEARTBEAT_SECONDS)

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._listener.join()

    def _missing(self) -> str:
        """The nodes that aren't ready, in words; empty if all are."""
        unready = [rank for rank in range(1, self.node.count) if rank not in self._ready]
        return ", ".join(f"node {rank} {'is not ready' if rank in self._links else 'has not come'}" for rank in unready)

    def _tell(self, kind: Kind, value: Mapping[str, Any], reason: str) -> None:
        if self._verdict is not None or self._decide(kind, value, HEARTBEAT_SECONDS):
            return
        seconds = min(self._timeout, MAX_TELL_SECONDS)
        if seconds:
            self._say(
                Note(
                    f"{reason}; waiting up to {seconds:g} s to let the other nodes know (Ctrl-C ends the wait)",
                    "Wait, or press Ctrl-C.",
                )
            )
            with suppress(KeyboardInterrupt):
                self._decide(kind, value, seconds)

    def _decide(self, kind: Kind, value: Mapping[str, Any], seconds: float) -> bool:
        """Set the verdict, unless it is set. Returns whether all nodes got it within that time."""
        with self._changed:
            if self._verdict is None:
                self._verdict = (kind, value)
                for link in self._links.values():
                    link.stop_receiving()
                self._changed.notify_all()
            return self._changed.wait_for(lambda: len(self._told) == self.node.count - 1, seconds)

    def _listen(self) -> None:
        with self._server:
            while not self._closed:
                with suppress(OSError):
                    link = Link(self._server.accept()[0])
                    threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: Link) -> None:
        # A stranger is left alone; a node that is lost may come again.
        with suppress(BrokenLinkError):
            kind, value = link.receive(HELLO_SECONDS)
            rank, nodes = value.get("node"), value.get("nodes")
            if kind is Kind.HELLO and type(rank) is int and type(nodes) is int:
                refusal = self._seat(link, rank, nodes)
                if refusal is None:
                    self._talk(link, rank)
                else:
                    self._say(
                        Note(f"a node was turned away: {refusal.message}", "Start that node as its own error says.")
                    )
                    link.send(Kind.ENDED, as_value(refusal))
        with self._changed:
            for rank in [rank for rank, its in self._links.items() if its is link]:
                del self._links[rank]
                self._ready.pop(rank, None)
            self._changed.notify_all()
        link.close()

    def _seat(self, link: Link, rank: int, nodes: int) -> UsageError | None:
        """Give a node its place. Returns why it gets none."""
        with self._changed:
            if nodes != self.node.count:
                return UsageError(f"--nnodes is {self.node.count} on node 0, {nodes} on node {rank}", SAME_OPTIONS)
            if not 0 < rank < self.node.count or rank in self._links:
                return UsageError(f"another machine has joined with --node-rank {rank}", SAME_OPTIONS)
            self._links[rank] = link
        return None

    def _talk(self, link: Link, rank: int) -> None:
        """Give a node the options, hear that it is ready or what ended it, and send it the verdict."""
        self._wait(link, lambda: self._shared is not None)
        if self._verdict is None:
            link.send(Kind.OPTIONS, self._shared or {})
            try:
                kind, value = link.receive()
            except BrokenLinkError:
                # A verdict ends the receive, too.
                if self._verdict is None:
                    raise
            else:
                with self._changed:
                    if kind is Kind.READY:
                        self._ready[rank] = value
                    elif kind is Kind.ENDED:
                        self._failed = self._failed or as_error(value, f"node {rank}")
                        self._told.add(rank)
                    self._changed.notify_all()
        self._wait(link, lambda: False)
        assert self._verdict is not None
        link.send(*self._verdict)
        with self._changed:
            self._told.add(rank)
            self._changed.notify_all()

    def _wait(self, link: Link, come: Callable[[], bool]) -> None:
        """Return when something has come, or the verdict; until then let the node know that this one is there."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: come() or self._verdict is not None, HEARTBEAT_SECONDS):
                    return
            link.send(Kind.WAIT)


class Guest(Meeting):
    """Another node's part: one connection to node 0."""

    def __init__(self, node: Node, timeout: float, say: Callable[[str], None]) -> None:
        super().__init__(node)
        self._timeout, self._say = timeout, say
        # None before the connection, and when nothing more is to be said.
        self._link: Link | None = None

    def options(self) -> Mapping[str, Any] | None:
        """Connect to node 0 and wait for the options that all nodes share; see `Meeting.options`."""
        began, waits = time.monotonic(), False
        while True:
            remaining = max(POLL_SECONDS, min(HELLO_SECONDS, began + self._timeout - time.monotonic()))
            try:
                self._link = Link(socket.create_connection(self.node.master, timeout=remaining))
                self._link.send(Kind.HELLO, {"node": self.node.rank, "nodes": self.node.count})
                kind, value = self._link.receive(HELLO_SECONDS)
                break
            except (OSError, BrokenLinkError) as error:
                # Nobody listens yet, or the launcher of an earlier run that is about to end.
                self.close()
                if time.monotonic() > began + self._timeout:
                    raise not_all_joined(self.node, self._timeout, ": node 0 doesn't answer") from error
            if not waits and time.monotonic() > began + PATIENCE_SECONDS:
                self._say(Note(f"waiting up to {self._timeout:g} s for node 0 at {self.node.meeting_place}", START_ALL))
                waits = True
            time.sleep(POLL_SECONDS)
        while kind is Kind.WAIT:
            kind, value = self._receive()
        if kind is Kind.ENDED:
            self.close()
            raise as_error(value, "node 0")
        if kind not in (Kind.OPTIONS, Kind.FINISHED):
            raise self._lost()
        return value if kind is Kind.OPTIONS else None

    def meet(self, signature: Mapping[str, Any]) -> None:
        """Say that this node is ready."""
        # Where node 0 has ended, its last message says why.
        with suppress(BrokenLinkError):
            self._connected().send(Kind.READY, dict(signature))

    def start(self) -> None:
        """Wait until node 0 lets all nodes start."""
        kind, value = self._receive()
        while kind is Kind.WAIT:
            kind, value = self._receive()
        self.close()
        if kind is Kind.ENDED:
            raise as_error(value, "node 0")
        if kind is not Kind.START:
            raise self._lost()

    def end(self, error: BaseException) -> None:
        """Let node 0 know what ended this node."""
        if self._link is not None:
            with suppress(BrokenLinkError):
                self._link.send(Kind.ENDED, as_value(error))

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _receive(self) -> tuple[Kind, dict[str, Any]]:
        """The next message. Raises TrainingError when node 0 is lost."""
        try:
            return self._connected().receive(MAX_SILENCE_SECONDS)
        except BrokenLinkError as error:
            self.close()
            raise self._lost() from error

    def _lost(self) -> TrainingError:
        return TrainingError(
            f"node 0 ({self.node.meeting_place}) was lost before the run began",
            "Check what it printed, and the network; then start every node again.",
        )

    def _connected(self) -> Link:
        assert self._link is not None, "options() connects first"
        return self._link
