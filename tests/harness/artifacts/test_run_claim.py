"""A new run's name: taken by one run, and free again when that has not begun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import ROOT
from harness.artifacts.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from harness.artifacts.file_names import LOCK
from harness.artifacts.record import RunFiles, write_record
from harness.artifacts.run_claim import claimed, exclusive_run_lock, free_name, is_abandoned, is_running
from harness.errors import MachineError, UsageError
from tests.support.plans import a_record
from tests.support.small_disk import SmallDisk, make_read_only

CLAIMER = """
import sys
from pathlib import Path
from harness.artifacts.run_claim import claimed
with claimed(Path(sys.argv[1]), None, "usual", lock=True) as files:
    print(files.run, flush=True)
    sys.stdin.read()
"""


@contextmanager
def claimers(folder: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that start at the same moment and have the same usual name."""
    found = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, folder],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(count)
    ]  # fmt: skip
    try:
        yield found
    finally:
        for process in found:
            process.kill()
            process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_runs_that_start_in_the_same_second_have_names_of_their_own(tmp_path: Path) -> None:
    """The usual name is the second, the model and the devices."""
    with claimers(tmp_path, 3) as processes:
        runs = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
        assert sorted(runs) == ["usual", "usual-2", "usual-3"]
        assert all(is_running(RunFiles(tmp_path, run)) for run in runs)
        for process in processes:
            process.communicate()
    assert names(tmp_path) == []


@pytest.mark.parametrize("lock", [True, False])
def test_a_name_is_free_again_when_the_run_could_not_begin(tmp_path: Path, lock: bool) -> None:
    """Case E6."""
    for given in ("main", None):
        with pytest.raises(MachineError), claimed(tmp_path, given, "usual", lock=lock):
            raise MachineError("no room")
        assert names(tmp_path) == []
    with claimed(tmp_path, "main", "usual", lock=lock) as files:
        write_record(files.record, a_record(run="main"))
    assert "main.json" in names(tmp_path)
    with pytest.raises(UsageError, match=r"main\.json exists already"), claimed(tmp_path, "main", "usual", lock=lock):
        raise AssertionError


def test_a_lock_that_can_not_be_had_leaves_the_name_free(tmp_path: Path) -> None:
    """Case E6: the folder of the lock is in the way, as a file that nobody may open."""
    (tmp_path / "elsewhere").touch()
    (tmp_path / "main.checkpoints").symlink_to(tmp_path / "elsewhere" / "below")
    with pytest.raises(MachineError, match="can't write"), claimed(tmp_path, "main", "usual", lock=True):
        raise AssertionError
    (tmp_path / "main.checkpoints").unlink()
    with claimed(tmp_path, "main", "usual", lock=True):
        pass
    assert names(tmp_path) == ["elsewhere"]


def test_a_disk_that_can_not_be_written_takes_no_name(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    make_read_only(disk)
    with pytest.raises(MachineError, match="Read-only"), claimed(disk, "main", "usual", lock=True):
        raise AssertionError
    assert names(disk) == []


def test_what_others_have_made_under_the_name_stays(tmp_path: Path) -> None:
    """Case E5: an empty record beside files with content is not what a claim leaves."""
    files = RunFiles(tmp_path, "main")
    files.record.touch()
    files.checkpoints.mkdir()
    (files.checkpoints / LOCK).touch()
    assert is_abandoned(files)
    write_checkpoint(files.checkpoints, Checkpoint({}, {"optimizer_steps": 3}))
    before = names(tmp_path), names(files.checkpoints)
    assert not is_abandoned(files)
    free_name(files)
    assert (names(tmp_path), names(files.checkpoints)) == before
    assert newest_checkpoint(files.checkpoints) is not None
    for path in (files.table("steps"), files.traces):
        other = RunFiles(tmp_path, "other")
        other.record.touch()
        (tmp_path / path.name.replace("main", "other")).touch()
        assert not is_abandoned(other)
        (tmp_path / path.name.replace("main", "other")).unlink()
    assert is_abandoned(other)


def test_a_run_is_running_while_another_process_has_its_lock(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "usual")
    assert not is_running(files)
    assert names(tmp_path) == []
    with claimers(tmp_path, 1) as (process,):
        assert process.stdout is not None
        assert process.stdout.readline() == "usual\n"
        assert is_running(files)
        with pytest.raises(UsageError, match="run 'usual' is running in another process"), exclusive_run_lock(files):
            raise AssertionError
        with pytest.raises(UsageError) as caught, claimed(tmp_path, "usual", "usual", lock=True):
            raise AssertionError
        # To remove its files is no cure.
        assert (caught.value.message, caught.value.cure) == (
            "run 'usual' is running in another process",
            "Give another --run-name.",
        )
        assert os.path.getsize(files.record) == 0  # noqa: PTH202
        process.communicate()
    assert not is_running(files)
