"""Progress bars, read from the tables as they grow; nothing where there is no terminal."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from rich import progress as bars

from harness.plan import RunPlan
from harness.record import RunFiles
from harness.report.console import Console
from harness.tables.schema import COMPUTE, COMPUTE_ALONE, EVALUATE, PIPELINE, STEPS, TRAIN

if TYPE_CHECKING:
    from typing_extensions import Self


DOING = {
    TRAIN: "training",
    EVALUATE: "evaluating",
    PIPELINE: "pipeline only",
    COMPUTE: "compute only",
    COMPUTE_ALONE: "compute, no exchange",
}


class Progress:
    """A bar over the run, moved on by `poll`; its rate is the last step's, its time left the whole run's."""

    def __init__(self, console: Console, plan: RunPlan, max_seconds: float, files: RunFiles) -> None:
        self._plan, self._max_seconds = plan, max_seconds
        self._rows = TableTail(files.table(STEPS.name), STEPS.header)
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(elapsed_when_finished=True),
            console=console.rich,
            disable=not console.rich.is_terminal,
            transient=True,
        )
        total = float(max_seconds if plan.total_steps is None else plan.total_steps)
        self._task = self._bar.add_task("starting the ranks", total=total, rate="")
        self._seconds = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def poll(self) -> None:
        """Show what the steps table has gained."""
        if self._bar.disable:
            return
        for row in self._rows.new():
            self._seconds += float(row["step_seconds"])
            epoch = f"epoch {row['epoch']} of {self._plan.epochs}, " if row["epoch"] else ""
            doing = DOING[row["phase"]]
            self._bar.update(self._task, description=epoch + doing, rate=f"{float(row['fps']):,.0f} images/s")
            if self._plan.total_steps is None:
                self._bar.update(self._task, completed=min(self._seconds, self._max_seconds))
            elif row["phase"] == TRAIN:
                self._bar.update(self._task, completed=float(row["step"]))


class TableTail:
    """The rows a growing CSV file has gained since the last look."""

    def __init__(self, path: Path, header: list[str]) -> None:
        self._path, self._header = path, header
        self._position = 0

    def new(self) -> list[dict[str, str]]:
        """Whole rows that were not there before, by column."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._position)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        first = self._position == 0
        self._position += len(whole)
        rows = list(csv.reader(whole.decode().splitlines()))
        return [dict(zip(self._header, row, strict=True)) for row in (rows[1:] if first else rows)]
