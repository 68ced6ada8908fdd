"""`run_bench.py report`: writes the page of stored runs, one alone or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.artifacts.atomic import disk_errors, write_whole
from harness.artifacts.record import RunFiles
from harness.artifacts.run_lookup import (
    NAME_A_RECORD,
    RUN,
    SERIES,
    exists,
    find_stored,
    is_name,
    kind_of,
    read_stored,
    stored_kind,
)
from harness.artifacts.schema import SCALES
from harness.artifacts.shared_schema import SCALING
from harness.artifacts.tables import read_table
from harness.errors import UsageError
from harness.plan.metric_formats import parse_formats
from harness.report.metrics.formats import write_metrics
from harness.report.page.document import page
from harness.report.page.run_data import read_run
from harness.report.text import printable

if TYPE_CHECKING:
    import pandas as pd

# More columns than this can't be read side by side.
MAX_RUNS = 12


def report(
    names: Sequence[str],
    results: str,
    output: str | None = None,
    last: int | None = None,
    metrics: str | None = None,
) -> None:
    """Write the page of runs and series, given by name or by the path of their records, and print where it is.

    last are the newest ones in the folder results, instead of names. output is the page's file; by default it lies
    beside the first record. metrics are formats in which finished runs' figures are written too, beside their records.
    Raises UsageError for what isn't a run or series.
    """
    folder = Path(results)
    if last is not None and names:
        raise UsageError("runs were named together with --last", "Leave one of them out.")
    paths = [find_stored(name, folder) for name in names] if names else _newest(folder, last or 1)
    runs, scaling = _members(paths)
    if len(runs) > MAX_RUNS:
        raise UsageError(f"{len(runs)} runs are too many for one page", f"Name {MAX_RUNS} at most.")
    formats = () if metrics is None else parse_formats(metrics)
    target = paths[0].with_suffix(".html") if output is None else Path(output)
    with disk_errors(target, elsewhere="another file with --output"):
        write_whole(target, page(found := [read_run(path) for path in runs], scaling))
    print(printable(f"{target}: open it in a browser"))
    for name in formats:
        for path, run in zip(runs, found, strict=True):
            print(printable(str(write_metrics(run, RunFiles(path.parent, path.stem), name))))


def _newest(folder: Path, count: int) -> list[Path]:
    if count < 1:
        raise UsageError(f"--last is {count}; it must be at least 1")
    found = [path for path in folder.glob("[!.]*.json") if stored_kind(path) == RUN]
    if not found:
        raise UsageError(f"there is no run in {str(folder)!r}", "Pass the folder of the runs with --results.")
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))[-count:]


def _members(paths: Sequence[Path]) -> tuple[list[Path], pd.DataFrame | None]:
    """The records of all runs, those of series included, each once, and the table of the first series of devices."""
    runs: dict[Path, None] = {}
    scaling = None
    for path in paths:
        values = read_stored(path)
        kind = kind_of(values)
        if kind == RUN:
            runs[path] = None
        elif kind == SERIES:
            runs |= dict.fromkeys(_runs_of(path, values))
            table = RunFiles(path.parent, path.stem).table(SCALING.name)
            if values["kind"] == SCALES and scaling is None and exists(table):
                scaling = read_table(table, SCALING)
        else:
            raise UsageError(f"{str(path)!r} is not the record of a run or series", NAME_A_RECORD)
    return list(runs), scaling


def _runs_of(path: Path, values: dict[str, Any]) -> list[Path]:
    names = values["runs"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and is_name(name) for name in names):
        raise UsageError(f"the series {path.stem!r} has no run yet", "Name single runs.")
    paths = [path.with_name(f"{name}.json") for name in names]
    missing = [one.stem for one in paths if not exists(one)]
    if missing:
        raise UsageError(
            f"runs of the series {path.stem!r} are missing: {', '.join(missing)}",
            "Put their files next to the series' file, or name single runs.",
        )
    return paths
