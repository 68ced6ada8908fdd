from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from harness.record import RunFiles
from harness.report.console import Console
from harness.report.progress import Progress, TableTail
from harness.tables.files import TableWriter
from harness.tables.schema import STEPS
from tests.harness.plans import a_plan


def step(number: int, **changes: Any) -> dict[str, Any]:
    row = {"phase": "train", "epoch": 1, "step": number, "images": 64, "step_seconds": 0.5, "fps": 1234.4}
    return {**row, **changes}


class Shown:
    """A progress bar on a terminal that keeps what is drawn on it."""

    def __init__(self, folder: Path, total_steps: int | None, terminal: bool = True) -> None:
        files = RunFiles(folder, "run")
        self.path = files.table(STEPS.name)
        self._screen = io.StringIO()
        rich = RichConsole(file=self._screen, force_terminal=terminal, width=120, color_system=None)
        plan = a_plan(epochs=3, total_steps=total_steps)
        self.progress = Progress(Console(rich), plan, 45.0, files)

    def add(self, *rows: dict[str, Any]) -> None:
        with TableWriter(self.path, STEPS) as writer:
            for row in rows:
                writer.write(row)

    def drawn(self) -> str:
        """Everything that was drawn; leaving the bar draws its last state."""
        return self._screen.getvalue()

    def completed(self) -> float:
        (task,) = self.progress._bar.tasks
        return task.completed


def test_before_the_first_step_the_ranks_are_starting(tmp_path: Path) -> None:
    shown = Shown(tmp_path, 30)
    with shown.progress as progress:
        progress.poll()
    assert "starting the ranks" in shown.drawn()
    assert shown.completed() == 0


@pytest.mark.parametrize(
    ("row", "doing"),
    [
        (step(1), "epoch 1 of 3, training"),
        (step(7), "epoch 1 of 3, training"),
        (step(7, epoch=2), "epoch 2 of 3, training"),
        (step(7, phase="evaluate"), "epoch 1 of 3, evaluating"),
        (step(7, phase="pipeline", epoch=None), "pipeline only"),
        (step(7, phase="compute", epoch=None), "compute only"),
        (step(7, phase="compute_alone", epoch=None), "compute, no exchange"),
    ],
)
def test_the_last_step_says_what_is_going_on(tmp_path: Path, row: dict[str, Any], doing: str) -> None:
    shown = Shown(tmp_path, 30)
    with shown.progress as progress:
        shown.add(step(1, fps=1.0), row)
        progress.poll()
    assert doing in shown.drawn()
    assert "1,234 images/s" in shown.drawn()


def test_a_run_of_epochs_is_as_far_as_its_training_steps(tmp_path: Path) -> None:
    shown = Shown(tmp_path, 30)
    with shown.progress as progress:
        shown.add(step(1), step(2), step(3))
        progress.poll()
        assert shown.completed() == 3
        shown.add(step(1, phase="evaluate"))
        progress.poll()
        assert shown.completed() == 3
        shown.add(step(11, epoch=2))
        progress.poll()
        assert shown.completed() == 11
        progress.poll()
        assert shown.completed() == 11
    assert shown.progress._bar.tasks[0].total == 30


def test_throughput_alone_is_as_far_as_its_measured_time(tmp_path: Path) -> None:
    """Of its 45 seconds; the warm-up and every phase take their part."""
    shown = Shown(tmp_path, None)
    with shown.progress as progress:
        shown.add(step(1, epoch=None, step_seconds=10.0))
        progress.poll()
        assert shown.completed() == 10.0
        shown.add(step(1, epoch=None, phase="pipeline", step_seconds=5.0), step(2, epoch=None, step_seconds=15.5))
        progress.poll()
        assert shown.completed() == 30.5
        shown.add(step(1, epoch=None, phase="compute", step_seconds=20.0))
        progress.poll()
        assert shown.completed() == 45.0
    assert shown.progress._bar.tasks[0].total == 45.0
    assert "epoch" not in shown.drawn()


def test_where_there_is_no_terminal_nothing_is_drawn(tmp_path: Path) -> None:
    shown = Shown(tmp_path, 30, terminal=False)
    with shown.progress as progress:
        progress.poll()
        shown.add(step(1))
        progress.poll()
    assert shown.drawn() == ""


def test_the_tail_of_a_table_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    tail = TableTail(path, ["name", "count"])
    assert tail.new() == []
    with path.open("ab", buffering=0) as stream:
        stream.write(b"name,co")
        assert tail.new() == []
        stream.write(b"unt\n")
        assert tail.new() == []
        stream.write(b"a,1\nb,2\nc")
        assert tail.new() == [{"name": "a", "count": "1"}, {"name": "b", "count": "2"}]
        assert tail.new() == []
        stream.write(b",3")
        assert tail.new() == []
        stream.write(b"\nd,")
        assert tail.new() == [{"name": "c", "count": "3"}]
        stream.write(b"\n")
        assert tail.new() == [{"name": "d", "count": ""}]
        assert tail.new() == []


def test_the_tail_of_a_table_reads_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('name,count\n"say ""hi"", you",1\nGröße,2\n', encoding="utf-8")
    assert [row["name"] for row in TableTail(path, ["name", "count"]).new()] == ['say "hi", you', "Größe"]
