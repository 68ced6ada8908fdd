"""Whole runs on images in shards, and on images kept in memory: the same results as on files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, EPOCHS
from harness.commands.data.pack import pack
from pipelines.dataset import open_dataset
from pipelines.packed.shards import FORMATS
from tests.support.data_sets import write_noise
from tests.support.results import Result, result_of
from tests.support.runs import Run, fork, kill, launch, run, wait_for_checkpoint, wait_for_steps

pytestmark = pytest.mark.whole_run

OPTIONS = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--compute-threads", "1",
           "--epochs", "3", "--gpus", "2", "--checkpoint-minutes", "0.01", "--telemetry-interval", "0.1",
           "--max-bad-share", "0.1")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 training and 16 validation images, of which one can't be decoded and one is empty."""
    folder = write_noise(tmp_path_factory.mktemp("data") / "data", 80, 16)
    broken = folder / "train/1/1.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "train/2/2.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def from_files(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    made = bench(tmp_path_factory.mktemp("files"), data)
    assert made.code == 0, made.err
    return result_of(made.files).of_training()


def bench(folder: Path, data: Path, *options: str, name: str = "it") -> Run:
    return run(folder, *OPTIONS, "--data", str(data), *options, name=name)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_on_shards_that_is_killed_ends_as_one_on_files(
    kind: str, data: Path, from_files: Result, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    pack(str(data), str(shards), kind)
    process = fork(*OPTIONS, "--data", str(shards), "--results", str(tmp_path), "--run-name", "it")
    files = RunFiles(tmp_path, "it")
    wait_for_checkpoint(files, process)
    wait_for_steps(files, 8, process)
    kill(process)
    resumed = bench(tmp_path, shards, "--resume")
    assert resumed.code == 0, resumed.err
    assert result_of(files).of_training().differs(from_files) == []
    assert resumed.record["plan"]["data"]["shards"] == f"1 shard of {kind}"
    bad = resumed.table(BAD_IMAGES.name)
    ending = FORMATS[kind].endings[0]
    assert sorted(bad["reason"]) == ["0 bytes", "its header is broken or cut off"]
    assert all(path.startswith(f"train/train-000000{ending}/") for path in bad["path"])


def test_files_in_memory_give_the_same_result(data: Path, from_files: Result, tmp_path: Path) -> None:
    made = bench(tmp_path, data, "--cache", "ram")
    assert made.code == 0, made.err
    assert result_of(made.files).of_training().differs(from_files) == []
    kept = made.record["profile"]["memory_cache"]
    images = open_dataset(data).splits.values()
    assert kept["images"] == 96
    assert kept["bytes"] == sum(len(one.content(index)) for one in images for index in range(len(one)))
    assert f"95 images in memory, {kept['bytes'] / 1e9:,.2f} GB" in made.out


def test_windows_are_another_order_that_is_said(data: Path, from_files: Result, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    pack(str(data), str(shards), "webdataset")
    made = bench(tmp_path, shards, "--shuffle-window", "20")
    assert made.code == 0, made.err
    assert "shards shuffled, then their images in windows of 20" in made.out
    assert len(made.table(EPOCHS.name)) == 3
    assert result_of(made.files).of_training().differs(from_files) != []
    refused = bench(tmp_path, data, "--shuffle-window", "20", name="files")
    assert refused.code == 2
    assert refused.err.splitlines() == [
        "error: --shuffle-window is for images in shards, and those of data are files of their own",
        "  Omit it, or pack them: run_bench.py pack.",
    ]


@pytest.mark.parametrize("loader", ["dali", "opencv"])
def test_throughput_of_shards(loader: str, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    shards = tmp_path / "shards"
    pack(str(data), str(shards), "tfrecord")
    opencv = loader == "opencv"
    workers, start = (("--workers", "1"), launch) if opencv else ((), fork)
    made = run(
        tmp_path, "--throughput-only", "--device", "cpu", "--gpus", "1", "--model", "x0_25", "--image-size", "32",
        "--batch-size", "8", "--max-seconds", "3", "--data", str(shards), "--loader", loader, *workers,
        "--max-bad-share", "0.1", start=start,
    )  # fmt: skip
    assert made.code == 0, made.err
    assert made.record["summary"]["fps"] > 0
    assert made.record["summary"]["left_out_train_images"] == 2
