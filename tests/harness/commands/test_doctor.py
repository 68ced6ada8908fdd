"""`run_bench.py doctor`: which checks run, what is printed, the exit code, and that nothing changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT
from harness.commands.doctor import HONESTY, MARKS, SCHEMA_VERSION, doctor, list_checks
from harness.doctor.check import FAIL, LEVELS, OK, PIPELINE, QUICK, SKIP, WARN, Check, Context
from harness.doctor.checks import CHECKS, select_checks, worst
from harness.errors import MachineError, UsageError
from tests.support import faulty_checks
from tests.support.pages import read

FINE = Check("fine", QUICK, "All is well.", 60.0, faulty_checks.fine)
DOUBTFUL = Check("doubtful", QUICK, "There is much.", 60.0, faulty_checks.doubtful)
WRONG = Check("wrong", PIPELINE, "Seven is a number.", 60.0, faulty_checks.refuse)


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run_bench.py"), "doctor", *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    doctor([], "all", Context(), checks=(FINE, DOUBTFUL))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == QUICK
    assert [word for word in lines[1].split("  ") if word] == ["ok", "fine", "all is well"] or "fine" in lines[1]
    assert [line.strip() for line in lines[2:6]] == [
        lines[2].strip(), "expected: much", "reason: there is less", "cure: get more"
    ]  # fmt: skip
    assert lines[2].split()[:2] == ["WARN", "doubtful"]
    assert "\n".join(lines[-3:-1]) == HONESTY
    assert lines[-1] == "2 checks: 1 ok, 1 to look at, 0 failed, 0 skipped"


def test_a_failed_check_is_an_error_of_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MachineError, match="1 of 2 checks failed: wrong"):
        doctor([], "all", Context(), checks=(FINE, WRONG))
    shown = capsys.readouterr().out
    assert "reason: there is no device" in shown
    assert "cure: buy one" in shown


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MachineError):
        doctor([], "all", Context(), as_json=True, checks=(FINE, WRONG))
    values = json.loads(capsys.readouterr().out)
    assert (values["schema_version"], values["status"]) == (SCHEMA_VERSION, FAIL)
    assert values["checks"][0] == {
        "id": "fine", "level": QUICK, "title": "All is well.", "status": OK, "found": "all is well", "expected": "",
        "reason": "", "cure": "",
    }  # fmt: skip


def test_the_worst_status_is_that_of_all() -> None:
    assert worst([OK, WARN, FAIL]) == FAIL
    assert worst([SKIP, OK, WARN]) == WARN
    assert worst([SKIP, OK]) == OK
    assert worst([SKIP, SKIP]) == SKIP
    assert set(MARKS) == {OK, WARN, FAIL, SKIP}


def test_which_checks_run() -> None:
    assert [check.id for check in select_checks("all")] == [check.id for check in CHECKS]
    assert {check.level for check in select_checks(QUICK)} == {QUICK}
    assert [check.id for check in select_checks("all", ["shm", "python", "shm"])] == ["shm", "python"]
    with pytest.raises(UsageError, match="no check 'pyton'") as unknown:
        select_checks("all", ["pyton"])
    assert unknown.value.cure == "Did you mean 'python'?"
    with pytest.raises(UsageError, match="no check 'x'"):
        select_checks("all", ["x"])
    with pytest.raises(UsageError, match="not a level"):
        select_checks("fast")
    with pytest.raises(UsageError, match="exclude each other"):
        select_checks(QUICK, ["shm"])


def test_the_table_of_checks() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    levels = [LEVELS.index(check.level) for check in CHECKS]
    assert levels == sorted(levels)
    assert set(levels) == set(range(len(LEVELS)))
    assert all(check.title.endswith(".") and check.limit_seconds <= 90 for check in CHECKS)


def test_the_page_has_every_check() -> None:
    page = read("doctor.md")
    for check in CHECKS:
        assert f"| `{check.id}` | {check.level} | {check.title} | {check.limit_seconds:g} s |" in page


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    list_checks()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [check.id for check in CHECKS]
    assert all(check.title in line for check, line in zip(CHECKS, lines, strict=True))


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_command_changes_nothing(tmp_path: Path) -> None:
    """Neither where it is started, nor in --results, the cache of built-in sets, or the folder of temporary files."""
    folders = {name: tmp_path / name for name in ("here", "temporary", "cache")}
    for folder in folders.values():
        folder.mkdir()
    done = run(
        "python", "packages", "disk", "hand-over", "decode", "--json", "--results", "results/not-yet",
        "--device", "cpu",
        folder=folders["here"], TMPDIR=str(folders["temporary"]), PPLCNET_BENCH_CACHE=str(folders["cache"]),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [check["status"] for check in json.loads(done.stdout)["checks"]] == [OK] * 5
    assert tree(tmp_path) == ["cache", "here", "temporary"]


def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    for words, message in (
        (("disc",), "Did you mean 'disk'?"),
        (("--gpus", "0"), "--gpus is 0; it must be at least 1"),
    ):
        done = run(*words, folder=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr


def test_the_exit_code_of_a_failure(tmp_path: Path) -> None:
    """With a temporary folder that is none, the machine is at fault, too."""
    info = tmp_path / "rich-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rich\nVersion: 1.0\n")
    done = run("packages", folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.startswith("error: 1 of 1 check failed: packages\n")
    assert "rich 1.0" in done.stdout
