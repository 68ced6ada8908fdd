"""Whole runs that are stopped, killed and gone on with, and runs on data that can't all be used."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from benchmarks.kills import OPTIONS, ROOT, Result, campaign, finish, result_of, write_data
from harness.artifacts.checkpoint import newest_checkpoint, read_checkpoint
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, EPOCHS, STEPS, SUMMARY
from harness.artifacts.tables import read_table
from tests.support.small_disk import SmallDisk


def start(folder: Path, data: Path, run: str, *options: str) -> subprocess.Popen[str]:
    line = [sys.executable, str(ROOT / "run_bench.py"), *OPTIONS, "--data", str(data), "--results", str(folder)]
    return subprocess.Popen(
        [*line, "--run-name", run, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def bench(folder: Path, data: Path, run: str, *options: str) -> tuple[int, str, str]:
    process = start(folder, data, run, *options)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def wait_for_checkpoint(files: RunFiles, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while newest_checkpoint(files.checkpoints) is None:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    """End the launching process, and wait for those that end with it."""
    others = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(others, timeout=30)
    assert alive == []


def wait_for_steps(files: RunFiles, rows: int, phase: str = "") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = files.table(STEPS.name)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        if len(lines) > rows and any(line.startswith(phase) for line in lines):
            return
        time.sleep(0.01)
    raise AssertionError(f"no {rows} rows in 120 s")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, 160, 96)
    return folder


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """On two ranks: 10 training steps of 2 x 8 images in each of 4 epochs."""
    return finish(data, tmp_path_factory.mktemp("undisturbed"), "it", 2)


@pytest.mark.timeout(600)
def test_killed_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    told: list[str] = []
    assert campaign(4, 5, told.append, tmp_path, ranks=(2,)) == 0, "\n".join(told)
    killed = int(next(line for line in told if line.endswith(" processes killed")).split()[0])
    assert killed >= 4


@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_a_stopped_run_tells_how_to_go_on_and_ends_as_if_nothing_had_happened(
    data: Path, undisturbed: Result, tmp_path: Path, phase: str
) -> None:
    files = RunFiles(tmp_path, "it")
    process = start(tmp_path, data, "it", "--gpus", "2", "--checkpoint-minutes", "60")
    wait_for_steps(files, 4, phase)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    lines = err.splitlines()
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    assert lines[0] == f"error: interrupted behind step {saved[1]['optimizer_steps']:,} of 40"
    assert json.loads(files.record.read_text())["status"] == "interrupted"
    # The tables end where the checkpoint was made, but for its own row.
    steps = read_table(files.table(STEPS.name), STEPS)
    assert saved[1]["rows"]["steps"] == len(steps) - 1
    assert steps["phase"].iloc[-1] == "checkpoint"
    command = shlex.split(lines[-1])
    assert command == ["python", "run_bench.py", "--resume", "it", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert result_of(files).differs(undisturbed) == []
    record = json.loads(files.record.read_text())
    assert [attempt["step"] for attempt in record["attempts"]] == [0, saved[1]["optimizer_steps"]]
    assert record["attempts"][1]["first_segment"] == saved[1]["segments"] + 1
    steps = read_table(files.table(STEPS.name), STEPS)
    train = steps[steps["phase"] == "train"]
    assert train["step"].tolist() == list(range(1, 41))
    # Processes begin cold again, so that their first steps are no part of the throughput either.
    resumed = train[train["segment"] >= record["attempts"][1]["first_segment"]]
    assert resumed["warmup"].iloc[0] == 1
    assert len(read_table(tmp_path / "summary.csv", SUMMARY)) == 1


def test_a_run_of_every_variant_goes_on_to_the_same_accuracy(data: Path, tmp_path: Path) -> None:
    """Steps of two batches, channels last, a static graph, rank 0's statistics, DALI's recipe, AutoAugment."""
    variant = (
        "--gpus", "2", "--accumulation-steps", "2", "--layout", "nhwc", "--to-static", "--bn-stats", "rank0",
        "--preprocessing",
        "dali", "--auto-augment",
    )  # fmt: skip
    code, _, err = bench(tmp_path, data, "whole", *variant)
    assert code == 0, err
    process = start(tmp_path, data, "parts", *variant)
    files = RunFiles(tmp_path, "parts")
    wait_for_steps(files, 8, "train")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    assert 0 < saved[1]["optimizer_steps"] < 20
    code, _, err = bench(tmp_path, data, "parts", "--resume")
    assert code == 0, err
    whole, parts = (result_of(RunFiles(tmp_path, name)) for name in ("whole", "parts"))
    assert parts.differs(whole) == []
    # 160 images in steps of 2 ranks x 2 batches x 8
    train = parts.steps[parts.steps["phase"] == "train"]
    assert (len(train), set(train["images"])) == (20, {32})


def test_other_devices_go_on_at_an_epochs_start(data: Path, tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    process = start(tmp_path, data, "it", "--gpus", "2", "--checkpoint-minutes", "60")
    wait_for_checkpoint(files, process)
    kill(process)
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    epoch = saved[1]["progress"]["epoch"]
    code, out, err = bench(tmp_path, data, "it", "--gpus", "1", "--resume")
    assert code == 0, err
    assert f"1 devices from epoch {epoch} on, 2 before: 8 images a step" in " ".join(out.split())
    steps = read_table(files.table(STEPS.name), STEPS)
    train = steps[steps["phase"] == "train"]
    assert train["images"].tolist() == [16] * 10 * (epoch - 1) + [8] * 20 * (5 - epoch)
    # The published rule, 0.1 per 256 images, at the same place of the schedule.
    peak = 0.1 * 8 / 256
    warmup_steps, done = 4 * 20, (epoch - 1) * 20
    assert train["learning_rate"].iloc[10 * (epoch - 1)] == pytest.approx(peak * done / warmup_steps, abs=1e-9)
    assert read_table(files.table(EPOCHS.name), EPOCHS)["epoch"].tolist() == [1, 2, 3, 4]


def test_more_epochs_go_on_and_other_settings_are_refused_by_name(data: Path, tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    process = start(tmp_path, data, "it", "--gpus", "1")
    wait_for_checkpoint(files, process)
    kill(process)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    code, _, err = bench(tmp_path, data, "it", "--gpus", "1", "--resume", "--seed", "9", "--momentum", "0.5")
    assert code == 2
    assert "--seed: 0 before, 9" in err
    assert "--momentum: 0.9 before, 0.5" in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    code, out, err = bench(tmp_path, data, "it", "--gpus", "1", "--resume", "--epochs", "5")
    assert code == 0, err
    assert "5 epochs, not 4" in out
    assert len(read_table(files.table(EPOCHS.name), EPOCHS)) == 5
    code, out, _ = bench(tmp_path, data, "it", "--gpus", "1", "--resume", "--epochs", "5")
    assert (code, out) == (0, "nothing to go on with: the run is finished\n")


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before_it(data: Path, tmp_path: Path) -> None:
    code, _, err = bench(
        tmp_path, data, "it", "--gpus", "2", "--learning-rate", "1e9", "--lr-warmup-epochs", "1",
        "--checkpoint-minutes", "0.00001",
    )  # fmt: skip
    assert code == 5
    first = err.splitlines()[0]
    assert ("the loss is" in first and "on rank" in first) or "are not finite after step" in first
    assert "learning rate" in first
    files = RunFiles(tmp_path, "it")
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    assert f"The state behind step {saved[1]['optimizer_steps']} is kept." in err
    arrays = read_checkpoint(files.checkpoints, saved[0]).arrays
    assert all(np.isfinite(values).all() for name, values in arrays.items() if name.startswith("model/"))


def test_a_full_disk_ends_the_run_with_what_was_saved(data: Path, small_disk: SmallDisk) -> None:
    # A checkpoint of this model has 1.9 MiB.
    disk = small_disk(3 * 1024 * 1024)
    code, _, err = bench(disk, data, "it", "--gpus", "1", "--checkpoint-minutes", "60")
    assert code == 3, err
    assert "No space left on device" in err
    files = RunFiles(disk, "it")
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    assert saved[1]["progress"]["epoch"] == 2
    assert f"The state behind step {saved[1]['optimizer_steps']} is kept." in err
    assert sorted(path.name for path in files.checkpoints.iterdir()) == [
        ".lock", "000001.json", "000001.safetensors"
    ]  # fmt: skip
    steps = files.table(STEPS.name)
    assert steps.read_bytes().endswith(b"\n")
    assert read_table(steps, STEPS)["step_seconds"].notna().all()


BAD = {
    "train/0/zero.jpg": b"", "train/1/text.jpg": b"no image" * 9, "val/2/text.jpg": b"no image" * 9,
    "val/3/=cut.jpg": b"",
}  # fmt: skip


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A data set with two bad files in each split, and one image cut off."""
    folder = tmp_path / "broken"
    write_data(folder, 64, 30)
    for name, content in BAD.items():
        (folder / name).write_bytes(content)
    whole = folder / "train" / "2" / "2.jpg"
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return folder


def bad_images(files: RunFiles) -> pd.DataFrame:
    table: pd.DataFrame = read_table(files.table(BAD_IMAGES.name), BAD_IMAGES).set_index("path")
    return table


def test_bad_images_are_left_out_named_and_counted(broken: Path, tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    code, _, err = bench(tmp_path, broken, "it", "--gpus", "2")
    assert code == 0, err
    table = bad_images(files)
    assert sorted(table.index) == sorted([*BAD, "train/2/2.jpg"])
    assert table.loc["train/0/zero.jpg", "reason"] == "0 bytes"
    assert table.loc["train/1/text.jpg", "reason"] == "no image format that DALI decodes"
    assert "damaged or cut off" in str(table.loc["train/2/2.jpg", "reason"])
    # Empty files are seen before the first step, the others by the rank that reads them, in the first epoch.
    early = table["rank"].isna()
    assert sorted(table.index[early]) == ["train/0/zero.jpg", "val/3/=cut.jpg"]
    assert set(table.loc[~early, "epoch"]) == {1}
    epochs = read_table(files.table(EPOCHS.name), EPOCHS)
    assert epochs["val_images"].tolist() == [30] * 4
    assert all((epochs["top1"] * 30).round(6).apply(lambda right: abs(right - round(right)) < 0.01))
    steps = read_table(files.table(STEPS.name), STEPS)
    train = steps[steps["phase"] == "train"]
    # ceil(ceil(66 / 2) / 8) = 5 steps an epoch, each full.
    assert train["images"].tolist() == [16] * 20
    assert read_table(tmp_path / "summary.csv", SUMMARY)["bad_images"].tolist() == [5]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--bad-images", "fail"), "1 of 66 listed files cannot be used:\n  'train/0/zero.jpg': 0 bytes"),
        (("--max-bad-images", "1"), "1 of 32 listed files cannot be used:\n  'val/3/=cut.jpg': 0 bytes"),
        (("--max-bad-images", "3"), "more than 3 images can't be used, 4 so far; the last ones:"),
    ],
)
def test_too_many_bad_images_end_the_run(broken: Path, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    code, _, err = bench(tmp_path, broken, "it", "--gpus", "1", *options)
    assert code == 4, err
    assert err.startswith(f"error: {told}")
    assert not (tmp_path / "summary.csv").exists()


def test_throughput_is_measured_around_bad_images(broken: Path, tmp_path: Path) -> None:
    options = [option for option in OPTIONS if option not in ("--epochs", "4", "--checkpoint-minutes", "0.01")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_bench.py"), *options, "--gpus", "1", "--data", str(broken),
         "--throughput-only", "--max-seconds", "4", "--results", str(tmp_path), "--run-name", "it"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(bad_images(RunFiles(tmp_path, "it")).index) == [
        "train/0/zero.jpg", "train/1/text.jpg", "train/2/2.jpg"
    ]  # fmt: skip
