"""What a finished run leaves besides its tables: a page to look at, and its figures for other programs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from harness.artifacts.atomic import write_whole
from harness.artifacts.record import RunFiles, RunRecord
from harness.errors import UsageError
from harness.plan.metric_formats import TENSORBOARD, parse_formats
from harness.plan.options import RunConfig
from harness.report.console import Console
from harness.report.metrics.formats import write_metrics
from harness.report.page.document import page
from harness.report.run_data import with_tables
from harness.report.text import command_line
from models.notes import Note


def check_extras(config: RunConfig) -> None:
    """Raise UsageError for a format of --metrics that can't be written here, before the run rather than after it."""
    if config.metrics is not None and TENSORBOARD in parse_formats(config.metrics) and not find_spec("tensorboardX"):
        raise UsageError("--metrics tensorboard needs tensorboardX, which isn't installed", "pip install tensorboardX")


def write_extras(console: Console, files: RunFiles, record: RunRecord, *, with_page: bool = True) -> None:
    """Write what a run leaves besides its tables. A failure is a note: the run has finished, whatever it is."""
    formats = () if record.config.metrics is None else parse_formats(record.config.metrics)
    again = command_line("report", record.run, "--results", str(files.folder))

    def write_page() -> None:
        write_whole(files.page, page([with_tables(files, record)]))
        console.emit("page", path=str(files.page))
        console.line(f"To look at it: open {files.page} in a browser.")

    if with_page:
        tried(console, "the page", again, write_page)
    for name in formats:
        write = partial(write_metrics, with_tables(files, record), files, name)
        tried(console, f"{name}'s file", f"{again} --metrics {name}", write)


def tried(console: Console, what: str, again: str, write: Callable[[], object]) -> None:
    """Write something that isn't what was asked for; if that fails, print a note why, and how to write it again."""
    try:
        write()
    except Exception as error:  # whatever it is, it must not make a failure of what has been done
        console.notice(
            Note(f"{what} was not written ({type(error).__name__}: {error}). To write it: {again}", "Run that command.")
        )
