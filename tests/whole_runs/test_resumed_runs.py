"""Whole runs that are stopped or killed, and resumed."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import psutil
import pytest

from benchmarks.disturbed import processes_of_run
from benchmarks.signals import send
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import EPOCHS, STEPS
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_noise
from tests.support.results import Result, result_of
from tests.support.runs import Run, Started, fork, kill, launch, run, wait_for_checkpoint, wait_for_steps

pytestmark = pytest.mark.whole_run

OPTIONS = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--compute-threads", "1",
           "--epochs", "4", "--checkpoint-minutes", "0.01", "--telemetry-interval", "0.1")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 training and 48 validation images: on two ranks 5 steps in each of 4 epochs, and 3 of each evaluation."""
    return write_noise(tmp_path_factory.mktemp("data"), 80, 48)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """On two ranks."""
    made = bench(tmp_path_factory.mktemp("undisturbed"), data, "it", "--gpus", "2")
    assert made.code == 0, made.err
    return result_of(made.files)


def start(folder: Path, data: Path, name: str, *options: str) -> Started:
    return fork(*OPTIONS, "--data", str(data), "--results", str(folder), "--run-name", name, *options)


def bench(folder: Path, data: Path, name: str, *options: str) -> Run:
    return run(folder, *OPTIONS, "--data", str(data), *options, name=name)


@pytest.mark.parametrize(
    ("phase", "number", "everywhere"), [("train", signal.SIGHUP, True), ("evaluate", signal.SIGTERM, False)]
)
def test_a_stopped_run_tells_how_to_resume_and_ends_as_if_nothing_had_happened(
    data: Path, undisturbed: Result, tmp_path: Path, phase: str, number: signal.Signals, everywhere: bool
) -> None:
    """Through Paddle's launcher: it must not end ranks that still save, and no process may be left behind.

    Case B4: everywhere is to each process of the run at once, and twice; otherwise to the launching process alone.
    benchmarks/signals.py sends six signals in each of three phases (`make soak`).
    """
    files = RunFiles(tmp_path, "it")
    process = launch(
        *OPTIONS, "--data", str(data), "--results", str(tmp_path), "--run-name", "it", "--gpus", "2",
        "--checkpoint-minutes", "60",
    )  # fmt: skip
    wait_for_steps(files, 4, process, phase)
    if everywhere:
        assert send(number, processes_of_run(process.pid))
    else:
        process.send_signal(number)
    ended = process.end(60)
    assert ended.code == 75, ended.err
    assert [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in (one.info["cmdline"] or [])] == []
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    steps_made, command = saved[1]["optimizer_steps"], f"python run_bench.py --resume it --results {tmp_path}"
    assert ended.err.splitlines() == [
        f"error: interrupted after step {steps_made} of 20",
        f"  A checkpoint after step {steps_made} was saved. To resume:",
        f"    {command}",
    ]
    record = Run(ended.code, ended.out, ended.err, files).record
    assert record["status"] == "interrupted"
    # The tables end where the checkpoint was made, but for its own row; only a run's conclusion knows its warm-up.
    assert files.table(STEPS.name).read_bytes().endswith(b"\n")
    steps = read_table(files.table(STEPS.name), STEPS)
    assert saved[1]["rows"]["steps"] == len(steps) - 1
    assert steps["phase"].iloc[-1] == "checkpoint"
    assert steps["warmup"].isna().all()
    assert steps[steps["phase"] == "train"]["step"].tolist() == list(range(1, steps_made + 1))

    resumed = fork(*shlex.split(command)[2:]).end()
    assert resumed.code == 0, resumed.err
    assert result_of(files).differs(undisturbed) == []
    made = Run(resumed.code, resumed.out, resumed.err, files)
    attempts = made.record["attempts"]
    assert [attempt["step"] for attempt in attempts] == [0, steps_made]
    assert attempts[1]["first_segment"] == saved[1]["segments"] + 1
    train = made.train_steps()
    assert train["step"].tolist() == list(range(1, 21))
    # Processes begin cold again, so that their first steps are no part of the throughput either.
    later = train[train["segment"] >= attempts[1]["first_segment"]]
    assert later["warmup"].iloc[0] == 1
    assert len(read_table(tmp_path / "summary.csv", SUMMARY)) == 1


@pytest.mark.parametrize(
    "crops",
    [("--preprocessing", "dali"), ("--preprocessing", "whole", "--image-size", "32x64", "--strides", "height")],
)
def test_a_run_of_every_variant_resumes_to_the_same_accuracy(
    data: Path, tmp_path: Path, crops: tuple[str, ...]
) -> None:
    """Steps of two batches, channels last, a static graph, rank 0's statistics, DALI's preprocessing or PULC's.

    AutoAugment, whose graph takes seconds to build, is resumed in test_source.py.
    """
    variant = (
        "--gpus", "2", "--accumulation-steps", "2", "--layout", "nhwc", "--to-static", "--bn-stats", "rank0", *crops,
    )  # fmt: skip
    whole = bench(tmp_path, data, "whole", *variant)
    assert whole.code == 0, whole.err
    process = start(tmp_path, data, "parts", *variant)
    files = RunFiles(tmp_path, "parts")
    wait_for_steps(files, 5, process, "train")
    process.send_signal(signal.SIGTERM)
    assert process.end(60).code == 75
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    assert 0 < saved[1]["optimizer_steps"] < 12
    resumed = bench(tmp_path, data, "parts", "--resume", *crops)
    assert resumed.code == 0, resumed.err
    assert result_of(files).differs(result_of(whole.files)) == []
    # ceil(80 images / (2 ranks x 2 batches x 8)) = 3 steps in each of 4 epochs
    train = resumed.train_steps()
    assert (len(train), set(train["images"])) == (12, {32})


def test_other_devices_resume_at_an_epochs_start(data: Path, tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    process = start(tmp_path, data, "it", "--gpus", "2", "--checkpoint-minutes", "60")
    wait_for_checkpoint(files, process)
    kill(process)
    saved = newest_checkpoint(files.checkpoints)
    assert saved is not None
    epoch = saved[1]["progress"]["epoch"]
    made = bench(tmp_path, data, "it", "--gpus", "1", "--resume")
    assert made.code == 0, made.err
    assert f"1 device instead of 2 from epoch {epoch} on: 8 images per step" in " ".join(made.out.split())
    train = made.train_steps()
    assert train["images"].tolist() == [16] * 5 * (epoch - 1) + [8] * 10 * (5 - epoch)
    # The published rule, 0.1 per 256 images, at the same place of the schedule.
    peak = 0.1 * 8 / 256
    warmup_steps, done = 4 * 10, (epoch - 1) * 10
    assert train["learning_rate"].iloc[5 * (epoch - 1)] == pytest.approx(peak * done / warmup_steps, abs=1e-9)
    assert made.table(EPOCHS.name)["epoch"].tolist() == [1, 2, 3, 4]


def test_more_epochs_are_trained_and_other_settings_are_refused_by_name(data: Path, tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    process = start(tmp_path, data, "it", "--gpus", "1")
    wait_for_checkpoint(files, process)
    kill(process)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    refused = bench(tmp_path, data, "it", "--gpus", "1", "--resume", "--seed", "9", "--momentum", "0.5")
    assert refused.code == 2
    assert "--seed: 0 before, 9" in refused.err
    assert "--momentum: 0.9 before, 0.5" in refused.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    image = next((data / "val").rglob("*.jpg"))
    whole = image.read_bytes()
    image.write_bytes(whole + b"other")
    longer = bench(tmp_path, data, "it", "--gpus", "1", "--resume", "--epochs", "5")
    image.write_bytes(whole)
    assert longer.code == 0, longer.err
    # What an adversary found: images that were replaced under the same names between two attempts.
    assert any(text.startswith("the image files have other sizes") for text in longer.record["warnings"])
    assert "5 epochs instead of 4" in " ".join(longer.out.split())
    assert len(longer.table(EPOCHS.name)) == 5
    finished = bench(tmp_path, data, "it", "--gpus", "1", "--resume", "--epochs", "5")
    assert (finished.code, finished.out) == (0, "nothing to resume: the run is finished\n")
