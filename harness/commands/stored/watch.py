"""`run_bench.py watch`: shows a run while it goes on, from another terminal or host, by reading its tables alone."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness.artifacts.liveness import RUNNING, shown_status
from harness.artifacts.record import RunFiles, RunRecord, read_record
from harness.artifacts.run_lookup import find_run, newest_runs, read_stored
from harness.commands.resume import how_to_go_on
from harness.plan.kinds import EVALUATION
from harness.report.console import Console
from harness.report.live.feed import Feed
from harness.report.live.shown import Shown, picture
from models.errors import ActionableError

POLL_SECONDS = 0.5
# How often the record is read, which says whether the run goes on.
STATUS_SECONDS = 2.0


def watch(name: str | None, results: str, once: bool = False) -> None:
    """Show a run until it ends, then its figures; without a name the newest run that goes on, else the newest.

    once: print one picture of it, and return. Raises UsageError if there is no such run.
    """
    folder, console = Path(results), Console()
    path = _newest(folder) if name is None else find_run(name, folder)
    files = RunFiles(path.parent, path.stem)
    record, status = _state(files)
    if status == RUNNING:
        with suppress(KeyboardInterrupt):
            status = _follow(console, files, record, once)
        record = _state(files)[0]
    if status == RUNNING:
        return
    if status == "finished":
        {EVALUATION: console.evaluation}.get(record.plan.kind, console.conclusion)(record, files)
        return
    picture(console, _feed(files, record), has_ended=True)
    console.line(f"The run is {status}.")
    for warning in record.warnings[-1:]:
        console.notice(warning)
    for line in how_to_go_on(files, replace(record.config, results=str(files.folder))).splitlines():
        console.line(line)


def _follow(console: Console, files: RunFiles, record: RunRecord, once: bool) -> str:
    """Show a run until it has ended. Returns its status then."""
    feed = _feed(files, record)
    if once:
        picture(console, feed, has_ended=False)
        return RUNNING
    status, looked = RUNNING, time.monotonic()
    with Shown(console, feed) as shown:
        while status == RUNNING:
            shown.poll()
            time.sleep(POLL_SECONDS)
            if time.monotonic() - looked >= STATUS_SECONDS:
                looked = time.monotonic()
                # On a disk far away it may not be readable while it is replaced.
                with suppress(ActionableError):
                    record, status = _state(files)
                    console.last_notice = record.warnings[-1] if record.warnings else ""
    return status


def _feed(files: RunFiles, record: RunRecord) -> Feed:
    attempts = record.attempts
    feed = Feed(record.plan, files, float(attempts[-1]["started_unix_seconds"]) if attempts else time.time())
    feed.skip_to_last()
    feed.warning = record.warnings[-1] if record.warnings else ""
    return feed


def _state(files: RunFiles) -> tuple[RunRecord, str]:
    return read_record(files.record), shown_status(read_stored(files.record), files.lock)


def _newest(folder: Path) -> Path:
    """The newest run that goes on; if none does, the newest."""
    newest = newest_runs(folder)
    return next((path for path in newest if _is_running(path)), newest[0])


def _is_running(path: Path) -> bool:
    with suppress(ActionableError):
        return shown_status(read_stored(path), RunFiles(path.parent, path.stem).lock) == RUNNING
    return False
