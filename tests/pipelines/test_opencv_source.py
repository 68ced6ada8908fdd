"""The loader of PaddleClas as a source: its sequence, bad files, and storage that is away."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import opencv_source as source_module
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault, Findings, find_faults
from pipelines.errors import DataError, DecoderError, StorageError
from pipelines.image_lists import ImageList
from pipelines.opencv_images import evaluation_images, training_images
from pipelines.opencv_source import OpenCvSource
from pipelines.sampling import ContinuousOrder, EvaluationOrder, Position
from pipelines.storage import Clock, Patience, Storage
from tests.support.bad_files import contents, encoded, picture
from tests.support.dali import noise, write_images
from tests.support.opencv_sources import (
    SIZE,
    closed_steps,
    evaluation_source,
    refuse,
    settings,
    steps,
    training_source,
)


class Reported:
    """What a source reported about faults."""

    def __init__(self) -> None:
        self.faults: list[tuple[int, Position]] = []

    def __call__(self, faults: Sequence[Fault], position: Position) -> None:
        self.faults += [(fault.index, position) for fault in faults]


def spoil(images: ImageList, *indices: int) -> None:
    for index in indices:
        (images.root / images.paths[index]).write_bytes(b"not an image at all")


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
