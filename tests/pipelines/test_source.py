from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import queue
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from harness import ROOT
from pipelines import reading as reading_module
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault
from pipelines.batch import Batch, Source
from pipelines.dali_graphs import Feed, evaluation_graph, training_graph
from pipelines.decoder_versions import decoder_versions
from pipelines.errors import DataError, DecoderError
from pipelines.image_lists import ImageList
from pipelines.sampling import EvaluationOrder, Position, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.source import CachedSource, DaliSource, SourceState
from tests.support.bad_files import encoded, picture
from tests.support.storage import unpaused


def write_noise(folder: Path, count: int) -> ImageList:
    """JPEGs of 24 x 32 pixels, each with its index for a label."""
    generator = np.random.default_rng(8)
    for index in range(count):
        Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / f"{index}.jpg")
    return ImageList(folder, tuple(f"{index}.jpg" for index in range(count)), tuple(range(count)))


def settings(batch_size: int, **others: Any) -> PipelineSettings:
    return PipelineSettings(**{"batch_size": batch_size, "image_size": 16, **others})


def refuse(faults: Sequence[Fault], position: Position) -> None:
    raise AssertionError(f"{faults} at {position}, though the files are good")


def training_source(
    images: ImageList,
    batch_size: int,
    start: SourceState | None = None,
    on_faults: Callable[[Sequence[Fault], Position], None] = refuse,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 3,
    **others: Any,
) -> DaliSource:
    chosen = settings(batch_size, **others)
    return DaliSource(
        images,
        TrainingOrder(len(images), rank, world_size, batch_size, seed),
        lambda feed, seed, state: training_graph(feed, Augmentation(), chosen, seed, state),
        chosen,
        on_faults,
        seed=(seed, rank),
        start=start,
        storage=unpaused(images),
    )


def evaluation_source(
    images: ImageList,
    batch_size: int,
    on_faults: Callable[[Sequence[Fault], Position], None] = refuse,
    rank: int = 0,
    world_size: int = 1,
    **others: Any,
) -> DaliSource:
    chosen = settings(batch_size, **others)
    order = EvaluationOrder(len(images), rank, world_size, batch_size)
    return DaliSource(
        images,
        order,
        lambda feed, seed, state: evaluation_graph(feed, chosen),
        chosen,
        on_faults,
        storage=unpaused(images),
    )


class Watched:
    """A real pipeline that remembers what it last handed out."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.outputs: tuple[Any, ...] = ()

    def build(self) -> None:
        self._pipeline.build()

    def run(self) -> tuple[Any, ...]:
        self.outputs = self._pipeline.run()
        return self.outputs


class Counting:
    """Batches that say how many came before."""

    def __init__(self) -> None:
        self.handed_out: list[Batch] = []

    def __iter__(self) -> Counting:
        return self

    def __next__(self) -> Batch:
        batch = Batch(object(), object(), len(self.handed_out))
        self.handed_out.append(batch)
        return batch


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_paddle_reads_dali_s_own_memory(tmp_path: Path, mode: str, dtype: str) -> None:
    images = write_noise(tmp_path, 4)
    chosen = settings(4, dtype=dtype)
    made: list[Watched] = []

    def graph(feed: Feed, seed: int, state: bytes | None) -> Any:
        pipeline = (
            training_graph(feed, Augmentation(), chosen, seed, state)
            if mode == "training"
            else evaluation_graph(feed, chosen)
        )
        made.append(Watched(pipeline))
        return made[-1]

    source = DaliSource(images, EvaluationOrder(4, 0, 1, 4), graph, chosen, refuse)
    (watched,) = made
    for _ in range(3):
        batch = next(source)
        dali_images, dali_labels = (output.as_tensor() for output in watched.outputs)
        assert batch.images.data_ptr() == dali_images.data_ptr() != 0
        assert batch.labels.data_ptr() == dali_labels.data_ptr() != 0
        np.testing.assert_array_equal(batch.images.numpy(), np.array(dali_images))
        np.testing.assert_array_equal(batch.labels.numpy(), np.array(dali_labels))


@pytest.mark.parametrize(
    ("dtype", "layout", "shape"),
    [("float32", "nchw", [3, 3, 16, 16]), ("float16", "nhwc", [3, 16, 16, 3])],
)
def test_a_batch_is_of_paddle_s_own_types(tmp_path: Path, dtype: str, layout: str, shape: list[int]) -> None:
    batch = next(training_source(write_noise(tmp_path, 4), 3, dtype=dtype, layout=layout))
    assert isinstance(batch.images, paddle.Tensor)
    assert isinstance(batch.labels, paddle.Tensor)
    assert (batch.images.shape, batch.images.dtype) == (shape, getattr(paddle, dtype))
    assert (batch.labels.shape, batch.labels.dtype) == ([3], paddle.int64)
    assert batch.images.place.is_cpu_place()
    assert batch.valid_images == 3


def test_a_batch_outlives_the_ones_after_it_and_the_pipeline(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 16)
    source = training_source(images, 4)
    kept = [next(source) for _ in range(3)]
    copies = [(batch.images.numpy().copy(), batch.labels.numpy().copy()) for batch in kept]

    def assert_unchanged() -> None:
        for batch, (pixels, labels) in zip(kept, copies, strict=True):
            np.testing.assert_array_equal(batch.images.numpy(), pixels)
            np.testing.assert_array_equal(batch.labels.numpy(), labels)

    for _ in range(5):
        next(source)
        assert_unchanged()
    del source
    gc.collect()
    others = [next(training_source(images, 4)) for _ in range(2)]
    assert_unchanged()
    assert len({batch.images.data_ptr() for batch in (*kept, *others)}) == 5


def steps(source: DaliSource, count: int) -> list[tuple[bytes, list[int]]]:
    return [(batch.images.numpy().tobytes(), batch.labels.tolist()) for batch in itertools.islice(source, count)]


# Batches of 2 from 5 images make epochs of 3 steps, whose last image is the first one again.
@pytest.mark.parametrize("prefetch", [1, 2, 4])
@pytest.mark.parametrize("done", range(8))
def test_training_resumes_from_any_step(tmp_path: Path, done: int, prefetch: int) -> None:
    images = write_noise(tmp_path, 5)
    uninterrupted = steps(training_source(images, 2, prefetch=prefetch), 13)
    assert len({pixels for pixels, _ in uninterrupted}) == 13

    first = training_source(images, 2, prefetch=prefetch)
    assert steps(first, done) == uninterrupted[:done]
    state = first.state()
    assert (state.position.epoch, state.position.step) == divmod(done, 3)
    assert steps(training_source(images, 2, state, prefetch=prefetch), 13 - done) == uninterrupted[done:]
    # Asking for the state changes nothing.
    assert steps(first, 13 - done) == uninterrupted[done:]


@pytest.mark.parametrize("done", [0, 1, 4])
@pytest.mark.parametrize(("threads", "prefetch"), [(1, 5), (3, 1), (2, 3)])
def test_training_resumes_with_other_threads_and_another_prefetch(
    tmp_path: Path, done: int, threads: int, prefetch: int
) -> None:
    images = write_noise(tmp_path, 5)
    first = training_source(images, 2, decode_threads=2, prefetch=2)
    uninterrupted = steps(training_source(images, 2, decode_threads=2, prefetch=2), 9)
    steps(first, done)
    again = training_source(images, 2, first.state(), decode_threads=threads, prefetch=prefetch)
    assert steps(again, 9 - done) == uninterrupted[done:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        *(
            {"preprocessing": one, "auto_augment": augment}
            for one in ("paddleclas", "dali")
            for augment in (False, True)
        ),
        {"preprocessing": "whole", "auto_augment": True, "image_size": "32x64"},
        {"preprocessing": "whole", "resize": "fused", "image_size": "32x64"},
        {"preprocessing": "paddleclas", "resize": "fused", "image_size": "32x64"},
    ],
)
def test_training_resumes_with_every_preprocessing(tmp_path: Path, chosen: dict[str, Any]) -> None:
    """Whatever the threads, and from the beginning, within and past an epoch; also where images are no squares."""
    images = write_noise(tmp_path, 5)
    first = training_source(images, 2, decode_threads=2, **chosen)
    uninterrupted = []
    states = []
    for _ in range(8):
        states.append(first.state())
        uninterrupted += steps(first, 1)
    assert len({pixels for pixels, _ in uninterrupted}) == 8
    for done, threads, prefetch in ((0, 1, 2), (1, 3, 1), (4, 2, 4)):
        again = training_source(images, 2, states[done], decode_threads=threads, prefetch=prefetch, **chosen)
        assert steps(again, 8 - done) == uninterrupted[done:]


def test_recipes_and_auto_augment_change_the_pixels_and_not_the_labels(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 6)
    chosen: list[dict[str, Any]] = [{}, {"preprocessing": "dali"}, {"auto_augment": True}]
    sources = [steps(training_source(images, 2, **options), 4) for options in chosen]
    assert len({pixels for source in sources for pixels, _ in source}) == 12
    assert [[labels for _, labels in source] for source in sources] == [[labels for _, labels in sources[0]]] * 3


def test_training_resumes_more_than_once(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 5)
    uninterrupted = steps(training_source(images, 2), 9)
    state = None
    resumed = []
    for _ in range(9):
        source = training_source(images, 2, state)
        resumed += steps(source, 1)
        state = source.state()
    assert resumed == uninterrupted


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_resumes_in_its_own_shard(tmp_path: Path, rank: int) -> None:
    images = write_noise(tmp_path, 7)
    uninterrupted = steps(training_source(images, 2, rank=rank, world_size=2), 12)
    first = training_source(images, 2, rank=rank, world_size=2)
    steps(first, 5)
    assert steps(training_source(images, 2, first.state(), rank=rank, world_size=2), 7) == uninterrupted[5:]


def test_a_seed_decides_the_batches(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 6)
    assert steps(training_source(images, 2, seed=1), 6) == steps(training_source(images, 2, seed=1), 6)
    first, second = (steps(training_source(images, 2, seed=seed), 6) for seed in (1, 2))
    assert not {pixels for pixels, _ in first} & {pixels for pixels, _ in second}
    assert [labels for _, labels in first] != [labels for _, labels in second]


def test_ranks_crop_the_same_image_differently(tmp_path: Path) -> None:
    """Both ranks read the one image of their shard, which is the same picture."""
    images = write_noise(tmp_path, 1)
    images = images.part((0, 0))
    first, second = (steps(training_source(images, 1, rank=rank, world_size=2), 4) for rank in range(2))
    assert len({pixels for pixels, _ in first + second}) == 8


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_each_of_11_images_once_in_every_epoch(tmp_path: Path, world_size: int) -> None:
    images = write_noise(tmp_path, 11)
    sources = [evaluation_source(images, 4, rank=rank, world_size=world_size) for rank in range(world_size)]
    for _ in range(2):
        counted: list[int] = []
        for source in sources:
            for batch in itertools.islice(source, {1: 3, 2: 2, 3: 1}[world_size]):
                assert batch.labels.shape == [4]
                counted += batch.labels.tolist()[: batch.valid_images]
        assert counted == list(range(11))


def spoil(images: ImageList, *indices: int) -> None:
    """Make no images of them."""
    for index in indices:
        (images.root / images.paths[index]).write_bytes(b"not an image at all")


class Remembered:
    """What a source told of faults."""

    def __init__(self) -> None:
        self.told: list[tuple[list[int], Position]] = []

    def __call__(self, faults: Sequence[Fault], position: Position) -> None:
        self.told.append(([fault.index for fault in faults], position))


def test_a_bad_image_is_told_once_and_no_batch_before_it_changes(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 8)
    clean = steps(training_source(images, 2), 12)
    spoil(images, clean[2][1][0], clean[2][1][1])
    faults = Remembered()
    source = training_source(images, 2, on_faults=faults)
    read = steps(source, 12)
    assert read[:2] == clean[:2]
    assert faults.told == [(sorted(clean[2][1]), Position(0, 2, 4))]
    assert source.state().bad == set(clean[2][1])
    # The others of the shard move up, and its first two come again; every later epoch is of the good six.
    assert [labels for _, labels in read[:4]] == [clean[0][1], clean[1][1], clean[3][1], clean[0][1]]
    assert all(set(labels).isdisjoint(clean[2][1]) for _, labels in read)
    assert len({pixels for pixels, _ in read}) == 12


@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize("done", range(9))
def test_training_resumes_before_and_after_a_fault(tmp_path: Path, done: int, prefetch: int) -> None:
    """The same batches, whether the run was interrupted or not; the fault is in the third and the fifth batch."""
    images = write_noise(tmp_path, 8)
    clean = steps(training_source(images, 2), 6)
    spoil(images, clean[2][1][1], clean[3][1][1])
    uninterrupted = steps(training_source(images, 2, on_faults=Remembered()), 13)
    first = training_source(images, 2, on_faults=Remembered(), prefetch=prefetch)
    assert steps(first, done) == uninterrupted[:done]
    again = training_source(images, 2, first.state(), on_faults=Remembered(), prefetch=3)
    assert steps(again, 13 - done) == uninterrupted[done:]


def test_a_resumed_source_knows_the_bad_images(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 8)
    spoil(images, 1, 5)
    first = training_source(images, 2, on_faults=Remembered())
    steps(first, 4)
    state = first.state()
    assert state.bad == {1, 5}
    # refuse would end it: nothing is looked for again.
    assert all(label not in (1, 5) for _, labels in steps(training_source(images, 2, state), 12) for label in labels)


def test_the_files_of_the_batches_to_come_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: queue.Queue[list[str]] = queue.Queue()
    monkeypatch.setattr(reading_module, "request_files", lambda paths: asked.put(list(paths)))
    images = write_noise(tmp_path, 10)
    source = training_source(images, 4)
    read = [next(source).labels.numpy().ravel().tolist() for _ in range(5)]
    requested = [asked.get(timeout=30) for _ in read]
    assert [[int(Path(path).stem) for path in batch] for batch in requested] == read
    assert {str(Path(path).parent) for batch in requested for path in batch} == {str(tmp_path)}


def test_images_are_left_out_from_the_next_batch_on(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 8)
    clean = steps(training_source(images, 2), 4)
    source = training_source(images, 2, prefetch=3)
    assert steps(source, 1) == clean[:1]
    gone = clean[1][1][0]
    source.leave_out([gone])
    assert source.state().bad == {gone}
    later = steps(source, 12)
    assert all(gone not in labels for _, labels in later)
    assert later[0][1] == [clean[1][1][1], clean[2][1][0]]
    state = source.state()
    following = steps(source, 3)
    source.leave_out([gone])  # which it does already: nothing is built again
    assert steps(training_source(images, 2, state), 3) == following


def test_evaluation_counts_the_good_images_alone(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 11)
    spoil(images, 0, 5, 6, 7, 10)
    faults = Remembered()
    source = evaluation_source(images, 2, faults)
    for _ in range(2):
        counted: list[int] = []
        for batch in itertools.islice(source, 6):
            assert batch.labels.shape == [2]
            counted += batch.labels.tolist()[: batch.valid_images]
        assert counted == [1, 2, 3, 4, 8, 9]
    assert sorted(index for found, _ in faults.told for index in found) == [0, 5, 6, 7, 10]


def test_what_is_raised_on_faults_ends_the_source(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 6)
    spoil(images, 3)

    def too_many(faults: Sequence[Fault], position: Position) -> None:
        raise DataError(f"{len(faults)} bad at step {position.step}: {faults[0].reason}")

    source = evaluation_source(images, 2, too_many)
    assert next(source).labels.tolist() == [0, 1]
    with pytest.raises(DataError) as caught:
        next(source)
    assert caught.value.message == "1 bad at step 1: not an image format that DALI decodes"


def test_without_a_good_image_a_source_ends(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 4)
    spoil(images, 0, 1, 2, 3)
    with pytest.raises(DataError, match="none of the 4 training images of a rank's shard can be used"):
        next(training_source(images, 2, on_faults=Remembered()))
    with pytest.raises(DataError, match="none of the 4 validation images can be used"):
        next(evaluation_source(images, 2, Remembered()))


READ_FAILURE = "Error in CPU operator `nvidia.dali.fn.io.file.read`\nencountered:\nStale file handle"


class Failing:
    """A pipeline that fails in place of its run number `at` (from 0), before it runs."""

    def __init__(self, pipeline: Pipeline, at: int, text: str) -> None:
        self._pipeline, self._at, self._text = pipeline, at, text
        self._runs = 0

    def build(self) -> None:
        self._pipeline.build()

    def run(self) -> tuple[Any, ...]:
        self._runs += 1
        if self._runs > self._at:
            self._pipeline.run()  # what asks for files
            raise RuntimeError(self._text)
        outputs: tuple[Any, ...] = self._pipeline.run()
        return outputs


def failing_source(
    images: ImageList, failures: int, text: str, reported: PipelineSettings | None = None
) -> tuple[DaliSource, list[Any]]:
    """An evaluation in batches of 2, and its pipelines; the first `failures` ones fail at once or, the first, later."""
    chosen = settings(2)
    made: list[Any] = []

    def graph(feed: Feed, seed: int, state: bytes | None) -> Any:
        pipeline = evaluation_graph(feed, chosen)
        number = len(made)
        made.append(Failing(pipeline, 1 if number == 0 else 0, text) if number < failures else pipeline)
        return made[-1]

    return DaliSource(images, EvaluationOrder(len(images), 0, 1, 2), graph, reported or chosen, refuse), made


def test_a_batch_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    source, made = failing_source(write_noise(tmp_path, 6), 1, READ_FAILURE)
    assert [labels for _, labels in steps(source, 5)] == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert len(made) == 2


@pytest.mark.parametrize(
    ("decoder", "region", "how", "cure"),
    [
        (
            "cpu",
            True,
            "cpu decoder failed on a batch of regions of images",
            "Decode whole images: --decode-region off.",
        ),
        ("cpu", False, "cpu decoder failed on a batch of whole images", "Check the memory, and the disk"),
        ("mixed", False, "mixed decoder failed on a batch of whole images", "Decode on the CPU: --decoder cpu."),
        ("mixed", True, "mixed decoder failed on a batch of regions", "--decoder cpu. Decode whole images: --decode"),
    ],
)
def test_a_batch_that_fails_twice_though_its_images_are_fine_is_the_decoder_s_fault(
    tmp_path: Path, decoder: str, region: bool, how: str, cure: str
) -> None:
    """Each image is decoded alone on the CPU, whatever the run's decoder."""
    told = dataclasses.replace(settings(2), decoder=decoder, decode_region=region)
    text = (
        f"Error in {decoder.upper()} operator `nvidia.dali.fn.decoders.image`\nencountered:\nnvImageCodec failure: '#8'"
    )
    source, made = failing_source(write_noise(tmp_path, 6), 2, text, told)
    assert next(source).labels.tolist() == [0, 1]
    with pytest.raises(DecoderError) as caught:
        next(source)
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith(f"the {how}")
    assert caught.value.message.endswith(
        f", though each of its images can be decoded on the CPU: nvImageCodec failure: '#8' ({decoder_versions()})"
    )
    assert cure in caught.value.cure
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert len(made) == 2


def test_the_versions_of_what_decodes() -> None:
    assert re.fullmatch(r"DALI \S+, nvImageCodec \S+, nvJPEG \S+", decoder_versions())


@pytest.mark.parametrize(
    "text",
    [
        # As of a GPU without memory for the decoder's buffers.
        "Error in MIXED operator `nvidia.dali.fn.decoders.image_slice`\nencountered:\nCUDA allocation failed",
        "Error in MIXED operator `nvidia.dali.fn.decoders.image_slice`\nencountered:\nCUDA runtime API error 999",
        "Error in GPU operator `nvidia.dali.fn.resize`\nencountered:\nsomething",
    ],
)
def test_an_error_of_dali_that_is_not_the_datas_is_not_called_so(tmp_path: Path, text: str) -> None:
    source, made = failing_source(write_noise(tmp_path, 6), 1, text)
    next(source)
    with pytest.raises(RuntimeError, match="encountered"):
        next(source)
    assert len(made) == 1


# With DALI 2.4's dynamic executor decoders that are given files without a readable header end the process at the second
# batch that fails, hence another process.
ADJACENT = """
import sys
from pathlib import Path
from pipelines.augmentation import Augmentation
from pipelines.dali_graphs import evaluation_graph, training_graph
from pipelines.settings import PipelineSettings
from pipelines.image_lists import ImageList
from pipelines.sampling import EvaluationOrder, TrainingOrder
from pipelines.source import DaliSource
from tests.support.storage import unpaused

folder, count = Path(sys.argv[1]), int(sys.argv[2])
images = ImageList(folder, tuple(f"{index}.jpg" for index in range(count)), tuple(range(count)))
settings = PipelineSettings(batch_size=4, image_size=16, decode_threads=2, prefetch=3)
for repeat in range(3):
    found = []
    evaluation = DaliSource(
        images, EvaluationOrder(count, 0, 1, 4), lambda feed, seed, state: evaluation_graph(feed, settings),
        settings, lambda faults, position: found.extend(faults), storage=unpaused(images),
    )
    valid = sum(next(evaluation).valid_images for _ in range(2 * -(-count // 4)))
    print("evaluation", valid, len(found))
    found = []
    training = DaliSource(
        images, TrainingOrder(count, 0, 1, 4, repeat),
        lambda feed, seed, state: training_graph(feed, Augmentation(), settings, seed, state),
        settings, lambda faults, position: found.extend(faults), storage=unpaused(images),
    )
    print("training", sum(next(training).valid_images for _ in range(2 * -(-count // 4))), len(found))
"""


@pytest.mark.slow
def test_batches_that_fail_one_after_another_do_not_end_the_process(tmp_path: Path) -> None:
    """Of 40 images the 24 in the middle are text, empty and GIF in turn: six batches of 4 without a good image."""
    write_noise(tmp_path, 40)
    for index in range(8, 32):
        content = (b"hello world\n" * 40, b"", encoded(picture(), "GIF"))[index % 3]
        (tmp_path / f"{index}.jpg").write_bytes(content)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ADJACENT, str(tmp_path), "40"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["evaluation 32 24", "training 80 24"] * 3


@pytest.mark.parametrize("name", [b"not utf8 \xff\xfe.jpg", "two\nlines é中.jpg".encode()])
def test_a_file_is_read_by_the_bytes_of_its_name(tmp_path: Path, name: bytes) -> None:
    write_noise(tmp_path, 1)
    (tmp_path / "0.jpg").rename(tmp_path / os.fsdecode(name))
    images = ImageList(tmp_path, (os.fsdecode(name),), (7,))
    assert steps(training_source(images, 1), 1)[0][1] == [7]
    assert steps(evaluation_source(images, 1), 1)[0][1] == [7]


@pytest.mark.parametrize("count", [1, 3])
def test_cached_batches_are_the_same_objects_over_and_over(count: int) -> None:
    counting = Counting()
    cached = CachedSource(counting, count)
    assert len(counting.handed_out) == count
    batches = [next(cached) for _ in range(8)]
    assert [batch.valid_images for batch in batches] == [index % count for index in range(8)]
    assert all(batch is counting.handed_out[index % count] for index, batch in enumerate(batches))
    assert len(counting.handed_out) == count


def test_cached_images_stay_as_dali_made_them(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 5)
    direct = steps(training_source(images, 2), 3)
    cached = CachedSource(training_source(images, 2), 3)
    gc.collect()
    read = [(batch.images.numpy().tobytes(), batch.labels.tolist()) for batch in itertools.islice(cached, 9)]
    assert read == direct * 3


def test_what_the_first_batch_was_like_is_read_back(tmp_path: Path) -> None:
    source = training_source(write_noise(tmp_path, 4), 3, decode_threads=2)
    preprocessing = {"preprocessing": "paddleclas", "antialias": False, "resize": "dali", "auto_augment": False}
    decoding = {
        "decoder": "cpu",
        "decode_region": True,
        "hw_decoder_load": None,
        "width_hint": None,
        "height_hint": None,
    }
    reported = {"loader": "dali", "workers": None, "decode_threads": 2, "prefetch": 2, **decoding, **preprocessing}
    assert source.settings() == reported
    next(source)
    first = {"batch_size": 3, "image_size": 16, "dtype": "float32", "layout": "nchw"}
    assert source.settings() == {**reported, **first}
    last = training_source(write_noise(tmp_path, 4), 3, layout="nhwc", dtype="float16")
    next(last)
    assert last.settings() == {**reported, "decode_threads": 1, **first, "dtype": "float16", "layout": "nhwc"}


def test_sources_can_be_looped_over(tmp_path: Path) -> None:
    sources: list[Source] = [training_source(write_noise(tmp_path, 4), 2), CachedSource(Counting(), 2)]
    for source in sources:
        assert iter(source) is source
        assert len([batch for batch, _ in zip(source, range(5), strict=False)]) == 5
