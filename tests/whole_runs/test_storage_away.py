"""Runs whose images' storage goes away: they wait, end when they are asked to, or give up, and can be resumed.

benchmarks/storage.py takes it away in four ways, for 1 to 30 s (`make soak`).
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, STEPS
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_noise
from tests.support.results import result_of
from tests.support.runs import Run, Started, fork, launch, run, wait_for_steps

pytestmark = pytest.mark.whole_run

SMALL = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--compute-threads", "1")
OPTIONS = (*SMALL, "--epochs", "3", "--telemetry-interval", "0.1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 training and 48 validation images: on two ranks 5 steps in each epoch."""
    return write_noise(tmp_path_factory.mktemp("storage") / "data", 80, 48)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = run(tmp_path_factory.mktemp("undisturbed"), *OPTIONS, "--data", str(data), "--gpus", "2")
    assert made.code == 0, made.err
    return made


def learnt(files: RunFiles) -> list[object]:
    """What a run has learnt, without DALI's own state, which counts the batches that failed."""
    found = result_of(files)
    return [
        found.steps.to_csv(),
        found.epochs.to_csv(),
        {name: values for name, values in found.arrays.items() if not name.endswith("/dali")},
    ]


def one_rank_s_image(data: Path) -> Path:
    """An image that one rank alone reads in each epoch, so that the other has its batch and waits for this one."""
    return data / "train" / "1" / "5.jpg"


def start(data: Path, folder: Path, *more: str) -> tuple[Started, RunFiles]:
    """A run of two ranks that has made a step of the epoch."""
    started = launch(*OPTIONS, "--data", str(data), "--results", str(folder), "--run-name", "it", "--gpus", "2", *more)
    files = RunFiles(folder, "it")
    wait_for_steps(files, 1, started)
    return started, files


@pytest.mark.slow
def test_ranks_wait_for_one_that_waits_for_its_storage_longer_than_gloo_would(
    data: Path, undisturbed: Run, tmp_path: Path
) -> None:
    """Case B1: gloo gives up after 30 s (Paddle has no option for it). One file is away, which one rank alone reads."""
    started, files = start(data, tmp_path)
    image = one_rank_s_image(data)
    content = image.read_bytes()
    image.unlink()
    time.sleep(33)
    image.write_bytes(content)
    ended = started.end()
    assert ended.code == 0, ended.err
    assert learnt(files) == learnt(undisturbed.files)
    assert read_table(files.table(BAD_IMAGES.name), BAD_IMAGES).empty
    steps = read_table(files.table(STEPS.name), STEPS)
    (waited,) = steps[steps["storage_wait_seconds"] > 20].to_dict("records")
    assert waited["interference"].split("|")[-1] == "storage_away"
    record = json.loads(files.record.read_text(encoding="utf-8"))
    assert [line for line in record["warnings"] if "could not be read" in line and "waited" in line]


def test_a_run_that_is_asked_to_end_while_it_waits_ends_at_once_and_resumes(
    data: Path, undisturbed: Run, tmp_path: Path
) -> None:
    """Case B1: no step can end, so that the last checkpoint is resumed, or here, the run starts again."""
    started, files = start(data, tmp_path)
    aside = data.with_name("aside")
    data.rename(aside)
    time.sleep(3)
    started.send_signal(signal.SIGTERM)
    ended = started.end(40)
    aside.rename(data)
    assert ended.code == 75, ended.err
    assert ended.err.startswith("error: interrupted while the data could not be read\n")
    assert "--resume" in ended.err
    resumed = fork(*OPTIONS, "--data", str(data), "--results", str(tmp_path), "--gpus", "2", "--resume").end()
    assert resumed.code == 0, resumed.err
    assert learnt(files) == learnt(undisturbed.files)


def test_a_run_that_gives_up_on_its_storage_can_be_resumed(data: Path, undisturbed: Run, tmp_path: Path) -> None:
    """Case B1: exit 3 after 0.6 of --stall-timeout; the rank that had its batch is not what ended the run."""
    started, files = start(data, tmp_path, "--stall-timeout", "10")
    image = one_rank_s_image(data)
    content = image.read_bytes()
    image.unlink()
    ended = started.end(60)
    image.write_bytes(content)
    assert ended.code == 3, ended.err
    assert ended.err.startswith("error: the data can't be read since")
    assert image.name in ended.err
    assert "No such file" in ended.err
    resumed = fork(
        *OPTIONS, "--data", str(data), "--results", str(tmp_path), "--run-name", "it", "--gpus", "2", "--resume"
    )
    ended = resumed.end()
    assert ended.code == 0, ended.err
    assert learnt(files) == learnt(undisturbed.files)
