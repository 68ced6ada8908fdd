"""The limit that `compare` holds a run to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.analysis.comparing.compare import Difference
from harness.analysis.comparing.stored_result import StoredResult
from harness.commands.data.verify import Verified
from harness.commands.stored.compare import check_gate, parse_limit
from harness.errors import GateError, UsageError
from tests.support.compared_runs import (
    PLAN,
    record,
    run_compare,
    save,
    save_series,
    told,
)
from tests.support.plans import with_settings


@pytest.mark.parametrize(
    ("text", "share"),
    [("5%", 0.05), ("5 %", 0.05), ("2.5%", 0.025), ("0.05", 0.05), (".5", 0.5), ("0", 0.0), ("0%", 0.0),
     (" 5.% ", 0.05), ("99.9%", 0.999)],
)  # fmt: skip
def test_a_limit_is_a_percentage_or_a_share(text: str, share: float) -> None:
    assert parse_limit(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text",
    ["", "%", ".", ".%", "5", "1", "100%", "-5%", "-0.05", "+5%", "5%%", "5e-2", "nan", "inf", "five", "5 percent",
     "0,05", "1_0%", "５%", "5%\n5"],
)  # fmt: skip
def test_anything_else_is_no_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    save(tmp_path, record("a", 100.0), record("b", 90.0))
    assert run_compare(tmp_path, "a", "b", f"--fail-if-slower={text}") == 2
    assert capsys.readouterr() == (
        "",
        f"error: --fail-if-slower {text!r} is not a slowdown of at least 0 % and below 100 %\n"
        "  Give a percentage such as 5%, or a share such as 0.05.\n",
    )


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("rates", "limit", "line"),
    [
        # 3 % slower, p = 0.17
        ((97.0,), "2%", "passed, as noise explains the slowdown; longer runs or --repeats would detect more"),
        # 10 % slower, p < 0.0001
        ((90.0,), "11%", "passed"),
        ((90.0,), "10%", "passed"),
        ((110.0,), "0%", "passed"),
        ((100.0,), "0%", "passed"),
    ],
)
def test_a_gate_that_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rates: tuple[float, ...], limit: str, line: str
) -> None:
    save(tmp_path, record("a", 100.0), record("b", *rates))
    assert run_compare(tmp_path, "a", "b", "--fail-if-slower", limit) == 0
    assert told(capsys)[-1] == f"note: --fail-if-slower {limit.replace('%', ' %')}: {line}"


@pytest.mark.usefixtures("wide")
def test_a_gate_fails_beyond_the_limit_and_beyond_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0), record("b", 90.0))
    for limit, shown in (("9.9%", "9.9"), ("0.05", "5"), ("0%", "0"), ("7%", "7")):
        assert run_compare(tmp_path, "a", "b", "--fail-if-slower", limit) == 1
        out, err = capsys.readouterr()
        assert "B is 10.0 % slower than A" in out
        assert err == (
            "error: 'b' compared with 'a': B is 10.0 % slower than A (95 % interval 6.0 to 13.8 % slower, p < 0.0001);"
            f" the limit is {shown} %\n"
            "  What differs between them is listed above. Measure both again with --repeats to rule out chance.\n"
        )


def test_a_series_that_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0))
    save_series(tmp_path, "b", (100.0, 101.0), status="failed")
    assert run_compare(tmp_path, "a", "b") == 2
    assert capsys.readouterr().err == (
        "error: the series 'b' is not finished; its status is 'failed'\n"
        "  Compare its runs instead: 'b.r1' and 'b.r2'.\n"
    )


@pytest.mark.usefixtures("wide")
def test_a_gate_does_not_judge_different_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0), record("b", 200.0, plan=with_settings(PLAN, model="x1_0", image_size=96)))
    assert run_compare(tmp_path, "a", "b") == 0
    assert run_compare(tmp_path, "a", "b", "--fail-if-slower", "5%") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --fail-if-slower can't be judged: A and B did not do the same job (")
    assert "x1_0" in error


@pytest.mark.usefixtures("wide")
def test_a_gate_that_can_t_judge_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("old", 100.0, error=None), record("short", 90.0, error=None))
    assert run_compare(tmp_path, "old", "short") == 0
    lines = told(capsys)
    assert "B/A -10.0 %, significance unknown: neither A nor B has an interval" in lines
    assert "The settings and everything recorded about files and machine are the same." in lines
    assert run_compare(tmp_path, "old", "short", "--fail-if-slower", "5%") == 2
    assert capsys.readouterr().err == (
        "error: --fail-if-slower 5 % can't be judged: 'short' is 10.0 % below 'old', and neither A nor B has"
        " an interval to distinguish that from noise\n"
        "  Measure with longer runs (--max-seconds), or several times with --repeats.\n"
    )
    assert run_compare(tmp_path, "old", "short", "--fail-if-slower", "10%") == 0


def test_the_gate_looks_at_change_and_verdict_alone() -> None:
    a, b = StoredResult("a", ()), StoredResult("b", ())

    def gate(change: float, verdict: str) -> str:
        return check_gate(a, b, Difference(change, change, change, 0.01, verdict, ""), 0.05)

    assert gate(-0.05, "slower") == "--fail-if-slower 5 %: passed"
    assert gate(-0.2, "equal").startswith("--fail-if-slower 5 %: passed, as noise explains")
    assert gate(0.5, "faster") == "--fail-if-slower 5 %: passed"
    with pytest.raises(GateError, match=r"B is 5\.1 % slower"):
        gate(-0.051, "slower")
    with pytest.raises(UsageError, match="can't be judged"):
        gate(-0.051, "unknown")


@pytest.mark.usefixtures("wide")
def test_a_file_of_a_run_with_the_published_row_s_name_is_not_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case E2: no run can have that name, but a file may; the cure's two ways lead where they say."""
    save(tmp_path, record("bi_v100", 100.0), record("b", 90.0))
    own = tmp_path / "bi_v100.json"
    assert run_compare(tmp_path, "bi_v100", "b") == 2
    assert capsys.readouterr().err == (
        f"error: 'bi_v100' is the published row, and there is a file {str(own)!r}\n"
        f"  For the run, name that file: {str(own)!r}; for the published row, move it elsewhere.\n"
    )
    assert run_compare(tmp_path, str(own), "b") == 0
    assert "B is 10.0 % slower than A" in " ".join(capsys.readouterr().out.split())
    own.rename(tmp_path / "mine.json")
    assert run_compare(tmp_path, "bi_v100", "b") == 0
    assert "BI-V100" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["verify", "digits", "verify-digit"])
def test_a_verification_is_not_suggested_as_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Case E12."""
    save(tmp_path, record("first", 100.0))
    state = Verified("digits", "0", {"train": 3}, 10, status="finished")
    (tmp_path / "verify-digits.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
    assert run_compare(tmp_path, name, "first") == 2
    assert "verify-digits" not in capsys.readouterr().err.partition("\n")[2]
    assert run_compare(tmp_path, "verify-digits", "first") == 2
    assert "verify-digits.json' is not the record of a run or series" in capsys.readouterr().err
