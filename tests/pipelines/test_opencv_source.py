"""The loader of PaddleClas: its pixels against OpenCV called directly, its sequence, and what it does in trouble."""

# ruff: noqa: E402 - what follows needs OpenCV

from __future__ import annotations

import gc
import importlib
import itertools
import multiprocessing
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import kstest

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")

from harness import ROOT
from pipelines import opencv_source as source_module
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault, Findings, find_faults
from pipelines.batch import Batch
from pipelines.errors import DataError, DecoderError, LoaderError, StorageError
from pipelines.image_lists import ImageList
from pipelines.opencv_images import Prepare, draw_crop, evaluation_images, training_images
from pipelines.opencv_source import OpenCvSource
from pipelines.sampling import ContinuousOrder, EvaluationOrder, Position, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.source import SourceState
from pipelines.storage import Clock, Patience, Storage
from tests.support.bad_files import contents, encoded, picture
from tests.support.dali import FLIPPED, WHOLE, Pixels, noise, write_images
from tests.support.storage import unpaused

SIZE = 16
MIN_P_VALUE = 1e-3


def settings(batch_size: int = 2, **others: Any) -> PipelineSettings:
    return PipelineSettings(**{"batch_size": batch_size, "image_size": SIZE, **others})


def refuse(faults: Sequence[Fault], position: Position) -> None:
    raise AssertionError(f"{faults} at {position}, though the files are good")


class Reported:
    """What a source reported about faults."""

    def __init__(self) -> None:
        self.faults: list[tuple[int, Position]] = []

    def __call__(self, faults: Sequence[Fault], position: Position) -> None:
        self.faults += [(fault.index, position) for fault in faults]


OnFaults = Callable[[Sequence[Fault], Position], None]


def training_source(
    images: ImageList,
    batch_size: int = 2,
    start: SourceState | None = None,
    on_faults: OnFaults = refuse,
    workers: int = 1,
    storage: Storage | None = None,
    prepare: Prepare | None = None,
    augmentation: Augmentation | None = None,
    **others: Any,
) -> OpenCvSource:
    chosen = settings(batch_size, workers=workers, **others)
    return OpenCvSource(
        images,
        TrainingOrder(len(images), 0, 1, batch_size, 3),
        prepare or training_images(augmentation or Augmentation(), chosen),
        chosen,
        on_faults,
        seed=(3, 0),
        start=start,
        storage=storage or unpaused(images),
    )


def evaluation_source(
    images: ImageList, batch_size: int = 2, on_faults: OnFaults = refuse, workers: int = 1, **others: Any
) -> OpenCvSource:
    chosen = settings(batch_size, workers=workers, **others)
    order = EvaluationOrder(len(images), 0, 1, batch_size)
    return OpenCvSource(images, order, evaluation_images(chosen), chosen, on_faults, storage=unpaused(images))


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    return write_images(tmp_path, noise(8, 24, 32), "jpg")


def steps(source: OpenCvSource, count: int) -> list[tuple[bytes, list[int]]]:
    return [(batch.images.numpy().tobytes(), batch.labels.tolist()) for batch in itertools.islice(source, count)]


def closed_steps(source: OpenCvSource, count: int) -> list[tuple[bytes, list[int]]]:
    made = steps(source, count)
    source.close()
    return made


def spoil(images: ImageList, *indices: int) -> None:
    for index in indices:
        (images.root / images.paths[index]).write_bytes(b"not an image at all")


# The reference: OpenCV called directly.


def read(path: Path) -> Pixels:
    """What OpenCV decodes, R, G, B."""
    pixels: Pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1].copy()
    return pixels


def normalised(pixels: Pixels) -> NDArray[np.float32]:
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    scale = np.float32(1 / 255)
    values: NDArray[np.float32] = ((pixels.astype(np.float32) * scale - mean) / std).transpose(2, 0, 1)
    return values


def evaluated(pixels: Pixels, size: int) -> NDArray[np.float32]:
    height, width = pixels.shape[:2]
    share = round(size * 256 / 224) / min(height, width)
    pixels = cv2.resize(pixels, (round(width * share), round(height * share)), interpolation=cv2.INTER_LINEAR)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return normalised(pixels[top : top + size, left : left + size])


SHAPES = [(24, 32), (32, 24), (40, 40), (17, 200), (7, 5), (1, 1), (64, 63), (333, 500)]


def of_shapes(folder: Path) -> ImageList:
    return write_images(folder, [noise(1, *shape)[0] for shape in SHAPES], "jpg")


@pytest.mark.parametrize("size", [SIZE, 37])
def test_evaluation_has_opencv_s_pixels(tmp_path: Path, size: int) -> None:
    images = of_shapes(tmp_path)
    source = evaluation_source(images, len(images), image_size=size)
    batch = next(source)
    source.close()
    expected = [evaluated(read(tmp_path / path), size) for path in images.paths]
    np.testing.assert_array_equal(batch.images.numpy(), expected)
    assert batch.labels.tolist() == list(range(len(images)))


def test_of_a_very_long_image_the_middle_is_evaluated(tmp_path: Path) -> None:
    """Resized as a whole, the image of 1 x 30,000 pixels would have 200 million."""
    long = noise(1, 2, 1001)[0]
    chosen = settings()
    made = evaluation_images(chosen)(long, np.random.default_rng(0))
    np.testing.assert_array_equal(made, evaluated(long[:, 436:565], SIZE))
    made = evaluation_images(chosen)(np.zeros((30_000, 1, 3), np.uint8), np.random.default_rng(0))
    assert made.shape == (3, SIZE, SIZE)


@pytest.mark.parametrize(("augmentation", "step"), [(WHOLE, 1), (FLIPPED, -1)])
def test_whole_images_are_resized_and_flipped_by_opencv(tmp_path: Path, augmentation: Augmentation, step: int) -> None:
    images = write_images(tmp_path, [noise(1, side, side)[0] for side in (16, 30, 50, 1)], "jpg")
    source = training_source(images, 4, augmentation=augmentation)
    batch = next(source)
    source.close()
    expected = [
        normalised(cv2.resize(read(tmp_path / images.paths[label]), (SIZE, SIZE))[:, ::step])
        for label in batch.labels.tolist()
    ]
    np.testing.assert_array_equal(batch.images.numpy(), expected)


@pytest.mark.parametrize("seed", range(6))
def test_a_drawn_region_is_resized_by_opencv(seed: int) -> None:
    pixels = noise(1, 60, 90)[0]
    augmentation = Augmentation(flip_probability=0.0)
    made = training_images(augmentation, settings())(pixels, np.random.default_rng(seed))
    crop = draw_crop(60, 90, augmentation, np.random.default_rng(seed))
    region = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    np.testing.assert_array_equal(made, normalised(cv2.resize(region, (SIZE, SIZE))))


def test_areas_aspects_and_places_are_drawn_evenly() -> None:
    """Every such crop fits into the square; the sides are rounded by a thousandth at most."""
    augmentation = Augmentation(crop_area_min=0.05, crop_area_max=0.5, aspect_min=0.5, aspect_max=2.0)
    generator = np.random.default_rng(5)
    side = 4000
    crops = [draw_crop(side, side, augmentation, generator) for _ in range(4000)]
    drawn = {
        "area": ([(c.height * c.width / side**2 - 0.05) / 0.45 for c in crops]),
        "aspect": ([(c.width / c.height - 0.5) / 1.5 for c in crops]),
        "top": [(c.top + 0.5) / (side - c.height + 1) for c in crops],
        "left": [(c.left + 0.5) / (side - c.width + 1) for c in crops],
    }
    found = {name: float(kstest(values, "uniform").pvalue) for name, values in drawn.items()}
    assert min(found.values()) > MIN_P_VALUE, found


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (7, 1), (2, 3), (375, 500), (100, 400), (4000, 6000)])
@pytest.mark.parametrize("augmentation", [Augmentation(), WHOLE, Augmentation(1.0, 1.0, 0.1, 10.0)])
def test_crops_are_whole_pixels_of_the_image(shape: tuple[int, int], augmentation: Augmentation) -> None:
    generator = np.random.default_rng(6)
    for _ in range(300):
        crop = draw_crop(*shape, augmentation, generator)
        assert min(crop.top, crop.left) >= 0
        assert min(crop.height, crop.width) >= 1
        assert crop.top + crop.height <= shape[0]
        assert crop.left + crop.width <= shape[1]


def test_the_area_is_the_largest_that_fits_where_none_does() -> None:
    """Of a strip, the whole height: nothing of 8 % of its area and 4/3 of its height fits."""
    generator = np.random.default_rng(7)
    crops = [draw_crop(100, 4000, Augmentation(), generator) for _ in range(200)]
    assert {crop.height for crop in crops} <= {99, 100}
    assert all(74 <= crop.width <= 134 for crop in crops)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_layouts_and_types_hold_the_same_values(images: ImageList, mode: str, dtype: str) -> None:
    make = training_source if mode == "training" else evaluation_source
    made = {}
    for layout in ("nchw", "nhwc"):
        source = make(images, 3, layout=layout, dtype=dtype)
        batch = next(source)
        source.close()
        assert isinstance(batch.images, paddle.Tensor)
        assert (batch.images.dtype, batch.labels.dtype) == (getattr(paddle, dtype), paddle.int64)
        assert batch.images.place.is_cpu_place()
        assert batch.valid_images == 3
        made[layout] = batch.images.numpy()
    source = make(images, 3)
    expected = next(source).images.numpy()
    source.close()
    assert expected.shape == (3, 3, SIZE, SIZE)
    np.testing.assert_array_equal(made["nchw"], expected.astype(dtype))
    np.testing.assert_array_equal(made["nhwc"], expected.astype(dtype).transpose(0, 2, 3, 1))


def test_a_batch_lies_in_shared_memory_and_outlives_its_source(images: ImageList) -> None:
    source = training_source(images, 4)
    batch = next(source)
    kept = batch.images.numpy().copy()
    place = batch.images.data_ptr()
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [(line, [int(end, 16) for end in line.split()[0].split("-")]) for line in lines]
    (mapping,) = (line for line, (start, end) in ranges if start <= place < end)
    assert "/dev/shm/" in mapping
    steps(source, 5)
    source.close()
    np.testing.assert_array_equal(batch.images.numpy(), kept)


# The sequence.


def test_the_number_of_workers_changes_nothing(images: ImageList) -> None:
    first = closed_steps(training_source(images, 3, workers=1), 9)
    assert len({pixels for pixels, _ in first}) == 9
    assert closed_steps(training_source(images, 3, workers=3), 9) == first
    assert closed_steps(training_source(images, 3, workers=2, prefetch=5), 9) == first


@pytest.mark.parametrize("done", [0, 1, 3, 4, 6])
def test_training_resumes_from_any_step(images: ImageList, done: int) -> None:
    """An epoch has 4 steps, as in the middle of an epoch as at its end."""
    uninterrupted = closed_steps(training_source(images, workers=2), 9)
    first = training_source(images)
    assert steps(first, done) == uninterrupted[:done]
    state = first.state()
    assert state == first.state(with_dali=False)
    assert (state.position.epoch, state.position.step, state.dali) == (*divmod(done, 4), None)
    assert closed_steps(training_source(images, start=state, workers=2), 9 - done) == uninterrupted[done:]
    assert closed_steps(first, 9 - done) == uninterrupted[done:]


def test_a_continuous_order_is_followed(images: ImageList) -> None:
    """A batch is larger than the list, so that an image comes twice in one and is cropped differently."""
    order, chosen = ContinuousOrder(8, 0, 1, 12, 5), settings(12, workers=2)
    prepare = training_images(Augmentation(), chosen)
    source = OpenCvSource(images, order, prepare, chosen, refuse)
    batch = next(source)
    source.close()
    assert batch.labels.tolist() == order.draw(Position(), frozenset()).indices.tolist()
    assert len({image.tobytes() for image in batch.images.numpy()}) == 12


def test_seeds_and_ranks_have_their_own_random_numbers(images: ImageList) -> None:
    chosen = settings(workers=1)
    made = []
    for seed in ((1, 0), (1, 0), (1, 1), (2, 0)):
        order = EvaluationOrder(8, 0, 1, 2)
        source = OpenCvSource(images, order, training_images(Augmentation(), chosen), chosen, refuse, seed=seed)
        made.append(closed_steps(source, 5))
    assert made[0] == made[1]
    assert len({pixels for sequence in made[1:] for pixels, _ in sequence}) == 15


def test_evaluation_counts_each_image_once_in_every_epoch(tmp_path: Path) -> None:
    images = write_images(tmp_path, noise(7, 24, 32), "jpg")
    source = evaluation_source(images, 3, workers=2)
    batches = list(itertools.islice(source, 6))
    source.close()
    assert [batch.valid_images for batch in batches] == [3, 3, 1] * 2
    assert [batch.labels.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 6, 6]] * 2


def test_images_are_left_out_from_the_next_batch_on(images: ImageList) -> None:
    clean = closed_steps(training_source(images), 4)
    source = training_source(images, workers=2)
    assert steps(source, 1) == clean[:1]
    gone = clean[1][1][0]
    assert source.leave_out([gone])
    assert not source.leave_out([gone])
    assert source.state().bad == {gone}
    later = steps(source, 8)
    assert later[0][1] == [clean[1][1][1], clean[2][1][0]]
    assert all(gone not in labels for _, labels in later)
    # Batches that were returned are made again, from where the caller says.
    assert source.leave_out([clean[0][1][0]], since=Position())
    assert steps(source, 1)[0][1] == [clean[0][1][1], clean[1][1][1]]
    source.close()


# Bad files.

BAD = ("empty", "text", "cut-in-frame", "cut-at-half", "huge")


def test_bad_files_are_reported_and_left_out(tmp_path: Path) -> None:
    """The others of a batch keep their place in the sequence; before the first bad one they keep their pixels, too."""
    images = write_images(tmp_path, noise(16, 24, 32), "jpg")
    clean = closed_steps(training_source(images), 8)
    order = [label for _, labels in clean for label in labels]
    bad = dict(zip(order[5:15:2], BAD, strict=True))
    for index, kind in bad.items():
        (tmp_path / images.paths[index]).write_bytes(contents()[kind])
    reported = Reported()
    source = training_source(images, on_faults=reported, workers=2)
    made = steps(source, 8)
    assert made[:2] == clean[:2]
    assert [index for index, _ in reported.faults] == list(bad)
    assert reported.faults[0] == (order[5], Position(0, 2, 4))
    kept = [label for label in order if label not in bad]
    assert [label for _, labels in made for label in labels][: len(kept)] == kept
    half = SIZE * SIZE * 3 * 4
    assert made[2][0][:half] == clean[2][0][:half]
    # A source that continues here knows them.
    state = source.state()
    assert state.bad == bad.keys()
    following = closed_steps(source, 5)
    assert closed_steps(training_source(images, start=state), 5) == following


def test_evaluation_counts_the_good_images_alone(images: ImageList) -> None:
    spoil(images, 0, 3, 4, 7)
    reported = Reported()
    source = evaluation_source(images, 3, reported, workers=2)
    for _ in range(2):
        counted: list[int] = []
        for batch in itertools.islice(source, 3):
            assert batch.labels.shape == [3]
            counted += batch.labels.tolist()[: batch.valid_images]
        assert counted == [1, 2, 5, 6]
    source.close()
    assert sorted(index for index, _ in reported.faults) == [0, 3, 4, 7]


def test_what_is_raised_on_faults_ends_the_source(images: ImageList) -> None:
    spoil(images, 3)

    def too_many(faults: Sequence[Fault], position: Position) -> None:
        raise DataError(f"{len(faults)} bad at step {position.step}: {faults[0].reason}")

    source = evaluation_source(images, on_faults=too_many)
    assert next(source).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="1 bad at step 1: not an image format that DALI decodes"):
        next(source)
    source.close()


def test_without_a_good_image_a_source_ends(images: ImageList) -> None:
    spoil(images, *range(8))
    for source in (training_source(images, on_faults=Reported()), evaluation_source(images, 8, Reported())):
        with pytest.raises(DataError, match=r"none of the 8 (training|validation) images"):
            next(source)
        source.close()


def test_batches_before_the_end_of_the_images_are_returned(images: ImageList) -> None:
    """The workers have begun batches of the epoch that can't be drawn while this one's are returned."""

    class Ending(EvaluationOrder):
        def draw(self, position: Position, bad: Any) -> Any:
            if position.epoch:
                raise DataError("no image is left")
            return super().draw(position, bad)

    chosen = settings(workers=2)
    source = OpenCvSource(images, Ending(8, 0, 1, 2), evaluation_images(chosen), chosen, refuse)
    assert [next(source).labels.tolist() for _ in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(DataError, match="no image is left"):
        next(source)
    source.close()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_marker_is_used(images: ImageList, progressive: bool) -> None:
    path, content = images.root / images.paths[1], encoded(picture(), progressive=progressive)
    path.write_bytes(content)
    whole = closed_steps(evaluation_source(images), 1)
    path.write_bytes(content[:-2])
    assert closed_steps(evaluation_source(images), 1) == whole


def test_an_image_that_only_dali_decodes_is_named(images: ImageList) -> None:
    """OpenCV refuses images of more than 2**20 columns."""
    wide = np.zeros((1, 2**20 + 1, 3), np.uint8)
    (images.root / images.paths[3]).write_bytes(encoded(Image.fromarray(wide), "TIFF"))
    source = evaluation_source(images)
    assert next(source).labels.tolist() == [0, 1]
    with pytest.raises(DecoderError) as caught:
        next(source)
    source.close()
    path = images.root / images.paths[3]
    assert caught.value.message.startswith(f"'{path}' can be decoded by DALI but not by OpenCV: OpenCV(")
    assert caught.value.cure == "Use --loader dali, or leave the image out of the list."
    assert caught.value.exit_code == 3


# Storage.


def test_files_that_are_away_are_waited_for(images: ImageList) -> None:
    clean = closed_steps(evaluation_source(images), 4)
    path, away = images.root / images.paths[3], images.root / "away"
    path.rename(away)
    pauses = itertools.count()

    def sleep(seconds: float) -> None:
        if next(pauses) == 2:
            away.rename(path)

    chosen, said = settings(workers=2), list[str]()
    storage = Storage(images, Patience(say=said.append, clock=Clock(sleep=sleep)))
    order = EvaluationOrder(8, 0, 1, 2)
    source = OpenCvSource(images, order, evaluation_images(chosen), chosen, refuse, storage=storage)
    assert closed_steps(source, 4) == clean
    assert storage.patience.waits == 3
    assert len(said) == 1
    assert "No such file or directory" in said[0]


def test_files_that_do_not_come_back_end_the_source(images: ImageList) -> None:
    (images.root / images.paths[0]).unlink()
    ticks = itertools.count()
    clock = Clock(monotonic=lambda: float(next(ticks)), sleep=lambda _: None)
    source = training_source(images, 8, storage=Storage(images, Patience(limit_seconds=20.0, clock=clock)))
    with pytest.raises(StorageError, match="No such file or directory"):
        next(source)
    source.close()


def test_a_file_that_is_back_when_it_is_examined_is_waited_for_once(
    images: ImageList, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = closed_steps(evaluation_source(images, 8), 1)
    path, away = images.root / images.paths[3], images.root / "away"
    path.rename(away)

    def back(storage: Storage, indices: Sequence[int]) -> Findings:
        shutil.copy(away, path)
        return find_faults(storage, indices)

    monkeypatch.setattr(source_module, "find_faults", back)
    source = evaluation_source(images, 8)
    assert closed_steps(source, 1) == clean
    assert source._storage.patience.waits == 1


# Processes.


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


# What is reported.


def test_settings_are_read_back(images: ImageList) -> None:
    source = training_source(images, 3, workers=2, prefetch=4, layout="nhwc", dtype="float16")
    reported = {
        "loader": "opencv",
        "workers": 2,
        "prefetch": 4,
        "decode_threads": None,
        "decoder": "cpu",
        "decode_region": False,
        "resize": "opencv",
        "preprocessing": "paddleclas",
        "antialias": False,
        "auto_augment": False,
    }
    assert source.settings() == reported
    next(source)
    first = {"batch_size": 3, "image_size": SIZE, "dtype": "float16", "layout": "nhwc"}
    assert source.settings() == {**reported, **first}
    source.close()
    last = evaluation_source(images, 4)
    next(last)
    last.close()
    first = {"batch_size": 4, "image_size": SIZE, "dtype": "float32", "layout": "nchw"}
    assert last.settings() == {**reported, "workers": 1, "prefetch": 2, "preprocessing": None, **first}


def test_what_prepares_images_can_be_pickled() -> None:
    for prepare in (training_images(WHOLE, settings()), evaluation_images(settings())):
        assert pickle.loads(pickle.dumps(prepare)) == prepare


@pytest.mark.parametrize(
    ("missing", "message"),
    [(True, "opencv-python-headless is not installed"), (False, "OpenCV can't be loaded: libGL.so.1 is missing")],
)
def test_without_opencv_the_import_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool, message: str
) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1 is missing')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "cv2")
    for name in ("opencv_images", "opencv_source"):
        monkeypatch.delitem(sys.modules, f"pipelines.{name}")
    with pytest.raises(LoaderError) as caught:
        importlib.import_module("pipelines.opencv_source")
    assert caught.value.message == message
    assert caught.value.cure == "Install it (pip install opencv-python-headless), or use --loader dali."
    assert caught.value.exit_code == 3
