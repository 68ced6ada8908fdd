"""The processes of a measurement, from the side that asks: one that exports, and one for each engine.

An engine that crashes, hangs or gives other logits is a finding about it, and the others go on.
"""

from __future__ import annotations

import json
import math
import os
import select
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from harness import ROOT
from harness.errors import MachineError
from harness.latency.worker import FAILED, LOAD, PROFILE, TIME
from harness.launch.limited_process import LimitedProcess, last_line, read_whole

if TYPE_CHECKING:
    from typing_extensions import Self

# To load a network, to convert it for ONNX, or to build it for TensorRT; and to answer beyond the seconds asked for.
LOAD_SECONDS, ANSWER_SECONDS = 300.0, 120.0
EXPORT_SECONDS = 600.0
PIECE_BYTES = 1 << 16
_CODE = f"import sys; sys.path[0] = {str(ROOT)!r}; "
SERVE = _CODE + "from harness.latency.worker import serve; serve(*sys.argv[1:])"
EXPORT = _CODE + "from harness.latency.exporting import export_models; export_models(*sys.argv[1:])"


class EngineFailed(Exception):  # noqa: N818 - a finding, for the caller to report
    """An engine crashed, hung, gave other logits or raised an error; reason says which.

    is_over: its process can't answer any more.
    """

    def __init__(self, reason: str, *, is_over: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_over = reason, is_over


@dataclass(frozen=True, slots=True)
class Timed:
    """The milliseconds of each call of a turn, and the largest difference from the trained network's logits."""

    milliseconds: tuple[float, ...]
    logits_error: float


class Timer(Protocol):
    """What times one engine's sizes."""

    def load(self, size: str) -> None:
        """Load a size. Raises EngineFailed."""

    def time(self, size: str, seconds: float, min_calls: int) -> Timed:
        """Time calls of a size that is loaded. Raises EngineFailed."""


def export(folder: Path, environment: Mapping[str, str], limit_seconds: float = EXPORT_SECONDS) -> None:
    """Export the networks of the folder's job. Raises MachineError if that fails."""
    with ExitStack() as stack:
        output = _in_memory(stack, "output")
        process = stack.enter_context(
            LimitedProcess(
                [sys.executable, "-c", EXPORT, str(folder)],
                limit_seconds,
                environment=environment,
                stdout=output,
                stderr=output,
            )
        )
        end = process.end()
        if end.code == 0 and end.in_time:
            return
        how = f"ended by {end.signal_name}" if end.signal_name else f"exit code {end.code}"
        how = how if end.in_time else f"no end within {limit_seconds:g} s"
        words = last_line(read_whole(output))
    raise MachineError(
        f"the networks could not be exported ({how}): {words or 'without a word'}",
        "See what is missing for Paddle: python run_bench.py doctor --level devices",
    )


class EngineProcess:
    """An engine in its own process, from when this is made; inside a `with`, at whose end it is over.

    code is what the process runs, with the arguments of `harness.latency.worker.serve`.
    """

    def __init__(self, engine: str, folder: Path, environment: Mapping[str, str], code: str = SERVE) -> None:
        self._open = ExitStack()
        self._output = _in_memory(self._open, "output")
        asked, self._ask = os.pipe()
        self._answers, answered = os.pipe()
        try:
            self._process = self._open.enter_context(
                LimitedProcess(
                    [sys.executable, "-c", code, engine, str(folder), str(answered)],
                    math.inf,
                    environment=environment,
                    stdin=asked,
                    stdout=self._output,
                    stderr=self._output,
                    pass_fds=(answered,),
                )
            )
        finally:
            # Now only the process has these ends: when it is gone, so are they.
            os.close(asked)
            os.close(answered)
        self._open.callback(os.close, self._ask)
        self._open.callback(os.close, self._answers)
        self._pending, self._ended = b"", ""

    def load(self, size: str) -> None:
        """Load a size, and compare its logits. Raises EngineFailed."""
        self._answer({"do": LOAD, "size": size}, LOAD_SECONDS)

    def time(self, size: str, seconds: float, min_calls: int) -> Timed:
        """Time calls of a size that is loaded, for these seconds and min_calls at least. Raises EngineFailed."""
        asked = {"do": TIME, "size": size, "seconds": seconds, "min_calls": min_calls}
        return _timed(self._answer(asked, seconds + ANSWER_SECONDS))

    def profile(self, size: str, calls: int) -> Timed:
        """Make calls of a size, each after a mark on standard output. Raises EngineFailed."""
        return _timed(self._answer({"do": PROFILE, "size": size, "calls": calls}, ANSWER_SECONDS))

    @property
    def printed(self) -> str:
        """Everything that the process has printed."""
        return read_whole(self._output)

    def _answer(self, asked: Mapping[str, Any], limit_seconds: float) -> dict[str, Any]:
        try:
            os.write(self._ask, json.dumps(asked).encode() + b"\n")
        except BrokenPipeError:
            raise EngineFailed(self._how_it_ended(), is_over=True) from None
        deadline = time.monotonic() + limit_seconds
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise EngineFailed(f"no answer within {limit_seconds:g} s", is_over=True)
            piece = os.read(self._answers, PIECE_BYTES)
            if not piece:
                raise EngineFailed(self._how_it_ended(), is_over=True)
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if FAILED in answer:
            raise EngineFailed(str(answer[FAILED]))
        return answer

    def _how_it_ended(self) -> str:
        if not self._ended:  # it can be asked once
            end = self._process.end()
            how = f"crashed by {end.signal_name}" if end.signal_name else f"ended with exit code {end.code}"
            self._ended = f"{how}; its last words: {last_line(self.printed) or 'none'}"
        return self._ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def _timed(answer: Mapping[str, Any]) -> Timed:
    return Timed(tuple(answer["milliseconds"]), float(answer["error"]))


def _in_memory(stack: ExitStack, name: str) -> int:
    """A file in memory: a pipe would have to be read while the process writes."""
    descriptor = os.memfd_create(name)
    stack.callback(os.close, descriptor)
    return descriptor
