"""What a run leaves to look at, and what it prints meanwhile for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.commands.stored.report import report
from harness.commands.stored.watch import watch
from tests.support.runs import Run, run

pytestmark = pytest.mark.whole_run

SMALL = ("--device", "cpu", "--gpus", "1", "--model", "x0_25", "--image-size", "32", "--batch-size", "4")


@pytest.fixture(scope="module")
def made(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A throughput run whose output is events, with its figures for other programs."""
    options = ("--throughput-only", "--max-seconds", "5", "--json", "--metrics", "prometheus,mllog")
    return run(tmp_path_factory.mktemp("looking"), *SMALL, "--data", str(colours), *options)


def test_its_output_is_one_json_value_a_line(made: Run) -> None:
    assert made.code == 0, made.err
    assert made.err == ""
    events: list[dict[str, Any]] = [json.loads(line) for line in made.out.splitlines()]
    kinds = [event["event"] for event in events if event["event"] != "note"]
    assert kinds[0] == "plan"
    assert kinds[-2:] == ["finished", "page"]
    progress = [event for event in events if event["event"] == "progress"]
    assert kinds == ["plan", *["progress"] * len(progress), "finished", "page"]
    assert len(progress) >= 2
    assert [one["seconds"] for one in progress] == sorted(one["seconds"] for one in progress)
    assert {one["doing"] for one in progress} <= {"training", "pipeline only", "compute only"}
    assert all(0 < one["share_done"] <= 1 for one in progress)
    (finished,) = [event for event in events if event["event"] == "finished"]
    assert finished["summary"] == made.record["summary"]


def test_its_page_is_that_of_the_stored_run_to_the_byte(made: Run, tmp_path: Path) -> None:
    report([made.files.run], str(made.folder), output=str(tmp_path / "again.html"))
    written = (made.folder / f"{made.files.run}.html").read_bytes()
    assert written == (tmp_path / "again.html").read_bytes()
    assert f"{made.record['summary']['fps']:,.1f}".encode() in written


def test_its_figures_for_other_programs_are_there(made: Run) -> None:
    prom = (made.folder / f"{made.files.run}.prom").read_text(encoding="utf-8")
    assert f"}} {float(made.record['summary']['fps'])!r}\n" in prom
    assert (made.folder / f"{made.files.run}.mllog").read_text(encoding="utf-8").startswith(":::MLLOG ")


def test_watching_it_afterwards_shows_its_figures(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    watch(made.files.run, str(made.folder))
    assert f"{made.record['summary']['fps']:.1f} images/s" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["--quiet", "--json"])
def test_an_error_is_told_in_every_kind_of_output(colours: Path, tmp_path: Path, output: str) -> None:
    made = run(tmp_path, *SMALL, "--data", str(colours / "none"), "--throughput-only", output)
    assert made.code == 4
    assert made.err.startswith("error: ")
    if output == "--json":
        (error,) = [json.loads(line) for line in made.out.splitlines()]
        assert (error["event"], error["exit_code"]) == ("error", 4)
        assert error["message"] in made.err
    else:
        assert made.out == ""
