"""Whole runs with the opencv loader: trained, stopped and resumed, evaluated, and measured beside DALI's."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from harness.artifacts.record import RunFiles
from harness.artifacts.shared_schema import LOADERS
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_noise
from tests.support.results import result_of
from tests.support.runs import launch, run, wait_for_steps

# Through the launcher: a process that the tests fork may not start others.
pytestmark = pytest.mark.whole_run

SMALL = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--compute-threads", "1",
         "--telemetry-interval", "0.1")  # fmt: skip
OPENCV = ("--loader", "opencv", "--workers", "2")
EPOCHS = ("--epochs", "3", "--gpus", "2", "--checkpoint-minutes", "0.01")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 training and 48 validation images, of which one of each is empty."""
    folder = write_noise(tmp_path_factory.mktemp("data"), 80, 48)
    for split in ("train", "val"):
        sorted((folder / split).rglob("*.jpg"))[5].write_bytes(b"")
    return folder


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_a_stopped_training_is_resumed_to_the_bit_and_leaves_no_process(data: Path, tmp_path: Path) -> None:
    options = (*SMALL, *OPENCV, *EPOCHS, "--data", str(data), "--max-bad-share", "0.1")
    whole = run(tmp_path / "whole", *options, start=launch)
    assert whole.code == 0, whole.err
    assert set(whole.table("bad_images")["split"]) == {"train", "val"}
    settings = whole.record["effective_settings"]
    assert [settings[name] for name in ("loader", "workers", "resize", "decode_threads")] == [
        "opencv",
        2,
        "opencv",
        None,
    ]
    assert "OpenCV in 2 workers" in whole.out

    folder = tmp_path / "stopped"
    started = launch(*options, "--results", str(folder), "--run-name", "it")
    files = RunFiles(folder, "it")
    wait_for_steps(files, 7, started)
    processes = workers_of(psutil.Process(started.pid))
    started.send_signal(signal.SIGTERM)
    assert started.end().code == 75
    gone, left = psutil.wait_procs(processes, timeout=30)
    assert (len(gone) > 4, left) == (True, [])
    resumed = run(folder, *options, "--resume", "it", start=launch)
    assert resumed.code == 0, resumed.err
    assert result_of(resumed.files).differs(result_of(whole.files)) == []


def test_two_loaders_are_measured_in_turns(colours: Path, tmp_path: Path) -> None:
    made = run(
        tmp_path, *SMALL, "--throughput-only", "--data", str(colours), "--gpus", "2", "--warmup", "2",
        "--max-seconds", "8", "--loader", "dali,opencv", "--workers", "1", start=launch,
    )  # fmt: skip
    assert made.code == 0, made.err
    steps = made.table("steps")
    order = list(steps.groupby("segment")["phase"].first())
    phases = ["pipeline", "train", "pipeline_beside", "train_beside", "compute", "compute_no_sync"]
    assert order == ["train", *phases * (len(order) // len(phases))]
    rows = read_table(made.files.table(LOADERS.name), LOADERS)
    assert rows["phase"].tolist() == ["end to end", "pipeline only"]
    assert rows["ratio"].tolist() == pytest.approx((rows["fps"] / rows["beside_fps"]).tolist(), rel=1e-3)
    window = steps[(steps["phase"] == "train_beside") & (steps["warmup"] == 0)]
    assert rows["beside_fps"][0] == pytest.approx(window["images"].sum() / window["step_seconds"].sum(), rel=1e-6)
    (mirrored,) = made.folder.glob("table-*.csv")
    methods = [line.split('"')[1] for line in mirrored.read_text().splitlines()[1:]]
    assert [method.endswith("OpenCV loader") for method in methods] == [False, True]
    assert "in turns with OpenCV in 1 worker" in " ".join(made.out.split())
    assert made.record["plan"]["compares_loaders"] is True
