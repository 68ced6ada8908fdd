"""Looks up runs and series by name, and distinguishes them from other files in --results."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError

RUN, SERIES, LATENCY = "run", "series", "latency"
MAX_LISTED = 5  # runs in a cure
NAME_A_RECORD = "Name a <run>.json that run_bench.py wrote."


def find_run(name: str, folder: Path) -> Path:
    """Returns the path of the record of the run of that name in the folder.

    Raises UsageError, with similar names, if there is none, if it is empty or can't be read, or if it belongs to a
    series or is not a record.
    """
    path = _record_named(name, folder, "run", (RUN,))
    values = read_stored(path)
    kind = kind_of(values)
    if kind == SERIES:
        runs = [str(run) for run in values["runs"]] if isinstance(values["runs"], list) else []
        cure = f"Name one of its runs: {listed(runs, 'or')}." if runs else "Name a single run."
        raise UsageError(f"{name!r} is a series of runs, not a run", cure)
    if kind != RUN:
        raise UsageError(f"{str(path)!r} is not the record of a run", NAME_A_RECORD)
    return path


def find_stored(name: str, folder: Path, others: Sequence[str] = ()) -> Path:
    """Returns the file of the run or series of that name in the folder; name may also be a path that ends in .json.

    others are names that are suggested as well. Raises UsageError, with similar names, if there is no such file.
    """
    if name.endswith(".json"):
        path = Path(name)
        if exists(path):
            return path
        if "/" in name:
            raise UsageError(f"no file {name!r}", _hint(path.stem, path.parent, (RUN, SERIES), others))
        if exists(folder / name):
            return folder / name
    return _record_named(name, folder, "run or series", (RUN, SERIES), others)


def newest_runs(folder: Path) -> list[Path]:
    """Returns the records of the runs in the folder, the newest first. Raises UsageError if there is none."""
    paths = [path for path in folder.glob("[!.]*.json") if stored_kind(path) == RUN]
    if not paths:
        raise UsageError(f"there is no run in {str(folder)!r}", "Pass the folder of the runs with --results.")
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def kind_of(values: Any) -> str | None:
    """Returns RUN, SERIES or LATENCY, from the content of a JSON file in --results; None for other files."""
    if isinstance(values, dict):
        if values.get("kind") == LATENCY:
            return LATENCY
        if "kind" in values and "runs" in values:
            return SERIES
        if "config" in values and "plan" in values:
            return RUN
    return None


def stored_kind(path: Path) -> str | None:
    """Returns the `kind_of` a file; None if it can't be read."""
    try:
        return kind_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def read_stored(path: Path) -> dict[str, Any]:
    """Returns the content of the file. Raises UsageError unless it can be read and is a JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise UsageError(
                f"{str(path)!r} is empty: the run has just started, or was killed when it started",
                "Wait for its end, or run it again.",
            )
        values = json.loads(text)
    except OSError as error:
        raise UsageError(
            f"can't read {str(path)!r}: {error.strerror}", "Name a <run>.json that can be read."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not valid JSON: {error}", NAME_A_RECORD) from error
    if not isinstance(values, dict):
        raise UsageError(f"{str(path)!r} is not the record of a run", NAME_A_RECORD)
    return values


def is_name(name: str) -> bool:
    """Returns whether a file in the folder can have the name."""
    return bool(name) and "/" not in name and "\0" not in name


def exists(path: Path) -> bool:
    """Returns whether there is such a file; unlike pathlib it doesn't raise for a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110


def listed(names: Sequence[str], word: str = "and") -> str:
    """Returns the quoted names (at least one) as a list in words, the first MAX_LISTED of many."""
    shown = [repr(name) for name in names[:MAX_LISTED]]
    if len(names) > MAX_LISTED:
        shown.append(f"{len(names) - MAX_LISTED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {word} {shown[-1]}"


def _record_named(name: str, folder: Path, what: str, kinds: Sequence[str], others: Sequence[str] = ()) -> Path:
    if not is_name(name):
        raise UsageError(
            f"{name!r} is not the name of a run",
            "Pass the name of a run in --results, or the path of its record, which ends in .json.",
        )
    path = folder / f"{name}.json"
    if not exists(path):
        raise UsageError(f"no {what} {name!r} in {str(folder)!r}", _hint(name, folder, kinds, others))
    return path


def _hint(name: str, folder: Path, kinds: Sequence[str], others: Sequence[str]) -> str:
    if not os.path.isdir(folder):  # noqa: PTH112
        return "That folder does not exist. Pass the folder of the runs with --results."
    stored = (path.stem for path in folder.glob("[!.]*.json") if stored_kind(path) in kinds)
    known = [*sorted(stored, reverse=True), *others]
    close = [one for one in known if name in one] or difflib.get_close_matches(name, known, n=3)
    if close:
        return f"Did you mean {listed(close, 'or')}?"
    if known:
        return f"Available there: {listed(known)}. Pass another folder with --results."
    return f"There is no {' or '.join(kinds)} in it. Pass another folder with --results."
