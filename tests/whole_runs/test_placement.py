"""Whole runs whose ranks are kept on their cores, which each of them reads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.host import allowed_cores
from harness.machine.placement.core_lists import format_cores, parse_cores
from harness.machine.placement.pinning import can_pin
from tests.support.runs import Run, launch, run

pytestmark = [
    pytest.mark.whole_run,
    pytest.mark.skipif(not can_pin(), reason="this system keeps no process on cores"),
]

SMALL = ("--device", "cpu", "--gpus", "2", "--model", "x0_25", "--image-size", "32", "--batch-size", "4",
         "--compute-threads", "1", "--epochs", "1")  # fmt: skip


def shares_of(made: Run) -> list[str]:
    """The cores that the ranks were to run on, which are those that they then had."""
    assert made.code == 0, made.err
    record = made.record
    assert record["config"]["affinity"] == record["plan"]["placement"]["affinity"] == "pin"
    shares: list[str] = record["plan"]["placement"]["rank_cores"]
    assert record["effective_settings"]["rank_cores"] == shares
    return shares


def test_each_rank_has_its_own_cores(colours: Path, tmp_path: Path) -> None:
    made = run(tmp_path, *SMALL, "--data", str(colours), "--affinity", "pin")
    first, second = (set(parse_cores(share)) for share in shares_of(made))
    assert first | second == allowed_cores()
    assert first & second == (set() if len(allowed_cores()) > 1 else first)


def test_the_opencv_loader_s_workers_stay_on_their_rank_s_cores(colours: Path, tmp_path: Path) -> None:
    """Through the launcher: a process that the tests fork may not start others."""
    options = ("--affinity", "pin", "--loader", "opencv", "--workers", "2")
    assert len(shares_of(run(tmp_path, *SMALL, *options, "--data", str(colours), start=launch))) == 2


def test_without_it_ranks_may_run_anywhere(colours: Path, tmp_path: Path) -> None:
    made = run(tmp_path, *SMALL, "--data", str(colours))
    assert made.code == 0, made.err
    assert made.record["plan"]["placement"] == {"affinity": "none", "rank_cores": []}
    assert made.record["effective_settings"]["rank_cores"] == [format_cores(allowed_cores())] * 2
