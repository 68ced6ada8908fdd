from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from pipelines.augmentation import Augmentation
from pipelines.errors import DataError
from pipelines.graphs import PipelineSettings, evaluation_graph, training_graph
from pipelines.lists import ImageList
from pipelines.sharding import EvalShard
from pipelines.source import Batch, CachedSource, DaliSource, Source


def write_noise(folder: Path, count: int) -> ImageList:
    """JPEGs of 24 x 32 pixels, each with its index for a label."""
    generator = np.random.default_rng(8)
    for index in range(count):
        Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / f"{index}.jpg")
    return ImageList(folder, tuple(f"{index}.jpg" for index in range(count)), tuple(range(count)))


def settings(batch_size: int, **others: Any) -> PipelineSettings:
    return PipelineSettings(batch_size=batch_size, image_size=16, seed=3, **others)


def training_source(images: ImageList, batch_size: int, state: bytes | None = None, **others: Any) -> DaliSource:
    graph = training_graph(images, 0, 1, Augmentation(), settings(batch_size, **others), state)
    return DaliSource(graph, [batch_size])


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
    graph = (
        training_graph(images, 0, 1, Augmentation(), settings(4, dtype=dtype))
        if mode == "training"
        else evaluation_graph(images, range(4), settings(4, dtype=dtype))
    )
    watched = Watched(graph)
    source = DaliSource(watched, [4])
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
    assert batch.real == 3


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


# Batches of 2 from 5 images: passes end inside the batches of steps 2 and 7 and after those of steps 4 and 9.
@pytest.mark.parametrize(("prefetch", "reader_prefetch"), [(1, 1), (2, 2), (3, 4)])
@pytest.mark.parametrize("done", range(8))
def test_training_goes_on_from_any_step(tmp_path: Path, done: int, prefetch: int, reader_prefetch: int) -> None:
    images = write_noise(tmp_path, 5)
    depths: dict[str, Any] = {"prefetch": prefetch, "reader_prefetch": reader_prefetch}
    uninterrupted = steps(training_source(images, 2, **depths), 13)
    assert len({pixels for pixels, _ in uninterrupted}) == 13

    first = training_source(images, 2, **depths)
    assert steps(first, done) == uninterrupted[:done]
    state = first.state()
    assert isinstance(state, bytes)
    assert steps(training_source(images, 2, state, **depths), 13 - done) == uninterrupted[done:]
    # Asking for the state changes nothing.
    assert steps(first, 13 - done) == uninterrupted[done:]


def test_training_goes_on_more_than_once(tmp_path: Path) -> None:
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
def test_each_rank_goes_on_in_its_own_shard(tmp_path: Path, rank: int) -> None:
    images = write_noise(tmp_path, 7)

    def source(state: bytes | None = None) -> DaliSource:
        return DaliSource(training_graph(images, rank, 2, Augmentation(), settings(2), state), [2])

    uninterrupted = steps(source(), 12)
    first = source()
    steps(first, 5)
    assert steps(source(first.state()), 7) == uninterrupted[5:]


@pytest.mark.parametrize(
    ("real_counts", "expected"), [([2], [2] * 7), ([2, 2, 1], [2, 2, 1, 2, 2, 1, 2]), ((2, 0), [2, 0, 2, 0, 2, 0, 2])]
)
def test_real_counts_come_over_and_over(tmp_path: Path, real_counts: list[int], expected: list[int]) -> None:
    source = DaliSource(evaluation_graph(write_noise(tmp_path, 2), range(2), settings(2)), real_counts)
    assert [next(source).real for _ in range(7)] == expected


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_each_of_11_images_once_in_every_pass(tmp_path: Path, world_size: int) -> None:
    images = write_noise(tmp_path, 11)
    shards = [EvalShard(11, rank, world_size, 4) for rank in range(world_size)]
    sources = [
        DaliSource(evaluation_graph(images, shard.indices(), settings(4)), [shard.real(i) for i in range(shard.steps)])
        for shard in shards
    ]
    assert {shard.steps for shard in shards} == {{1: 3, 2: 2, 3: 1}[world_size]}
    for _ in range(2):
        counted: list[int] = []
        for source, shard in zip(sources, shards, strict=True):
            for batch in itertools.islice(source, shard.steps):
                assert batch.labels.shape == [4]
                counted += batch.labels.tolist()[: batch.real]
        assert counted == list(range(11))


def spoil(file: Path, content: bytes) -> None:
    # Not in place: DALI maps files into memory, and a mapped file that shrinks ends the process.
    file.unlink()
    file.write_bytes(content)


def cut_in_the_pixels(jpeg: bytes) -> bytes:
    start_of_scan = jpeg.index(b"\xff\xda")
    return jpeg[: (start_of_scan + len(jpeg)) // 2]


def refusal(images: ImageList, mode: str) -> DataError:
    """What one pass over the 6 images ends with."""
    source = (
        training_source(images, 2)
        if mode == "training"
        else DaliSource(evaluation_graph(images, range(6), settings(2)), [2])
    )
    with pytest.raises(DataError) as caught:
        list(itertools.islice(source, 3))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert caught.value.cure.startswith("Repair the file, or take it out of the list.")
    return caught.value


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_truncated_jpeg_is_named(tmp_path: Path, mode: str) -> None:
    images = write_noise(tmp_path, 6)
    spoil(tmp_path / "5.jpg", cut_in_the_pixels((tmp_path / "5.jpg").read_bytes()))
    message = refusal(images, mode).message
    # Where in its batch of 2 the file is depends on the order.
    assert message.replace("#0", "#1") == "DALI could not decode a batch: Failed to decode sample #1 : 5.jpg"


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("fault", ["empty", "missing"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, mode: str, fault: str) -> None:
    images = write_noise(tmp_path, 6)
    spoil(tmp_path / "5.jpg", b"")
    if fault == "missing":
        (tmp_path / "5.jpg").unlink()
    message = refusal(images, mode).message
    assert f"{tmp_path}/5.jpg" in message
    assert "\n" not in message


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_file_that_is_no_image_is_refused_though_dali_does_not_name_it(tmp_path: Path, mode: str) -> None:
    images = write_noise(tmp_path, 6)
    spoil(tmp_path / "5.jpg", b"not an image at all")
    error = refusal(images, mode)
    assert error.message.startswith("DALI could not decode a batch: nvImageCodec failure")
    assert "\n" not in error.message
    assert "DALI doesn't name a file" in error.cure


def test_an_error_of_dali_that_is_not_the_datas_is_not_called_so(tmp_path: Path) -> None:
    """As of a GPU without memory for the decoder's buffers."""

    class Broken:
        def build(self) -> None: ...

        def run(self) -> None:
            raise RuntimeError(
                "Error in MIXED operator `nvidia.dali.fn.decoders.image`\nencountered:\nCUDA allocation failed"
            )

    with pytest.raises(RuntimeError, match="CUDA allocation failed"):
        next(DaliSource(Broken(), [1]))


def test_batches_before_a_broken_file_arrive(tmp_path: Path) -> None:
    images = write_noise(tmp_path, 6)
    spoil(tmp_path / "5.jpg", cut_in_the_pixels((tmp_path / "5.jpg").read_bytes()))
    source = DaliSource(evaluation_graph(images, range(6), settings(2)), [2])
    assert [next(source).labels.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(DataError):
        next(source)


@pytest.mark.parametrize("count", [1, 3])
def test_cached_batches_are_the_same_objects_over_and_over(count: int) -> None:
    counting = Counting()
    cached = CachedSource(counting, count)
    assert len(counting.handed_out) == count
    batches = [next(cached) for _ in range(8)]
    assert [batch.real for batch in batches] == [index % count for index in range(8)]
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
    source = training_source(write_noise(tmp_path, 4), 3, threads=2)
    reported = {"threads": 2, "prefetch": 2, "hw_decoder_load": None}
    assert source.settings() == reported
    next(source)
    assert source.settings() == {**reported, "batch_size": 3, "image_size": 16, "dtype": "float32"}


def test_sources_can_be_looped_over(tmp_path: Path) -> None:
    sources: list[Source] = [training_source(write_noise(tmp_path, 4), 2), CachedSource(Counting(), 2)]
    for source in sources:
        assert iter(source) is source
        assert len([batch for batch, _ in zip(source, range(5), strict=False)]) == 5
