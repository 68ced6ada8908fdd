"""`run_bench.py campaign`: carries out a matrix of runs, goes on where it was stopped, and puts them side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console as RichConsole

from harness.analysis.campaigns.cells import CellFigures, cells_of, reference_cell
from harness.analysis.campaigns.definition import Campaign, Cell, config_of, parse_campaign
from harness.analysis.campaigns.stored import (
    DONE,
    FAILED,
    PENDING,
    SKIPPED,
    STALE,
    UNFINISHED,
    CampaignFiles,
    Ends,
    State,
    clear,
    has_begun,
    state_of,
)
from harness.artifacts.atomic import check_writable, disk_errors, write_whole
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.file_names import check_run_name
from harness.artifacts.lock import exclusive_lock
from harness.artifacts.record import RunRecord
from harness.artifacts.shared_schema import CELLS
from harness.artifacts.tables import csv_line, format_cell
from harness.commands.resume import requested_config
from harness.commands.run import measure
from harness.commands.run_options import read_toml
from harness.errors import InterruptedRunError, MachineError, TrainingError, UsageError
from harness.launch import signals
from harness.report.campaign import show_cells, show_end, show_plan, show_run
from harness.report.console import Console
from harness.report.extras import tried
from harness.report.page.campaign import campaign_page
from harness.report.text import command_line
from models.errors import ActionableError

# Of a run that was not begun, these say that this machine can't do it.
NOT_HERE = (UsageError, MachineError)


def campaign(
    file: str,
    results: str,
    *,
    name: str | None = None,
    dry_run: bool = False,
    retry_failed: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Carry out what is left of a campaign, and write its table and page. Raises ActionableError.

    name is that of its folder in results, by default the file's. Raises TrainingError at the end if a run has failed.
    """
    path = Path(file)
    found = parse_campaign(read_toml(path, str(path)), str(path))
    files, console = CampaignFiles(Path(results), name or path.stem), Console()
    check_run_name(files.name)
    cells = cells_of(files, found)
    if stale := [one for one in cells if one.state == STALE]:
        raise UsageError(
            f"the campaign {files.name!r} in {results!r} has runs of other options: {stale[0].cell.name}:"
            f" {stale[0].reason}",
            f"Give another --name, or remove {files.folder}.",
        )
    show_plan(console, files, found, cells)
    if dry_run:
        return
    check_writable(files.results)
    with disk_errors(files.folder):
        files.folder.mkdir(exist_ok=True)
    held = f"the campaign {files.name!r} goes on in another process"
    with exclusive_lock(files.lock, wait=False, held=held):
        _Work(files, found, console, environment, retry_failed).carry_out(file)


@dataclass(slots=True)
class _Work:
    """A campaign that is carried out."""

    files: CampaignFiles
    campaign: Campaign
    console: Console
    environment: Mapping[str, str]
    retry_failed: bool

    def carry_out(self, file: str) -> None:
        """Make the runs that are left, then write and print the figures."""
        ends = Ends.read(self.files)
        ends.write()
        runs = self.campaign.runs
        try:
            for number, (cell, repeat) in enumerate(runs, 1):
                signals.check()
                state = state_of(self.files, ends, cell, repeat)
                if not self._is_left(state):
                    continue
                began = time.monotonic()
                state = self._run(ends, cell, repeat, state)
                show_run(self.console, number, len(runs), cell.run(repeat), state, time.monotonic() - began)
                self._write_table()
        except (KeyboardInterrupt, InterruptedRunError) as error:
            self._write_page(self._write_table())
            words = ["campaign", file, "--results", str(self.files.results), "--name", self.files.name]
            raise InterruptedRunError("interrupted", f"To go on:\n  {command_line(*words)}") from error
        self._conclude()

    def _is_left(self, state: State) -> bool:
        """Whether a run is to be made."""
        return state.name in (PENDING, UNFINISHED) or (self.retry_failed and state.name in (FAILED, SKIPPED))

    def _run(self, ends: Ends, cell: Cell, repeat: int, state: State) -> State:
        """Make or resume a run. Returns what has become of it; an error that is its own ends nothing else."""
        name = cell.run(repeat)
        ends.forget(name)
        log = self.files.folder / f"{name}.log"
        with disk_errors(log), log.open("a", encoding="utf-8") as stream:
            console = Console(RichConsole(file=stream, highlight=False, width=120))
            try:
                record = self._measured(name, cell, state, console)
            except InterruptedRunError:
                raise
            except ActionableError as error:
                if has_begun(self.files.of(name)):
                    return State(FAILED, error.message)
                end = SKIPPED if isinstance(error, NOT_HERE) else FAILED
                ends.note(name, end, error.message)
                return State(end, error.message)
        return State(DONE, record=record)

    def _measured(self, name: str, cell: Cell, state: State, console: Console) -> RunRecord:
        files = self.files.of(name)
        if state.name == UNFINISHED and newest_checkpoint(files.checkpoints) is not None:
            config = requested_config({"resume": name, "results": str(self.files.folder)})
        else:
            clear(self.files, name)
            config = config_of(cell, run_name=name, results=str(self.files.folder))
        assert config is not None
        # Of no series, whose runs can't be resumed.
        return measure(config, console, self.environment, begun=time.time())

    def _conclude(self) -> None:
        cells = self._write_table()
        self._write_page(cells)
        show_cells(self.console, cells)
        show_end(self.console, self.files, cells)
        failed = [one.cell.name for one in cells if one.has_failed]
        if failed:
            raise TrainingError(
                f"{len(failed)} of {len(cells)} cells failed: {', '.join(failed[:3])}"
                + (", ..." if len(failed) > 3 else ""),
                "To try them again: add --retry-failed.",
            )

    def _write_table(self) -> list[CellFigures]:
        """Write the table of what there is. Returns its cells."""
        cells = cells_of(self.files, self.campaign)
        rows = [reference_cell(), *(one.row() for one in cells)]
        lines = [[format_cell(row.get(column.name), column) for column in CELLS.columns] for row in rows]
        write_whole(self.files.cells, b"".join(map(csv_line, [CELLS.header, *lines])))
        return cells

    def _write_page(self, cells: Sequence[CellFigures]) -> None:
        """Write the page of what there is, which reads the tables of every run."""
        tried(
            self.console,
            "the page",
            "start the campaign again",
            lambda: write_whole(self.files.page, campaign_page(self.files, cells)),
        )
