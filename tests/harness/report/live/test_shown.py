"""When and where a run is shown: on a terminal, in a log, as events, or not at all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from harness.artifacts.record import RunFiles
from harness.artifacts.schema import STEPS
from harness.artifacts.tables import TableWriter
from harness.report.console import Console
from harness.report.live.feed import Feed
from harness.report.live.shown import Shown
from harness.report.text import EVENTS, QUIET, TEXT
from tests.support.plans import a_plan


class Screen:
    """A run that is shown on a terminal or in a log; its time is moved by hand."""

    def __init__(self, folder: Path, *, terminal: bool, output: str = TEXT) -> None:
        self.files, self.time, self.file = RunFiles(folder, "it"), 100.0, io.StringIO()
        rich = RichConsole(file=self.file, force_terminal=terminal, width=80, height=24, color_system=None)
        rich.quiet = output != TEXT
        self.console = Console(rich, output)
        feed = Feed(a_plan(epochs=3, steps_per_epoch=10), self.files, 0.0, lambda: self.time)
        self.shown = Shown(self.console, feed, lambda: self.time)

    def step(self, number: int) -> None:
        row = {"phase": "train", "epoch": 1, "step": number, "time_unix_seconds": self.time, "images": 64,
               "step_seconds": 0.5, "fps": 128.0, "loss": 3.5}  # fmt: skip
        with TableWriter(self.files.table(STEPS.name), STEPS) as writer:
            writer.write(row)

    def pass_seconds(self, seconds: float) -> None:
        """Time passes; the run is looked at four times a second."""
        for _ in range(int(seconds * 4)):
            self.time += 0.25
            self.shown.poll()


def test_a_log_gets_a_line_every_ten_seconds(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=False)
    with screen.shown:
        screen.pass_seconds(9)
        assert screen.file.getvalue() == ""
        screen.step(1)
        screen.pass_seconds(32)
    lines = screen.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "0:01:50 training, epoch 1 of 3, step 1 of 30, 128.0 images/s now, loss 3.5"


def test_a_terminal_gets_a_picture_at_most_once_a_second(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=True)
    with screen.shown:
        screen.step(1)
        screen.pass_seconds(5)
    text = screen.file.getvalue()
    assert 3 <= text.count("PPLCNet_x0_25 on 2 x CPU") <= 8
    assert "\x1b[?1049h" not in text  # not on a screen of its own: what was printed stays


def test_the_last_note_is_in_the_picture(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=True)
    with screen.shown:
        screen.console.notice("2 threads are too few")
        screen.pass_seconds(1)
    assert "warning     2 threads are too few" in screen.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_quiet_run_shows_notes_alone(tmp_path: Path, terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(tmp_path, terminal=terminal, output=QUIET)
    with screen.shown:
        screen.step(1)
        screen.pass_seconds(30)
        screen.console.notice("2 threads are too few")
    assert screen.file.getvalue() == ""
    assert capsys.readouterr().out == "note: 2 threads are too few\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_events_are_one_json_value_a_line(tmp_path: Path, terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(tmp_path, terminal=terminal, output=EVENTS)
    with screen.shown:
        screen.pass_seconds(5)
        screen.console.notice("2 threads are too few")
        for number in range(1, 4):
            screen.step(number)
            screen.pass_seconds(2)
    assert screen.file.getvalue() == ""
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in found] == ["note", "progress", "progress", "progress"]
    assert [one.get("step") for one in found] == [None, 1, 2, 3]
    assert all(isinstance(one["unix_seconds"], float) for one in found)
