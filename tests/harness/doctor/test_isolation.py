"""A check in its own process: it ends in time whatever it does, and nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import psutil

from harness.doctor.check import FAIL, OK, Context, Finding
from harness.doctor.isolation import Isolated, run_isolated
from tests.support import faulty_checks

LIMIT_SECONDS = 60.0


def assert_ended(pids: list[int]) -> None:
    """Processes that were killed, but that the kernel may still be ending."""
    _, living = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    assert [process.pid for process in living if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_hang_is_a_finding_and_its_children_are_killed(tmp_path: Path) -> None:
    """With a limit that is short, but longer than the start of an interpreter on a busy machine."""
    found = run_isolated(faulty_checks.hang, Context(results=str(tmp_path)), 10.0)
    assert (found.status, found.found) == (FAIL, "no answer within 10 s")
    assert "waiting for the driver" in found.reason
    assert found.cure
    children = [int(pid) for pid in (tmp_path / "children").read_text().split()]
    assert len(children) == 2
    assert_ended(children)


def test_a_crash_is_a_finding_that_names_the_signal() -> None:
    found = run_isolated(faulty_checks.crash, Context(), LIMIT_SECONDS)
    assert (found.status, found.found) == (FAIL, "ended by SIGSEGV")
    assert "about to fall" in found.reason


def test_an_end_without_an_answer_is_a_finding() -> None:
    found = run_isolated(faulty_checks.stop, Context(), LIMIT_SECONDS)
    assert (found.status, found.found) == (FAIL, "ended with exit code 9 without an answer")
    assert "no licence" in found.reason


def test_an_error_is_a_finding() -> None:
    found = run_isolated(faulty_checks.raise_an_error, Context(), LIMIT_SECONDS)
    assert (found.status, found.found, found.reason) == (FAIL, "ValueError", "seven is not a number")
    refused = run_isolated(faulty_checks.refuse, Context(), LIMIT_SECONDS)
    assert (refused.status, refused.reason, refused.cure) == (FAIL, "there is no device", "buy one")


def test_what_a_check_leaves_behind_is_removed(tmp_path: Path) -> None:
    found = run_isolated(faulty_checks.litter, Context(), LIMIT_SECONDS)
    assert found.status == OK
    assert not Path(found.found).exists()
    assert run_isolated(faulty_checks.leave_a_child, Context(results=str(tmp_path)), LIMIT_SECONDS).status == OK
    assert_ended([int((tmp_path / "children").read_text())])


def test_a_check_gets_its_context_and_options() -> None:
    found = run_isolated(faulty_checks.echo, Context(data="photos"), LIMIT_SECONDS, options={"number": 2})
    assert found == Finding(OK, "photos {'number': 2}")


def test_a_check_that_is_left_early_is_over(tmp_path: Path) -> None:
    with Isolated(faulty_checks.hang, Context(results=str(tmp_path)), 600.0) as one:
        pid = one._process.pid
    assert not psutil.pid_exists(pid)
