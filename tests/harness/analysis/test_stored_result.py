"""Saved runs and series, found by name and by path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.analysis.comparing.compare import Side
from harness.analysis.comparing.stored_result import StoredResult, find_result
from harness.artifacts.record import SCHEMA_VERSION
from tests.support.compared_runs import (
    A_RATES,
    record,
    run_compare,
    save,
    save_series,
)

LATER = SCHEMA_VERSION + 1


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, record("v1.2", 100.0))
    for name in ("v1.2", "v1.2.json", str(tmp_path / "v1.2.json")):
        assert find_result(name, tmp_path) == StoredResult("v1.2", (record("v1.2", 100.0),))
    monkeypatch.chdir(tmp_path)
    assert find_result("v1.2.json", Path("elsewhere")).name == "v1.2"


def test_a_series_is_its_runs(tmp_path: Path) -> None:
    save_series(tmp_path, "five", A_RATES)
    found = find_result("five", tmp_path)
    assert found.name == "five"
    assert [run.run for run in found.records] == ["five.r1", "five.r2", "five.r3", "five.r4", "five.r5"]
    assert found.side == Side("five", A_RATES, None, None)
    assert find_result(str(tmp_path / "five.json"), Path("elsewhere")) == found
    assert find_result("five.r2", tmp_path).side == Side("five.r2", (99.5,), 0.004, 40.0)


def test_a_series_of_one_run_has_that_run_s_uncertainty(tmp_path: Path) -> None:
    save_series(tmp_path, "one", (100.0,))
    assert find_result("one", tmp_path).side == Side("one", (100.0,), 0.004, 40.0)


def test_the_reference_is_found_by_name() -> None:
    side = find_result("bi_v100", Path("nowhere")).side
    assert side == Side("bi_v100", (2537.0,), None, None, exact=True)


@pytest.mark.parametrize(
    ("name", "wrong", "cure"),
    [
        ("befor", "no run or series 'befor' in ", "Did you mean 'before'?"),
        ("x1_0", "no run or series 'x1_0' in ", "Did you mean '20261124-2-x1_0-cpu2' or '20261124-1-x1_0-cpu2'?"),
        (
            "zzz",
            "no run or series 'zzz' in ",
            "Available there: 'scaling', 'running', 'halted', 'gone', 'five.r2' and ",
        ),
        ("..", "no run or series '..' in ", "Available there: "),
        ("", "'' is not the name of a run", "Pass the name of a run in --results, or the path of its record"),
        ("../secret", "'../secret' is not the name of a run", "Pass the name of a run in --results"),
        ("/etc/passwd", "'/etc/passwd' is not the name of a run", "Pass the name of a run in --results"),
        ("n" * 5000, "no run or series 'nnn", "Available there: "),
        ("nowhere/before.json", "no file 'nowhere/before.json'", "That folder does not exist."),
        ("[red]\x1b[31m", "no run or series '[red]\\x1b[31m' in ", "Available there: "),
        ("running", "run 'running' is not finished; its status is 'running'", "Wait for its end."),
        ("halted", "run 'halted' is not finished; its status is 'interrupted'", "Run it again, under another"),
        ("empty", "empty.json' is empty: the run has just started", "Wait for its end, or run it again."),
        ("text", "text.json' is not valid JSON: ", "Name a <run>.json that run_bench.py wrote."),
        ("bytes", "bytes.json' is not valid JSON: ", "Name a <run>.json that run_bench.py wrote."),
        ("list", "list.json' is not the record of a run", "Name a <run>.json that run_bench.py wrote."),
        ("object", "object.json' is not the record of a run or series", "Name a <run>.json that run_bench.py wrote."),
        ("folder", "folder.json': Is a directory", "Name a <run>.json that can be read."),
        (
            "later",
            f"later.json has schema version {LATER}; this version reads {SCHEMA_VERSION}",
            "Read it with the version of this project",
        ),
        ("rateless", "run 'rateless', which measures throughput, has no training throughput", "Name a run"),
        ("standing", "standing.json' has no valid training throughput: rates are (0.0,)", "Run it again"),
        (
            "edited",
            "edited.json' has no valid training throughput: 9999.0 images/s are outside of their own interval",
            "Run it again",
        ),
        ("perfect", "perfect.json' has no valid training throughput: top-1 is 2.5", "Run it again"),
        ("worded", "worded.json' has no valid training throughput: ", "Run it again"),
        (
            "scaling",
            "'scaling' is a series of kind 'scaling'; only the runs of 'repeats' all do the same job",
            "Compare its runs instead: 'scaling.r1' and 'scaling.r2'.",
        ),
        ("gone", "runs of the series 'gone' are missing in ", "Put their files next to the series' file"),
        ("half", "run 'halted' is not finished; its status is 'interrupted'", "Run it again, under another"),
        ("nobody", "the series 'nobody' names no runs: []", "Compare single runs"),
        ("astray", "the series 'astray' names no runs: ['../secret']", "Compare single runs"),
        ("twice", "the series 'twice' names a run twice: 'before' and 'before'", "Measure the series again."),
        ("nested", "five.json is not a run's record: ", "Name a <run>.json that run_bench.py wrote."),
        (
            "ahead",
            f"the series 'ahead' has schema version {LATER}; this version reads {SCHEMA_VERSION}",
            "Read it with the version of this project",
        ),
    ],
)
def test_what_can_t_be_compared_is_one_clear_line_and_its_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, wrong: str, cure: str
) -> None:
    save(tmp_path, record("before", 100.0), record("20261124-1-x1_0-cpu2", 1.0), record("20261124-2-x1_0-cpu2", 1.0))
    save(tmp_path, record("running", 1.0, status="running"), record("halted", 1.0, status="interrupted"))
    save(tmp_path, record("rateless", 1.0, phases={}), record("standing", 1.0, phases={"train": {"fps": 0.0}}))
    save(tmp_path, record("edited", 1.0, phases={"train": {"fps": 9999.0, "fps_low": 292.6, "fps_high": 296.9}}))
    save(tmp_path, record("perfect", 1.0, summary={"top1": 2.5}))
    save(tmp_path, record("worded", 1.0, phases={"train": {"fps": "fast"}}))
    save_series(tmp_path, "scaling", (1.0, 2.0), kind="scaling")
    save_series(tmp_path, "gone", (1.0, 2.0))
    (tmp_path / "gone.r2.json").unlink()
    save_series(tmp_path, "five", (1.0, 2.0))
    for series, version, runs in (
        ("half", SCHEMA_VERSION, ["before", "halted"]),
        ("nobody", SCHEMA_VERSION, []),
        ("astray", SCHEMA_VERSION, ["../secret"]),
        ("twice", SCHEMA_VERSION, ["before", "before"]),
        ("nested", SCHEMA_VERSION, ["five"]),
        ("ahead", LATER, ["before"]),
    ):
        values = {"schema_version": version, "kind": "repeats", "run": series, "status": "finished",
                  "runs": runs}  # fmt: skip
        (tmp_path / f"{series}.json").write_text(json.dumps(values), encoding="utf-8")
    later = json.loads((tmp_path / "before.json").read_text(encoding="utf-8")) | {"schema_version": LATER}
    for file, content in (
        ("empty", b" \n"),
        ("text", b"{"),
        ("bytes", b"\xff"),
        ("list", b"[]"),
        ("object", b"{}"),
        ("later", json.dumps(later).encode()),
    ):
        (tmp_path / f"{file}.json").write_bytes(content)
    (tmp_path / "folder.json").mkdir()
    if name == "zzz":  # names are listed from the last to the first
        for path in tmp_path.glob("*.json"):
            if path.stem not in ("scaling", "running", "halted", "gone", "five.r2", "before", "five"):
                path.rename(path.with_suffix(".aside"))
    for arguments in ((name, "before"), ("before", name)):
        assert run_compare(tmp_path, *arguments) == 2
        out, err = capsys.readouterr()
        first, second = err.splitlines()
        assert out == ""
        assert first.startswith("error: ")
        assert wrong in first
        assert second.startswith(f"  {cure}")


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare(tmp_path / "missing", "a", "b") == 2
    assert capsys.readouterr().err == (
        f"error: no run or series 'a' in '{tmp_path}/missing'\n"
        "  That folder does not exist. Pass the folder of the runs with --results.\n"
    )
