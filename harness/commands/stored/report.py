"""`run_bench.py report`: writes the page of stored runs, one alone or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.comparing.stored_result import series_records, series_runs
from harness.analysis.latency.stored import read_latency
from harness.artifacts.atomic import disk_errors, replaced
from harness.artifacts.file_names import REPORT
from harness.artifacts.record import RunFiles
from harness.artifacts.run_lookup import (
    LATENCY,
    NAME_A_RECORD,
    RUN,
    SERIES,
    exists,
    find_stored,
    kind_of,
    newest_runs,
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
from harness.report.page.latency import latency_page
from harness.report.run_data import read_run
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
    beside the first record, see `_target`. metrics are formats in which finished runs' figures are written too, beside
    their records.
    Raises UsageError for what isn't a run or series.
    """
    folder = Path(results)
    if last is not None and names:
        raise UsageError("runs were named together with --last", "Leave one of them out.")
    paths = [find_stored(name, folder) for name in names] if names else _newest(folder, 1 if last is None else last)
    if len(paths) == 1 and stored_kind(paths[0]) == LATENCY:
        _write_page(paths, output, latency_page(read_latency(paths[0])))
        return
    paths_of_runs, scaling = _members(paths)
    if len(paths_of_runs) > MAX_RUNS:
        raise UsageError(f"{len(paths_of_runs)} runs are too many for one page", f"Name {MAX_RUNS} at most.")
    formats = () if metrics is None else parse_formats(metrics)
    runs = [read_run(path) for path in paths_of_runs]
    if formats and (unfinished := [run for run in runs if not run.is_concluded]):
        raise UsageError(
            f"run {unfinished[0].name!r} is {unfinished[0].record.status}: it has no figures to write",
            "Omit --metrics.",
        )
    _write_page(paths, output, page(runs, scaling))
    for name in formats:
        for path, run in zip(paths_of_runs, runs, strict=True):
            print(printable(str(write_metrics(run, RunFiles(path.parent, path.stem), name))))


def _write_page(paths: Sequence[Path], output: str | None, content: bytes) -> None:
    target = _target(paths) if output is None else Path(output)
    with disk_errors(target, elsewhere="another file with --output"), replaced(target) as stream:
        stream.write(content)
    print(printable(f"{target}: open it in a browser"))


def _target(paths: Sequence[Path]) -> Path:
    """The page of a run or series is named after it; that of several must not replace one of theirs."""
    return paths[0].with_suffix(".html") if len(paths) == 1 else paths[0].with_name(f"{REPORT}.html")


def _newest(folder: Path, count: int) -> list[Path]:
    """The newest runs, the newest last."""
    if count < 1:
        raise UsageError(f"--last is {count}; it must be at least 1")
    return newest_runs(folder)[:count][::-1]


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
            runs |= dict.fromkeys(series_records(path, series_runs(path, values)))
            table = RunFiles(path.parent, path.stem).table(SCALING.name)
            if values["kind"] == SCALES and scaling is None and exists(table):
                scaling = read_table(table, SCALING)
        else:
            raise UsageError(f"{str(path)!r} is not the record of a run or series", NAME_A_RECORD)
    return list(runs), scaling
