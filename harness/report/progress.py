"""Progress bars, read from the tables as they grow. Without a terminal nothing is shown."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import progress as bars

from harness.artifacts.record import RunFiles
from harness.artifacts.schema import (
    BAD_IMAGES,
    CHECKPOINT,
    COMPUTE,
    COMPUTE_NO_SYNC,
    EVALUATE,
    PIPELINE,
    PIPELINE_BESIDE,
    STEPS,
    TRAIN,
    TRAIN_BESIDE,
)
from harness.artifacts.tables import read_table
from harness.plan.kinds import EPOCHS, EVALUATION, THROUGHPUT
from harness.plan.plan import RunPlan
from harness.report.console import Console
from pipelines.sharding import steps_per_epoch

if TYPE_CHECKING:
    from typing_extensions import Self


DOING = {
    TRAIN: "training",
    EVALUATE: "evaluating",
    CHECKPOINT: "saving",
    PIPELINE: "pipeline only",
    COMPUTE: "compute only",
    COMPUTE_NO_SYNC: "compute, no exchange",
    PIPELINE_BESIDE: "pipeline only, other loader",
    TRAIN_BESIDE: "training, other loader",
}


def image_bar(console: Console, total: int) -> bars.Progress:
    """Returns a bar over `total` images; the field `rate` of a task is the text after their count."""
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn(f"{{task.completed:,.0f}} of {total:,} {{task.fields[rate]}}"),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        console=console.rich,
        disable=not console.rich.is_terminal,
        transient=True,
    )


class Progress:
    """A bar over the run, advanced by `poll`; its rate is that of the last step, its time left that of the whole run.

    It begins with the steps that a resumed run has made already, which don't count for its speed.
    """

    def __init__(self, console: Console, plan: RunPlan, files: RunFiles) -> None:
        self._plan = plan
        path = files.table(STEPS.name)
        self._rows = TableTail(path, STEPS.header)
        self._bad_images = TableTail(files.table(BAD_IMAGES.name), BAD_IMAGES.header)
        self._left_out = 0
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
        total = PROGRESS[plan.kind].total(plan)
        completed = 0 if self._bar.disable else _steps_made(path)
        self._rows.skip()
        self._task = self._bar.add_task("starting the ranks", total=total, completed=completed, rate="")
        self._seconds, self._begun = 0.0, False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def poll(self) -> None:
        """Show the new rows of the steps table. If the disk can't be read at the moment, nothing new is shown."""
        if self._bar.disable:
            return
        rows: list[dict[str, str]] = []
        with suppress(OSError):
            rows = self._rows.new()
            self._left_out += len(self._bad_images.new())
        left_out = f", {self._left_out:,} left out" if self._left_out else ""
        for row in rows:
            self._seconds += float(row["step_seconds"] or 0.0)
            epoch = f"epoch {row['epoch']} of {self._plan.training.epochs}, " if row["epoch"] not in ("", "0") else ""
            doing = DOING[row["phase"]]
            self._bar.update(self._task, description=epoch + doing)
            if row["phase"] != CHECKPOINT and row["fps"]:
                self._bar.update(self._task, rate=f"{float(row['fps']):,.0f} images/s{left_out}")
            counted = PROGRESS[self._plan.kind].phase
            if counted is None:
                self._bar.update(self._task, completed=min(self._seconds, self._plan.window.max_seconds))
            elif row["phase"] == counted and row["step"]:
                step = int(row["step"])
                if not self._begun and step - 1 > self._bar.tasks[0].completed:
                    # A node that doesn't record has no rows of the steps that a resumed run made before.
                    self._bar.reset(self._task, completed=step - 1)
                self._begun = True
                self._bar.update(self._task, completed=step)


def _steps_made(path: Path) -> int:
    """Returns the training steps in the table of a run that is about to resume; 0 without a table."""
    if not path.exists() or not path.stat().st_size:
        return 0
    steps = read_table(path, STEPS, ["phase", "step"])
    return int(steps.loc[steps["phase"] == TRAIN, "step"].max()) if (steps["phase"] == TRAIN).any() else 0


def _evaluation_steps(plan: RunPlan) -> float:
    return float(steps_per_epoch(plan.data.val_images, plan.ranks, plan.pipeline.batch_size))


@dataclass(frozen=True, slots=True)
class _Length:
    """The length of a kind of run, in steps of the given phase, or in seconds if phase is None."""

    phase: str | None
    total: Callable[[RunPlan], float]


PROGRESS = {
    EPOCHS: _Length(TRAIN, lambda plan: float(plan.total_steps)),
    THROUGHPUT: _Length(None, lambda plan: plan.window.max_seconds),
    EVALUATION: _Length(EVALUATE, _evaluation_steps),
}


class TableTail:
    """Reads the rows that a growing CSV file has gained since the last read.

    After the file was truncated, reading continues at its new end.
    """

    def __init__(self, path: Path, header: list[str]) -> None:
        self._path, self._header = path, header
        self._position = 0

    def skip(self) -> None:
        """Skip the rows that are in the file."""
        self._position = self._path.stat().st_size if self._path.exists() else 0

    def new(self) -> list[dict[str, str]]:
        """Returns the whole rows that were added since the last read, by column."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(max(0, self._position - 1))
            data = stream.read()
        if self._position:
            if not data.startswith(b"\n"):
                # The file was truncated, and other rows may have been written since.
                self.skip()
                return []
            data = data[1:]
        whole = data[: data.rfind(b"\n") + 1]
        first = self._position == 0
        self._position += len(whole)
        rows = list(csv.reader(whole.decode().splitlines()))
        return [dict(zip(self._header, row, strict=True)) for row in (rows[1:] if first else rows)]
