"""Sees to it that every note and error of the tool happens in some test; otherwise a run of all tests fails at its end.

What happens in processes that tests start isn't seen; ELSEWHERE has the tests of these messages.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT
from harness.report.messages import all_messages
from models.errors import ActionableError
from models.notes import Note

# By the message's id, the test in which it happens in another process, or in a table that is made once.
ELSEWHERE: dict[str, str] = {}

_seen: set[tuple[str, int]] = set()


def _see() -> None:
    """Note the line that makes the message."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in ("__init__", "__new__") and frame.f_back is not None:
        frame = frame.f_back
    file = Path(frame.f_code.co_filename)
    if frame.f_code.co_name != "<module>" and file.is_relative_to(ROOT):
        _seen.add((str(file.relative_to(ROOT)), frame.f_lineno))


def pytest_configure() -> None:
    make_error, make_note = ActionableError.__init__, Note.__new__

    def error(self: ActionableError, message: str, cure: str = "") -> None:
        _see()
        make_error(self, message, cure)

    def note(cls: type[Note], text: str, cure: str = "") -> Note:
        _see()
        return make_note(cls, text, cure)

    ActionableError.__init__ = error  # type: ignore[method-assign]
    Note.__new__ = note  # type: ignore[method-assign,assignment]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist has seen."""
    _seen.update((file, line) for file, line in getattr(node, "workeroutput", {}).get("messages", ()))


def unseen() -> list[str]:
    """The messages that nothing has made, as far as is known."""
    return [
        f"{one.id} ({one.file}:{one.first})"
        for one in all_messages()
        if one.id not in ELSEWHERE and not any((one.file, line) in _seen for line in range(one.first, one.last + 1))
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["messages"] = sorted(_seen)
        return
    chosen = config.getoption("file_or_dir") or any(config.getoption(name) for name in ("keyword", "markexpr", "lf"))
    if chosen or session.testsfailed or config.getoption("collectonly"):
        return
    if missing := unseen():
        print(f"\n{len(missing)} messages happened in no test:", *missing, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
