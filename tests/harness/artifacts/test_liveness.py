"""A record says "running" for good once its process was killed: who reads it is told that it was interrupted."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import ROOT
from harness.analysis.comparing.stored_result import find_result
from harness.artifacts.liveness import is_gone, own_process, shown_status, started_unix_seconds
from harness.artifacts.record import SCHEMA_VERSION, RunFiles, RunRecord, write_record
from harness.errors import UsageError
from harness.plan.options import RunConfig
from tests.support.plans import a_plan


@pytest.fixture(scope="module")
def ended() -> dict[str, Any]:
    """A process that has ended."""
    script = "import json; from harness.artifacts.liveness import own_process; print(json.dumps(own_process()))"
    printed = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)
    values: dict[str, Any] = json.loads(printed)
    return values


def test_a_process_that_has_ended_is_gone(ended: dict[str, Any]) -> None:
    assert is_gone(ended)
    assert not is_gone(own_process())


def test_another_process_with_the_same_number_is_not_it() -> None:
    assert is_gone({**own_process(), "started": "1"})


def test_a_process_knows_when_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole seconds apart at most from psutil's, which counts from a boot time in whole seconds."""
    assert started_unix_seconds() == pytest.approx(psutil.Process().create_time(), abs=1.1)
    monkeypatch.setattr("harness.artifacts.liveness._start_of", lambda _: "")
    before = time.time()
    assert before <= started_unix_seconds() <= time.time()


BEFORE_BOOT = {"boot": "another", "seen_unix_seconds": psutil.boot_time() - 3600.0}


def test_a_process_from_before_the_machine_s_start_is_gone() -> None:
    """Where machines can be told apart; a machine without a name of its own can't."""
    named = bool(own_process()["machine"]) and not own_process()["host"].startswith("localhost")
    assert is_gone({**own_process(), **BEFORE_BOOT}) == named


@pytest.mark.parametrize(
    "values",
    [
        {**BEFORE_BOOT, "host": "another"},
        {**BEFORE_BOOT, "machine": "another"},
        {**BEFORE_BOOT, "seen_unix_seconds": psutil.boot_time() + 3600.0},
        {"namespace": "pid:[1]"},
        {"boot": ""},
        {"pid": None},
        {"started": ""},
    ],
    ids=["host", "machine", "after this machine's start", "container", "unknown start", "no number", "no start"],
)
def test_what_may_be_alive_is_not_gone(ended: dict[str, Any], values: dict[str, Any]) -> None:
    """On another machine, also one of the same name, or in another container."""
    assert not is_gone({**ended, **values})


def test_another_container_on_this_machine_shares_its_locks(ended: dict[str, Any], tmp_path: Path) -> None:
    elsewhere, lock = {**ended, "namespace": "pid:[1]"}, tmp_path / ".lock"
    assert not is_gone(elsewhere, lock)
    lock.touch()
    assert is_gone(elsewhere, lock)
    with lock.open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert not is_gone(elsewhere, lock)


def test_only_running_is_doubted(ended: dict[str, Any]) -> None:
    attempts = [{"process": own_process()}, {"process": ended}]
    assert shown_status({"status": "running", "attempts": attempts}) == "interrupted"
    assert shown_status({"status": "failed", "attempts": attempts}) == "failed"
    assert shown_status({"status": "running", "attempts": attempts[:1]}) == "running"
    assert shown_status({"status": "running", "attempts": [{}]}) == "running"
    assert shown_status({"status": "running", "process": ended}) == "interrupted"


@pytest.mark.parametrize(
    ("alive", "status", "cure"), [(True, "running", "Wait"), (False, "interrupted", "Run it again")]
)
def test_compare_says_what_became_of_a_run(
    ended: dict[str, Any], tmp_path: Path, alive: bool, status: str, cure: str
) -> None:
    """Case B4: a record of a dead process is never "running"."""
    files = RunFiles(tmp_path, "killed")
    process = own_process() if alive else ended
    write_record(
        files.record, RunRecord("killed", "running", RunConfig(), a_plan(), {}, attempts=({"process": process},))
    )
    with pytest.raises(UsageError, match=f"its status is '{status}'") as caught:
        find_result("killed", tmp_path)
    assert caught.value.cure.startswith(cure)


def test_compare_says_what_became_of_a_series(ended: dict[str, Any], tmp_path: Path) -> None:
    content = {"schema_version": SCHEMA_VERSION, "kind": "repeats", "run": "x", "status": "running", "runs": ["x.r1"]}
    (tmp_path / "x.json").write_text(json.dumps({**content, "process": ended}), encoding="utf-8")
    with pytest.raises(UsageError, match="its status is 'interrupted'"):
        find_result("x", tmp_path)
