"""How a run ends: what its first error was, whatever becomes of its files."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console as RichConsole

from harness.artifacts.record import RunFiles, RunRecord, read_record, write_record
from harness.commands import one_run
from harness.commands.inputs import Inputs, Inspection
from harness.commands.series import run_series, series_members
from harness.errors import InterruptedRunError, MachineError, TrainingError, UsageError
from harness.launch.meeting import ALONE
from harness.machine.device import Devices
from harness.plan.options import RunConfig
from harness.report.console import Console
from models.architecture import parameter_shapes
from models.sizes import SIZES
from models.weights import encode_weights
from pipelines.image_lists import ImageList
from tests.support.data_sets import a_dataset
from tests.support.plans import a_config, a_plan, a_record
from tests.support.small_disk import SmallDisk, fill

Workers = Callable[[RunFiles], None]
Measure = Callable[[Path, Workers], RunRecord]
LOST = TrainingError("rank 1 was ended by signal 9", "Look at its log.")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Carry out a run whose machine, data and workers are given; the rest is its own."""

    def carry_out(folder: Path, workers: Workers) -> RunRecord:
        images = ImageList(folder, ("0.jpg",), (0,))
        dataset = a_dataset(folder, 10, {"train": images})
        monkeypatch.setattr(one_run, "inspect_inputs", lambda *_: Inspection({}, {"mean_bytes": 1e5}, ()))
        monkeypatch.setattr(one_run, "run_workers", lambda files, *_, **__: workers(files))
        inputs = Inputs(Devices("cpu", 2, "CPU"), dataset, a_plan())
        config = a_config(results=str(folder), run_name="it")
        console = Console(RichConsole(file=io.StringIO()))
        return one_run.Run(config, inputs, ALONE, folder, {}, console, 0.0).carry_out()

    return carry_out


def test_what_ended_a_run_is_told_and_recorded(measure: Measure, tmp_path: Path) -> None:
    def lose_a_rank(files: RunFiles) -> None:
        raise LOST

    with pytest.raises(TrainingError) as caught:
        measure(tmp_path, lose_a_rank)
    assert caught.value is LOST
    record = read_record(tmp_path / "it.json")
    assert (record.status, record.warnings) == ("failed", ("failed: rank 1 was ended by signal 9",))


def test_without_a_temporary_folder_no_name_is_taken(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case B7: the cure, the same command with another TMPDIR, finds the name free."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    (tmp_path / "results").mkdir()
    with pytest.raises(MachineError, match="no temporary folder can be made"):
        measure(tmp_path / "results", lambda _: None)
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize("error", [LOST, KeyboardInterrupt()])
@pytest.mark.parametrize("fate", ["folder removed", "record removed", "record torn"])
def test_what_ended_a_run_is_told_even_if_it_can_t_be_recorded(
    measure: Measure, tmp_path: Path, error: BaseException, fate: str
) -> None:
    folder = tmp_path / "results"

    def fail(files: RunFiles) -> None:
        if fate == "folder removed":
            shutil.rmtree(folder)
        elif fate == "record removed":
            files.record.unlink()
        else:
            files.record.write_text("{")
        raise error

    with pytest.raises((type(error), InterruptedRunError)) as caught:
        measure(folder, fail)
    assert error in (caught.value, caught.value.__cause__)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InterruptedRunError("interrupted while it waited")])
def test_an_interruption_without_a_checkpoint_says_how_to_begin_again(
    measure: Measure, tmp_path: Path, error: BaseException
) -> None:
    """Case B4, while the ranks start; case B1, while a rank waits for its storage."""

    def interrupt(_: RunFiles) -> None:
        raise error

    with pytest.raises(InterruptedRunError) as caught:
        measure(tmp_path, interrupt)
    command = f"python run_bench.py --resume it --results {tmp_path}"
    assert caught.value.cure == f"No step has been saved. To start it again:\n  {command}"
    assert read_record(tmp_path / "it.json").status == "interrupted"


def test_what_ended_a_run_on_a_full_disk_is_told(measure: Measure, small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)

    def fail(files: RunFiles) -> None:
        fill(disk)
        raise LOST

    with pytest.raises(TrainingError) as caught:
        measure(disk, fail)
    assert caught.value is LOST
    # The record is whole, and says that the run is in progress.
    assert read_record(disk / "it.json").status == "running"


def test_a_folder_that_is_gone_when_the_ranks_have_ended(measure: Measure, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with pytest.raises(MachineError) as caught:
        measure(folder, lambda files: shutil.rmtree(folder))
    assert caught.value.message == f"can't read {folder}/it.json: No such file or directory"
    assert caught.value.exit_code == 3


def test_what_ended_a_series_on_a_full_disk_is_told(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    config = RunConfig(throughput_only=True, repeats=2, results=str(disk), run_name="it")

    def fail(config: RunConfig, name: str) -> RunRecord:
        write_record(disk / f"{config.run_name}.json", a_record())
        fill(disk)
        raise LOST

    with pytest.raises(TrainingError) as caught:
        run_series(config, series_members(config), fail, Console(RichConsole(file=io.StringIO())))
    assert caught.value is LOST
    assert json.loads((disk / "it.json").read_text())["status"] == "running"


def test_a_run_that_begins_again_wants_the_weights_it_began_with(tmp_path: Path) -> None:
    """Without a checkpoint the file is read once more, and the record names what it was."""
    path, files = tmp_path / "w.safetensors", RunFiles(tmp_path, "it")
    shapes = parameter_shapes(SIZES["x0_25"].scale, 10)
    path.write_bytes(encode_weights(path, {name: np.ones(shape, np.float32) for name, shape in shapes.items()}, {}))
    config, plan = a_config(pretrained=str(path)), a_plan(pretrained=str(path))
    first = {"file": "w.safetensors", "sha256": "0" * 64}
    write_record(
        files.record,
        a_record(run="it", status="interrupted", config=config, plan=a_plan(pretrained=str(path)), pretrained=first),
    )
    files.checkpoints.mkdir()
    dataset = a_dataset(tmp_path, 10, {"train": ImageList(tmp_path, ("0.jpg",), (0,))})
    inputs = Inputs(Devices("cpu", 2, "CPU"), dataset, plan)
    resumed = replace(config, resume="it")
    with pytest.raises(UsageError, match=r"w\.safetensors is not the file that run 'it' began with"):
        one_run.Run(resumed, inputs, ALONE, tmp_path, {}, Console(RichConsole(file=io.StringIO())), 0.0).carry_out()
