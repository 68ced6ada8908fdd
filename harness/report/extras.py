"""What a finished run leaves besides its tables: a page to look at, and its figures for other programs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from harness.artifacts.atomic import disk_errors, write_whole
from harness.artifacts.record import RunFiles, RunRecord
from harness.errors import UsageError
from harness.plan.metric_formats import TENSORBOARD, parse_formats
from harness.plan.options import RunConfig
from harness.report.console import Console
from harness.report.metrics.formats import write_metrics
from harness.report.page.document import page
from harness.report.page.run_data import with_tables
from harness.report.text import command_line


def check_extras(config: RunConfig) -> None:
    """Raise UsageError for a format of --metrics that can't be written here, before the run rather than after it."""
    if config.metrics is not None and TENSORBOARD in parse_formats(config.metrics) and not find_spec("tensorboardX"):
        raise UsageError("--metrics tensorboard needs tensorboardX, which isn't installed", "pip install tensorboardX")


def write_extras(console: Console, files: RunFiles, record: RunRecord, *, with_page: bool = True) -> None:
    """Write what a run leaves besides its tables. A failure is a note: the run has finished, whatever it is."""
    formats = () if record.config.metrics is None else parse_formats(record.config.metrics)
    again = command_line("report", record.run, "--results", str(files.folder))
    if with_page:
        path = _tried(console, "the page", again, partial(write_page, files, record))
        if path is not None:
            console.emit("page", path=str(path))
            console.line(f"To look at it: open {path} in a browser.")
    for name in formats:
        write = partial(write_metrics, with_tables(files, record), files, name)
        _tried(console, f"{name}'s file", f"{again} --metrics {name}", write)


def write_page(files: RunFiles, record: RunRecord) -> Path:
    """Write the page of a run. Returns where. Raises MachineError if it can't be written."""
    with disk_errors(files.page):
        write_whole(files.page, page([with_tables(files, record)]))
    return files.page


def _tried(console: Console, what: str, again: str, write: Callable[[], Path]) -> Path | None:
    """Where it was written; None after a note why it wasn't."""
    try:
        return write()
    except Exception as error:  # whatever it is, it must not make a failure of a run that has finished
        console.notice(f"{what} was not written ({type(error).__name__}: {error}). To write it: {again}")
        return None
