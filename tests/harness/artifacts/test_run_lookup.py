"""A run by its name; what a verification and others leave in the same folder is none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.artifacts.record import write_record
from harness.artifacts.run_lookup import LATENCY, RUN, SERIES, find_run, find_stored, stored_kind
from harness.commands.data.verify import Verified
from harness.errors import UsageError
from tests.support.plans import a_record


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs, one of which has a verification's prefix; a series of them; a verification; other files."""
    for name in ("first", "verify-me", "it.v1.2"):
        write_record(tmp_path / f"{name}.json", dataclasses.replace(a_record(), run=name))
    series = {"schema_version": 4, "kind": "repeats", "run": "five", "status": "finished", "runs": ["first", "it.v1.2"]}
    (tmp_path / "five.json").write_text(json.dumps(series), encoding="utf-8")
    (tmp_path / "verify-digits.json").write_text(json.dumps(dataclasses.asdict(Verified("digits", "", {}, 0))))
    (tmp_path / "times.json").write_text('{"kind": "latency"}', encoding="utf-8")
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    (tmp_path / "empty.json").touch()
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    return tmp_path


def refusal(name: str, folder: Path) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        find_run(name, folder)
    assert caught.value.exit_code == 2
    return caught.value.message, caught.value.cure


def test_a_run_is_its_record(results: Path) -> None:
    assert find_run("first", results) == results / "first.json"
    assert find_run("it.v1.2", results) == results / "it.v1.2.json"
    assert find_run("verify-me", results) == results / "verify-me.json"


def test_runs_series_and_the_rest_are_told_apart_by_what_they_hold(results: Path) -> None:
    kinds = {path.stem: stored_kind(path) for path in results.glob("*.json")}
    assert kinds == {
        "first": RUN, "verify-me": RUN, "it.v1.2": RUN, "five": SERIES, "verify-digits": None, "notes": None,
        "empty": None, "broken": None, "times": LATENCY,
    }  # fmt: skip
    assert stored_kind(results / "gone.json") is None


def test_a_name_that_is_close_is_suggested_if_it_is_a_run(results: Path) -> None:
    place = f"in {str(results)!r}"
    assert refusal("frist", results) == (f"no run 'frist' {place}", "Did you mean 'first'?")
    assert refusal("v1.2", results) == (f"no run 'v1.2' {place}", "Did you mean 'it.v1.2'?")
    # Neither the verification nor the series.
    assert refusal("verify", results) == (f"no run 'verify' {place}", "Did you mean 'verify-me'?")
    known = "Available there: 'verify-me', 'it.v1.2' and 'first'. Pass another folder with --results."
    assert refusal("five5", results) == (f"no run 'five5' {place}", known)
    assert refusal("n" * 5000, results) == (f"no run '{'n' * 5000}' {place}", known)


def test_where_there_is_nothing_to_suggest(tmp_path: Path) -> None:
    assert refusal("it", tmp_path)[1] == "There is no run in it. Pass another folder with --results."
    gone = tmp_path / "gone"
    assert refusal("it", gone)[1] == "That folder does not exist. Pass the folder of the runs with --results."


@pytest.mark.parametrize(
    ("name", "message", "cure"),
    [
        ("five", "'five' is a series of runs, not a run", "Name one of its runs: 'first' or 'it.v1.2'."),
        ("verify-digits", "verify-digits.json' is not the record of a run",
         "Name a <run>.json that run_bench.py wrote."),
        ("notes", "notes.json' is not the record of a run", "Name a <run>.json that run_bench.py wrote."),
        ("empty", "empty.json' is empty: the run has just started, or was killed when it started",
         "Wait for its end, or run it again."),
        ("broken", "broken.json' is not valid JSON: ", "Name a <run>.json that run_bench.py wrote."),
        ("", "'' is not the name of a run",
         "Pass the name of a run in --results, or the path of its record, which ends in .json."),
        ("../first", "'../first' is not the name of a run",
         "Pass the name of a run in --results, or the path of its record, which ends in .json."),
    ],
)  # fmt: skip
def test_what_is_no_run_is_said_to_be_none(results: Path, name: str, message: str, cure: str) -> None:
    found = refusal(name, results)
    assert message in found[0]
    assert found[1] == cure


def test_a_run_or_a_series_is_found_by_name_and_by_path(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("five", "five.json", str(results / "five.json")):
        assert find_stored(name, results) == results / "five.json"
    monkeypatch.chdir(results)
    assert find_stored("first.json", Path("elsewhere")) == Path("first.json")
    with pytest.raises(UsageError) as caught:
        find_stored("fiv", results, ("bi_v100",))
    assert (caught.value.message, caught.value.cure) == (
        f"no run or series 'fiv' in {str(results)!r}", "Did you mean 'five'?"
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"no file 'nowhere/first\.json'"):
        find_stored("nowhere/first.json", results)
