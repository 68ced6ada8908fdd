"""A disk that is full, can't be written, or whose folder is gone: an error for people, and never a torn file."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.summarize import summarize
from harness.artifacts.atomic import check_writable, write_whole
from harness.artifacts.record import RunFiles, read_record, write_record
from harness.artifacts.run_claim import claimed
from harness.artifacts.schema import DEVICES, STEPS
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.shared_tables import append_row
from harness.artifacts.tables import TableWriter, cut_rows, fill_columns, read_table
from harness.errors import MachineError
from harness.training.loop import GlobalStep
from harness.training.recorder import open_recorder
from tests.support.frames import global_step
from tests.support.long_runs import LongRun
from tests.support.plans import a_record, a_summary, figures
from tests.support.runs import launch, run
from tests.support.small_disk import SmallDisk, fill, make_read_only

ROW = {"phase": "train", "segment": 1, "step": 1, "images": 64, "step_seconds": 0.5, "loss": 2.5}
NO_ROOM = "No space left on device"


def write_until_full(writer: TableWriter, row: dict[str, Any]) -> None:
    for _ in range(10_000):
        writer.write(row)


def assert_whole_rows(path: Path, rows: int) -> None:
    content = path.read_bytes()
    assert content.endswith(b"\n")
    assert b"\0" not in content
    assert len(read_table(path, STEPS)) == rows


def test_a_table_on_a_disk_that_fills_up_has_whole_rows_and_goes_on_when_there_is_room(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    path, ballast = disk / "it.steps.csv", disk / "ballast"
    ballast.write_bytes(bytes(32 * 1024))
    with TableWriter(path, STEPS) as writer:
        with pytest.raises(MachineError) as caught:
            write_until_full(writer, ROW)
        assert caught.value.message == f"can't write {path}: {NO_ROOM}"
        assert caught.value.cure == "Free space on the disk, or name another folder with --results."
        full = writer.rows
        assert 100 < full < 1000
        assert_whole_rows(path, full)
        # Nor does the next row that fails leave anything, or reach behind the end.
        for _ in range(3):
            with pytest.raises(MachineError):
                writer.write(ROW)
        assert_whole_rows(path, full)
        ballast.unlink()
        writer.write(ROW)
        writer.sync()
        assert writer.rows == full + 1
        assert_whole_rows(path, full + 1)


def test_a_file_is_replaced_on_a_full_disk_or_stays_as_it_was(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    record, table = disk / "it.json", disk / "it.steps.csv"
    write_whole(record, "old")
    with TableWriter(table, STEPS) as writer:
        for _ in range(10):
            writer.write(ROW)
    before = table.read_bytes()
    fill(disk)
    with pytest.raises(MachineError, match=NO_ROOM) as caught:
        write_whole(record, "new" * 10_000)
    assert str(record) in caught.value.message
    with pytest.raises(MachineError, match=NO_ROOM):
        fill_columns(table, STEPS, {"warmup": [0] * 10})
    assert (record.read_text(), table.read_bytes()) == ("old", before)
    assert sorted(path.name for path in disk.iterdir()) == ["ballast", "it.json", "it.steps.csv"]
    # What takes room away needs none.
    cut_rows(table, STEPS, 4)
    assert_whole_rows(table, 4)


def test_a_row_that_takes_another_s_place_on_a_full_disk_leaves_it(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    path = disk / "summary.csv"
    row = a_summary("it", figures())
    append_row(path, SUMMARY, row, unique=("run",))
    before = path.read_bytes()
    fill(disk)
    with pytest.raises(MachineError, match=NO_ROOM):
        append_row(path, SUMMARY, {**row, "fps": 1.0}, unique=("run",))
    assert path.read_bytes() == before


def fill_table(path: Path) -> None:
    """Leave no room for a row in the last page of a devices table on a full disk either."""
    with TableWriter(path, DEVICES) as writer, pytest.raises(MachineError):
        write_until_full(writer, {"device": "cpu"})


def record_steps(files: RunFiles, between: float, *, then_free: Path | None = None) -> None:
    """A step before a while of sampling every 20 ms, and one behind it."""
    with open_recorder(files, None, 0.02, os.environ) as recorder:
        started = time.perf_counter()
        step: GlobalStep = global_step(0, 0.1, 0.1)
        recorder.step(step, started, phase="train", segment=1, step=1)
        time.sleep(between)
        recorder.step(step, started, phase="train", segment=1, step=2)
        if then_free is not None:
            then_free.unlink()


def test_a_disk_without_room_for_telemetry_is_one_warning_and_no_end(small_disk: SmallDisk, tmp_path: Path) -> None:
    """The devices table alone lies on the full disk."""
    disk = small_disk(64 * 1024)
    files = RunFiles(tmp_path, "it")
    write_record(files.record, a_record())
    TableWriter(disk / "devices.csv", DEVICES).close()
    files.table("devices").symlink_to(disk / "devices.csv")
    fill(disk)
    fill_table(disk / "devices.csv")
    record_steps(files, 0.3)
    warnings = read_record(files.record).warnings
    assert warnings == (
        f"telemetry: rows are missing in it.devices.csv: can't write {tmp_path}/it.devices.csv: {NO_ROOM}",
    )
    assert len(read_table(files.table("steps"), STEPS)) == 2
    content = (disk / "devices.csv").read_bytes()
    assert b"\0" not in content
    assert content.endswith(b"\n")


@pytest.mark.parametrize("is_freed", [True, False])
def test_a_warning_that_can_t_be_written_ends_nothing_and_is_told_later(
    small_disk: SmallDisk, tmp_path: Path, is_freed: bool
) -> None:
    """Record and devices table lie on the full disk, the steps elsewhere."""
    disk = small_disk(128 * 1024)
    files = RunFiles(disk, "it")
    write_record(files.record, a_record())
    TableWriter(files.table("devices"), DEVICES).close()
    TableWriter(tmp_path / "steps.csv", STEPS).close()
    files.table("steps").symlink_to(tmp_path / "steps.csv")
    for name in ("epochs", "bad_images"):
        files.table(name).symlink_to(tmp_path / f"{name}.csv")
    ballast = fill(disk)
    fill_table(files.table("devices"))
    record_steps(files, 0.3, then_free=ballast if is_freed else None)
    assert len(read_table(tmp_path / "steps.csv", STEPS)) == 2
    warnings = read_record(files.record).warnings
    assert len(warnings) == (1 if is_freed else 0)
    assert all(NO_ROOM in warning for warning in warnings)


def test_a_disk_that_can_t_be_written_is_told_at_the_start(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    make_read_only(disk)
    for start in (lambda: check_writable(disk), lambda: ExitStack().enter_context(claimed(disk, "it", "usual"))):
        with pytest.raises(MachineError) as caught:
            start()
        assert caught.value.message == f"can't write {disk}: Read-only file system"
        assert caught.value.cure == "Name another folder with --results."
        assert caught.value.exit_code == 3
    with pytest.raises(MachineError, match=r"can't write .*/below: Read-only file system"):
        check_writable(disk / "below")


def test_a_folder_that_vanishes_is_an_error_for_people_wherever_it_shows(tmp_path: Path) -> None:
    run = LongRun(epochs=1, steps_per_epoch=40)
    folder = tmp_path / "results"
    folder.mkdir()
    files, record = run.write(folder)
    with TableWriter(files.table("steps"), STEPS) as writer:
        writer.sync()
        shutil.rmtree(folder)
        # The file is there as long as it is open: only who looks for it by its name finds it gone.
        writer.write(ROW)
        with pytest.raises(MachineError) as caught:
            writer.sync()
    steps = files.table("steps")
    assert caught.value.message.startswith(f"{steps} was removed or replaced while the run wrote to it")
    assert caught.value.cure == "Start the run again, and leave its files in place until it has ended."
    for look in (
        lambda: summarize(files, record),
        lambda: read_record(files.record),
        lambda: fill_columns(steps, STEPS, {}),
        lambda: cut_rows(steps, STEPS, 0),
    ):
        with pytest.raises(MachineError) as caught:
            look()
        assert caught.value.message.startswith(f"can't read {folder}/long.")
        assert caught.value.message.endswith(": No such file or directory")
        assert caught.value.cure == "Leave a run's files where they are until it has ended."
    for add in (
        lambda: write_record(files.record, record),
        lambda: append_row(folder / "summary.csv", SUMMARY, {"run": "it"}, unique=("run",)),
    ):
        with pytest.raises(MachineError, match="can't write"):
            add()


@pytest.mark.parametrize("vanished", ["devices", "epochs", "steps"])
def test_a_table_that_is_gone_leaves_nothing_concluded(tmp_path: Path, vanished: str) -> None:
    files, record = LongRun(epochs=1, steps_per_epoch=40).write(tmp_path)
    files.table(vanished).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(MachineError, match=f"can't read {files.table(vanished)}: No such file or directory"):
        summarize(files, record)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_on_a_file_system_without_locks_goes_on(tmp_path: Path, colours: Path, no_locks: dict[str, str]) -> None:
    """Case B2: with a note before the first step; its row is in both shared tables."""
    options = ["--device", "cpu", "--gpus", "1", "--model", "x0_25", "--image-size", "32", "--batch-size", "8"]
    start = partial(launch, environment=no_locks)
    ended = run(tmp_path, *options, "--epochs", "1", "--data", str(colours), start=start)
    assert (ended.code, ended.err) == (0, "")
    note = f"note: the file system of '{tmp_path}' has no locks: don't start two runs of one name at the same time"
    told = " ".join(ended.out.split())
    assert told.count(note) == 1
    assert told.index(note) < told.index("warm-up")
    assert read_table(tmp_path / "summary.csv", SUMMARY)["run"].tolist() == ["it"]
    assert (tmp_path / "table-cpux1-colours.csv").read_bytes().count(b"\n") == 2
