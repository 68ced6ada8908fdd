"""The worker processes of PaddleClas's loader: when they start and end, and what is left of them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import ROOT
from pipelines import opencv_source as source_module
from pipelines.batch import Batch
from pipelines.errors import LoaderError
from pipelines.image_lists import ImageList
from pipelines.opencv_images import evaluation_images
from pipelines.opencv_source import OpenCvSource
from pipelines.sampling import EvaluationOrder
from tests.support.dali import Pixels, noise, write_images
from tests.support.opencv_sources import (
    closed_steps,
    refuse,
    settings,
    steps,
    training_source,
)
from tests.support.storage import unpaused


def workers_of(source: OpenCvSource) -> list[Any]:
    return list(source._batches._workers)


def left_in_shared_memory(pids: Sequence[int]) -> list[str]:
    return [path.name for pid in pids for path in Path("/dev/shm").glob(f"paddle_{pid}_*")]


@pytest.mark.parametrize("how", ["close", "drop", "leave out"])
def test_no_worker_is_left(images: ImageList, how: str) -> None:
    before = set(multiprocessing.active_children())
    source = training_source(images, workers=3)
    batch: Batch | None = next(source)
    workers = workers_of(source)
    pids = [worker.pid for worker in workers]
    assert set(multiprocessing.active_children()) - before == set(workers)
    if how == "close":
        source.close()
        source.close()
    elif how == "drop":
        del source
        gc.collect()
    else:
        source.leave_out([0])
    assert not set(multiprocessing.active_children()) & set(workers)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert batch is not None
    del batch
    assert left_in_shared_memory(pids) == []


class Stuck:
    """Prepares whatever it is given but a picture that is wider than high: of that it reports, and makes nothing."""

    def __init__(self, report: int) -> None:
        self._prepare, self._report = evaluation_images(settings()), report

    def __call__(self, picture: Pixels, rng: np.random.Generator) -> NDArray[Any]:
        if picture.shape[1] > picture.shape[0]:
            os.write(self._report, b"stuck")
            signal.pause()
        return self._prepare(picture, rng)

    def blank(self) -> NDArray[Any]:
        return self._prepare.blank()


def test_a_worker_that_never_ends_its_image_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that reads from a disk that does not answer."""
    monkeypatch.setattr(source_module, "END_SECONDS", 0.1)
    images = write_images(tmp_path, [*noise(2, 24, 24), *noise(2, 24, 32)], "jpg")
    chosen, order, (heard, report) = settings(workers=1), EvaluationOrder(4, 0, 1, 2), os.pipe()
    source = OpenCvSource(images, order, Stuck(report), chosen, refuse, storage=unpaused(images))
    assert next(source).labels.tolist() == [0, 1]
    (worker,) = workers_of(source)
    assert os.read(heard, 5) == b"stuck"
    source.close()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    os.close(heard)
    os.close(report)


class Collecting:
    """Prepares images after it has looked for garbage."""

    def __init__(self) -> None:
        self._prepare = evaluation_images(settings())

    def __call__(self, picture: Pixels, rng: np.random.Generator) -> NDArray[Any]:
        assert gc.isenabled()
        gc.collect()
        return self._prepare(picture, rng)

    def blank(self) -> NDArray[Any]:
        return self._prepare.blank()


def test_workers_leave_the_garbage_of_their_parent_alone(images: ImageList, tmp_path: Path) -> None:
    """It may be a loader before, at whose end Paddle waits for threads that only the parent has."""

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            (tmp_path / f"freed in {os.getpid()}").touch()

    gc.collect()
    Garbage()
    chosen = settings(workers=2)
    source = OpenCvSource(images, EvaluationOrder(8, 0, 1, 2), Collecting(), chosen, refuse)
    steps(source, 4)
    source.close()
    assert gc.isenabled()
    gc.collect()
    assert [path.name for path in tmp_path.glob("freed in *")] == [f"freed in {os.getpid()}"]


def test_workers_start_with_the_first_batch(images: ImageList) -> None:
    before = set(multiprocessing.active_children())
    source = training_source(images)
    source.leave_out([1])
    source.settings()
    assert set(multiprocessing.active_children()) == before
    source.close()


# A worker that gets SIGBUS, as when /dev/shm is full, removes batches that a thread of Paddle may be about to open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_worker_that_is_killed_ends_the_source(images: ImageList, number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    source = training_source(images, workers=2)
    next(source)
    # So nothing is raised wherever the training is when the worker ends.
    assert signal.getsignal(signal.SIGCHLD) is before
    workers = workers_of(source)
    os.kill(workers[1].pid, number)
    with pytest.raises(LoaderError) as caught:
        steps(source, 100)
    assert caught.value.message == f"a loader worker process ended by {number.name}"
    assert f"paddle_{workers[1].pid}_*" in caught.value.cure
    assert "--workers" in caught.value.cure
    assert caught.value.exit_code == 3
    assert not set(multiprocessing.active_children()) & set(workers)
    for path in Path("/dev/shm").glob(f"paddle_{workers[1].pid}_*"):
        path.unlink()


def test_signals_that_ask_a_run_to_end_leave_the_workers_alone(images: ImageList) -> None:
    clean = closed_steps(training_source(images), 9)
    source = training_source(images)
    made = steps(source, 1)
    (worker,) = workers_of(source)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(worker.pid, number)
    assert made + steps(source, 8) == clean
    source.close()


ORPHANS = """
import os, signal, sys
from pathlib import Path
from pipelines.augmentation import Augmentation
from pipelines.image_lists import ImageList
from pipelines.opencv_images import training_images
from pipelines.opencv_source import OpenCvSource
from pipelines.sampling import TrainingOrder
from pipelines.settings import PipelineSettings

images = ImageList(Path(sys.argv[1]), tuple(f"{index}.jpg" for index in range(8)), (0,) * 8)
settings = PipelineSettings(2, 16, workers=3)
prepare = training_images(Augmentation(), settings)
source = OpenCvSource(images, TrainingOrder(8, 0, 1, 2, 3), prepare, settings, print)
for _ in range(3):
    next(source)
print(*(worker.pid for worker in source._batches._workers), flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_workers_end_with_their_parent(images: ImageList, how: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ORPHANS, str(images.root), how],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    assert ended.returncode == (-signal.SIGKILL if how == "killed" else 0)
    pids = [int(pid) for pid in ended.stdout.split()]
    assert len(pids) == 3
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)
    assert left_in_shared_memory(pids) == []
