"""Runs a function in its own process, which is killed with all its children once its time is up.

A driver that hangs, or a library that crashes, is then a finding, and not the end of the program that looks for it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness import ROOT
from harness.doctor.check import FAIL, Context, Finding
from harness.launch.limited_process import LimitedProcess, last_line, read_whole
from harness.launch.private_folder import private_folder
from models.errors import ActionableError

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_CHARACTERS = 2000
NO_ANSWER = "no answer"
_CODE = f"import sys; sys.path[0] = {str(ROOT)!r}; from harness.doctor.isolation import answer; answer(*sys.argv[1:])"


def run_isolated(
    function: Callable[..., Finding],
    context: Context,
    limit_seconds: float,
    *,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Finding:
    """Returns what a module's function finds in a new process; also that it hung, crashed or raised an error.

    function(context, **options) is found again by its name; options are values for JSON.
    """
    with Isolated(function, context, limit_seconds, options=options, environment=environment) as running:
        return running.finding()


class Isolated:
    """A function that runs in its own process from when this is made; inside a `with`, at whose end it is over.

    Nothing that it wrote to its temporary folder stays. Raises MachineError where no temporary folder can be made.
    """

    def __init__(
        self,
        function: Callable[..., Finding],
        context: Context,
        limit_seconds: float,
        *,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._limit_seconds = limit_seconds
        self._open = ExitStack()
        folder = self._open.enter_context(private_folder("doctor"))
        # In memory: a full disk is for a check to find, and a pipe would stay open in what the function starts.
        self._answer, self._output = os.memfd_create("answer"), os.memfd_create("output")
        words = [f"{function.__module__}:{function.__qualname__}", json.dumps(asdict(context)),
                 json.dumps(dict(options or {})), str(self._answer)]  # fmt: skip
        self._process = LimitedProcess(
            [sys.executable, "-c", _CODE, *words],
            limit_seconds,
            environment={**environment, "TMPDIR": str(folder)},
            stdout=self._output,
            stderr=self._output,
            pass_fds=(self._answer,),
        )

    def finding(self) -> Finding:
        """Wait for the function's end, at most for its time limit. Returns what it found, or how it ended."""
        end = self._process.end()
        last = last_line(read_whole(self._output), MAX_CHARACTERS)
        if not end.in_time:
            limit = f"{round(self._limit_seconds, 1):g} s"
            unended = "" if end.code is not None else "; the kernel could not end its process"
            return Finding(
                FAIL,
                f"{NO_ANSWER} within {limit}",
                f"an answer within {limit}",
                f"it hung and was killed{unended}" + (f"; its last words: {last}" if last else ""),
                "See what the kernel reports of drivers and disks: dmesg -T | tail -n 50",
            )
        text = read_whole(self._answer)
        with suppress(ValueError, TypeError):
            return Finding(**json.loads(text))
        by = end.signal_name
        how = f"ended by {by}" if by else f"ended with exit code {end.code} without an answer"
        return Finding(FAIL, how, "an answer", f"it crashed; its last words: {last or 'none'}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)
        os.close(self._answer)
        os.close(self._output)
        self._open.close()


def answer(name: str, context: str, options: str, descriptor: str) -> None:
    """Call the function of this name (module:function) and write what it finds, as JSON, to the descriptor."""
    try:
        module, _, function = name.partition(":")
        found: Finding = getattr(importlib.import_module(module), function)(
            Context(**json.loads(context)), **json.loads(options)
        )
    except ActionableError as error:
        found = Finding(FAIL, reason=error.message, cure=error.cure)
    except Exception as error:
        traceback.print_exc()
        found = Finding(FAIL, f"{type(error).__name__}", reason=str(error) or traceback.format_exc())
    values = {field: value[:MAX_CHARACTERS] for field, value in asdict(found).items()}
    os.write(int(descriptor), json.dumps(values).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    # Libraries that are unloaded may wait for a device.
    os._exit(0)
