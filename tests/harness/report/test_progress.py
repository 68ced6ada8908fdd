from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole
from rich.progress import Task

from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, STEPS
from harness.artifacts.tables import TableWriter
from harness.plan.kinds import EPOCHS, EVALUATION, THROUGHPUT, RunKind
from harness.report.console import Console
from harness.report.progress import Progress, TableTail
from tests.support.plans import a_plan


def step(number: int, **changes: Any) -> dict[str, Any]:
    row = {"phase": "train", "epoch": 1, "step": number, "images": 64, "step_seconds": 0.5, "fps": 1234.4}
    return {**row, **changes}


class Shown:
    """A progress bar on a terminal that keeps what is drawn on it."""

    def __init__(
        self,
        folder: Path,
        kind: RunKind = EPOCHS,
        terminal: bool = True,
        earlier: Sequence[dict[str, Any]] = (),
    ) -> None:
        files = RunFiles(folder, "run")
        self.path = files.table(STEPS.name)
        if earlier:
            self.add(*earlier)
        self._screen = io.StringIO()
        rich = RichConsole(file=self._screen, force_terminal=terminal, width=120, color_system=None)
        plan = a_plan(kind=kind, epochs=3, steps_per_epoch=10, max_seconds=45.0)
        self.progress = Progress(Console(rich), plan, files)

    def add(self, *rows: dict[str, Any]) -> None:
        with TableWriter(self.path, STEPS) as writer:
            for row in rows:
                writer.write(row)

    def drawn(self) -> str:
        """Everything that was drawn; leaving the bar draws its last state."""
        return self._screen.getvalue()

    @property
    def task(self) -> Task:
        (task,) = self.progress._bar.tasks
        return task

    def completed(self) -> float:
        return self.task.completed


def test_before_the_first_step_the_ranks_are_starting(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    with shown.progress as progress:
        progress.poll()
    assert "starting the ranks" in shown.drawn()
    assert shown.completed() == 0


def test_a_node_without_the_earlier_steps_begins_where_the_run_resumes(tmp_path: Path) -> None:
    """Case B9: the steps made before count as made, but not for the speed."""
    shown = Shown(tmp_path)
    with shown.progress as progress:
        shown.add(step(21, epoch=3))
        progress.poll()
        assert shown.completed() == 21
        # Of 30 steps, one was seen, not 21: with the time of one step, 9 are left.
        time.sleep(0.02)
        shown.add(step(22, epoch=3))
        progress.poll()
    assert "epoch 3 of 3, training" in shown.drawn()
    assert shown.task.speed is not None
    assert shown.task.speed <= 2 / 0.02


@pytest.mark.parametrize(
    ("row", "doing"),
    [
        (step(1), "epoch 1 of 3, training"),
        (step(7), "epoch 1 of 3, training"),
        (step(7, epoch=2), "epoch 2 of 3, training"),
        (step(7, phase="evaluate"), "epoch 1 of 3, evaluating"),
        (step(7, phase="checkpoint", step=None, images=0, fps=0.0), "epoch 1 of 3, saving"),
        (step(7, phase="pipeline", epoch=None), "pipeline only"),
        (step(7, phase="compute", epoch=None), "compute only"),
        (step(7, phase="compute_no_sync", epoch=None), "compute, no exchange"),
    ],
)
def test_the_last_step_says_what_is_going_on(tmp_path: Path, row: dict[str, Any], doing: str) -> None:
    shown = Shown(tmp_path)
    with shown.progress as progress:
        shown.add(step(1, fps=1.0), step(2), row)
        progress.poll()
    assert doing in shown.drawn()
    assert "1,234 images/s" in shown.drawn()


@pytest.mark.parametrize("empty", ["fps", "step_seconds", "step", "epoch"])
def test_an_empty_cell_ends_nothing(tmp_path: Path, empty: str) -> None:
    """Case E12."""
    shown = Shown(tmp_path)
    with shown.progress as progress:
        shown.add(step(1), step(2), step(3, **{empty: None}))
        progress.poll()
    assert shown.completed() == (2 if empty == "step" else 3)
    assert "1,234 images/s" in shown.drawn()


def test_a_table_that_can_not_be_read_for_a_while_ends_nothing(tmp_path: Path) -> None:
    """A folder in its place stands in for a disk that fails."""
    shown = Shown(tmp_path)
    with shown.progress as progress:
        shown.add(step(1), step(2))
        progress.poll()
        shown.path.rename(tmp_path / "aside")
        shown.path.mkdir()
        progress.poll()
        shown.path.rmdir()
        (tmp_path / "aside").rename(shown.path)
        shown.add(step(3))
        progress.poll()
    assert shown.completed() == 3


def test_images_left_out_are_counted_once_there_are_some(tmp_path: Path) -> None:
    """Case A4: from the start of the run, and those that are met on the way."""
    shown, table = Shown(tmp_path), RunFiles(tmp_path, "run").table(BAD_IMAGES.name)
    with shown.progress as progress:
        shown.add(step(1))
        progress.poll()
        assert shown.task.fields["rate"] == "1,234 images/s"
        with TableWriter(table, BAD_IMAGES) as writer:
            for number in range(3):
                writer.write({"split": "train", "path": f'{number}"\n=caf\udce9.jpg', "label": 0, "reason": "0 bytes"})
            shown.add(step(2))
            progress.poll()
            assert shown.task.fields["rate"] == "1,234 images/s, 3 left out"
            writer.write({"split": "val", "path": "4.jpg", "label": 0, "reason": "cut"})
        shown.add(step(3))
        progress.poll()
        assert shown.task.fields["rate"] == "1,234 images/s, 4 left out"


def test_a_run_of_epochs_is_as_far_as_its_training_steps(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
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


EARLIER = [
    *(step(number) for number in range(1, 11)),
    step(1, phase="evaluate"),
    step(3, phase="checkpoint", step=None, images=0, fps=0.0, loss=None),
    step(11, epoch=2),
    step(12, epoch=2, fps=987.0),
]


def test_a_resumed_run_is_as_far_as_it_was(tmp_path: Path) -> None:
    shown = Shown(tmp_path, earlier=EARLIER)
    with shown.progress as progress:
        progress.poll()
        assert shown.completed() == 12
        assert shown.task.description == "starting the ranks"
        # What was made before has no speed, and the rest has nothing to be estimated from.
        assert (shown.task.fields["rate"], shown.task.speed) == ("", None)
        shown.add(step(13, epoch=2))
        progress.poll()
        assert shown.completed() == 13
        assert shown.task.description == "epoch 2 of 3, training"
    assert "987" not in shown.drawn()


def test_the_time_left_of_a_resumed_run_comes_from_its_own_steps(tmp_path: Path) -> None:
    shown = Shown(tmp_path, earlier=EARLIER)
    with shown.progress as progress:
        begin = time.monotonic()
        for number in (13, 14, 15):
            shown.add(step(number, epoch=2))
            progress.poll()
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        # Three polls 0.05 s apart: 2 steps in 0.1 s or, on a busy machine, somewhat more.
        assert shown.task.speed is not None
        assert 2 / seconds <= shown.task.speed <= 2 / 0.1


def test_a_run_resumed_before_its_first_step_begins_at_none(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    shown.path.touch()
    assert Shown(tmp_path).completed() == 0
    shown.path.unlink()
    shown = Shown(tmp_path, earlier=[step(1, phase="evaluate")])
    with shown.progress as progress:
        shown.add(step(1))
        progress.poll()
    assert shown.completed() == 1


def test_an_evaluation_alone_is_as_far_as_its_steps(tmp_path: Path) -> None:
    """450 validation images on 2 ranks in batches of 32: 8 steps."""
    shown = Shown(tmp_path, EVALUATION)
    assert shown.task.total == 8.0
    with shown.progress:
        shown.add({"phase": "evaluate", "epoch": 0, "step": 3, "step_seconds": 0.5, "fps": 128.0})
        shown.progress.poll()
        assert shown.completed() == 3.0
        assert shown.task.description == "evaluating"


def test_throughput_alone_is_as_far_as_its_measured_time(tmp_path: Path) -> None:
    """Of its 45 seconds; the warm-up and every phase take their part."""
    shown = Shown(tmp_path, THROUGHPUT)
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
    shown = Shown(tmp_path, terminal=False)
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


@pytest.mark.parametrize("more", ["", "long row,3\n", "x,4\n", "long row,3\nx,4\n"])
def test_the_tail_of_a_table_whose_rows_are_taken_back(tmp_path: Path, more: str) -> None:
    """An evaluation that is broken off leaves no rows; what then comes may end before or behind where they did."""
    path = tmp_path / "t.csv"
    path.write_text("name,count\na,1\nb,22\n")
    tail = TableTail(path, ["name", "count"])
    assert len(tail.new()) == 2
    path.write_text("name,count\na,1\n" + more)
    assert tail.new() == []
    with path.open("a") as stream:
        stream.write("c,5\n")
    assert tail.new() == [{"name": "c", "count": "5"}]


def test_the_tail_of_a_table_that_passes_by_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    tail = TableTail(path, ["name", "count"])
    tail.skip()
    path.write_text("name,count\na,1\n")
    assert tail.new() == [{"name": "a", "count": "1"}]
    tail = TableTail(path, ["name", "count"])
    tail.skip()
    assert tail.new() == []
    with path.open("a") as stream:
        stream.write("b,2\n")
    assert tail.new() == [{"name": "b", "count": "2"}]


def test_the_tail_of_a_table_reads_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('name,count\n"say ""hi"", you",1\nGröße,2\n', encoding="utf-8")
    assert [row["name"] for row in TableTail(path, ["name", "count"]).new()] == ['say "hi", you', "Größe"]
