"""Python loads this in every process that tests start: it writes down which lines of the tool make notes and errors."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

# The file that gets a line `path:line` for each line of a source that makes one, each once in a process.
FILE = "SEEN_MESSAGES"
_written: set[str] = set()


def see() -> None:
    """Write down the line that makes a message: the one that calls what calls this."""
    frame = sys._getframe(2)
    line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    # A message that a module makes as it is loaded has not happened.
    if frame.f_code.co_name == "<module>" or line in _written or FILE not in os.environ:
        return
    _written.add(line)
    # Tests limit the size of files.
    with suppress(OSError), open(os.environ[FILE], "a", encoding="utf-8") as stream:  # noqa: PTH123 - pathlib is slow
        stream.write(f"{line}\n")


def _is_watched(module: ModuleType) -> bool:
    """Whether a module has been changed already; from now on it has."""
    before = module.__dict__.get("is_watched", False)
    module.__dict__["is_watched"] = True
    return bool(before)


def watch_errors(module: ModuleType) -> None:
    """Make the errors of models.errors be written down."""
    if _is_watched(module):
        return
    made = module.ActionableError.__init__

    def error(self: Any, message: str, cure: str = "") -> None:
        see()
        made(self, message, cure)

    module.ActionableError.__init__ = error


def watch_notes(module: ModuleType) -> None:
    """Make the notes of models.notes be written down."""
    if _is_watched(module):
        return
    made = module.Note.__new__

    def note(cls: Any, text: str, cure: str = "") -> Any:
        see()
        return made(cls, text, cure)

    module.Note.__new__ = note


WATCHED: dict[str, Callable[[ModuleType], None]] = {"models.errors": watch_errors, "models.notes": watch_notes}


class _Finder(MetaPathFinder):
    """Finds the watched modules as Python does, and changes them once they are loaded."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        watch = WATCHED.get(fullname)
        spec = None if watch is None else importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if watch is None or spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            watch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FILE in os.environ:
    sys.meta_path.insert(0, _Finder())
