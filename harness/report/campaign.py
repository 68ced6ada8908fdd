"""A campaign on the terminal: what it will do, each run as it ends, and the cells side by side."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable

from harness.analysis.campaigns.cells import CellFigures, reference_cell
from harness.analysis.campaigns.definition import Campaign, config_of
from harness.analysis.campaigns.stored import DONE, PENDING, UNFINISHED, CampaignFiles, State, versions
from harness.report.console import Console
from harness.report.findings import interval_text
from harness.report.live.view import clock
from harness.report.text import plain_text
from models.notes import Note
from models.words import count_of

# What a run takes besides its measured seconds, until one has shown it.
AROUND_SECONDS = 30.0


def show_plan(console: Console, files: CampaignFiles, campaign: Campaign, cells: Sequence[CellFigures]) -> None:
    """Print every cell with its state, and the time that the rest will take."""
    table = RichTable(title=plain_text(f"campaign {files.name}"), box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("cell", "state", "runs"):
        table.add_column(title, overflow="fold")
    for one in cells:
        state = one.state if not one.reason else f"{one.state}: {one.reason}"
        done = sum(state.name == DONE for state in one.states)
        table.add_row(*map(plain_text, (one.cell.name, state, f"{done} of {campaign.repeats}")))
    console.rich.print(table)
    left = [(one, state) for one in cells for state in one.states if state.name in (PENDING, UNFINISHED)]
    seconds, unknown = _seconds_left(cells, [one for one, _ in left])
    text = f"  {count_of(len(left), 'run')} left"
    if seconds:
        text += f", about {clock(seconds)}"
    if unknown:
        text += f"; how long {count_of(unknown, 'run')} of epochs take is known once one has ended"
    console.rich.print(plain_text(text))


def _seconds_left(cells: Sequence[CellFigures], left: Sequence[CellFigures]) -> tuple[float, int]:
    """Seconds that runs of these cells will take, as far as that is known, and of how many it isn't."""
    ended = {
        one.cell.name: statistics.fmean(state.seconds for state in one.states if state.record is not None)
        for one in cells
        if one.records
    }
    seconds, unknown = 0.0, 0
    for one in left:
        config = config_of(one.cell)
        if one.cell.name in ended:
            seconds += ended[one.cell.name]
        elif not config.kind.in_epochs:
            seconds += config.max_seconds + AROUND_SECONDS
        else:
            unknown += 1
    return seconds, unknown


def show_run(console: Console, number: int, total: int, run: str, state: State, seconds: float) -> None:
    """Print what has become of a run that has just ended."""
    text = f"{state.name}: {state.reason}"
    if state.record is not None:
        summary = state.record.summary
        parts = []
        if summary.get("fps") is not None:
            parts.append(f"{summary['fps']:.1f} images/s ({interval_text(summary)})")
        if summary.get("top1") is not None:
            parts.append(f"top-1 {summary['top1']:.4f}")
        if summary.get("bottleneck"):
            parts.append(f"limited by {summary['bottleneck']}")
        text = ", ".join(parts) or DONE
    console.line(f"[{number}/{total}] {run}: {text}; {seconds:.0f} s")


def show_cells(console: Console, cells: Sequence[CellFigures]) -> None:
    """Print the cells side by side, below the reference; what isn't known is a dash."""
    table = RichTable(title="cells (images/s of all devices)", box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("cell", "images/s (95 % interval)", "per device", "top-1", "bottleneck"):
        table.add_column(title, justify="right" if title in ("per device", "top-1") else "left", overflow="fold")
    for row in (reference_cell(), *(one.row() for one in cells)):
        cells_of_row = (
            row["cell"],
            _rate_text(row),
            f"{row['fps_per_device']:.1f}" if row.get("fps_per_device") is not None else "-",
            f"{row['top1']:.4f}" if row.get("top1") is not None else "-",
            row.get("bottleneck") or "-",
        )
        table.add_row(*map(plain_text, cells_of_row))
    console.rich.print(table)


def _rate_text(row: Mapping[str, Any]) -> str:
    """A cell's rate, or what has become of it."""
    if row.get("fps") is None:
        return f"{row['state']}: {row['reason']}" if row["reason"] else str(row["state"])
    low, high = row.get("fps_low"), row.get("fps_high")
    return f"{row['fps']:.1f}" + ("" if low is None or high is None else f" ({low:.1f} to {high:.1f})")


def show_end(console: Console, files: CampaignFiles, cells: Sequence[CellFigures]) -> None:
    """Print how many cells ended how, what their runs don't have in common, and what was written."""
    found = Counter(one.state for one in cells)
    console.line("; ".join(f"{count} {state}" for state, count in sorted(found.items())))
    for line in versions({record.run: record for one in cells for record in one.records}):
        console.notice(
            Note(
                f"the runs were made with different {line}",
                "Measure all cells again in a new --results to compare them.",
            )
        )
    console.line(f"Written to {files.folder}/: {files.cells.name}, {files.page.name}, and every run's own files")
