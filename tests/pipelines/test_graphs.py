from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import types
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from pipelines.augmentation import Augmentation
from pipelines.graphs import PipelineSettings, evaluation_graph, read_back, training_graph
from pipelines.lists import ImageList
from tests.pipelines.serialised import Graph, Operator, read_graph

# Of ImageNet's pixels, on the scale of 0 to 255, for R, G and B.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

WHOLE = Augmentation(crop_area_min=1.0, crop_area_max=1.0, aspect_min=1.0, aspect_max=1.0, flip_probability=0.0)
FLIPPED = dataclasses.replace(WHOLE, flip_probability=1.0)

FOUR = ImageList(Path("/data"), ("train/a.jpg", "train/b.jpg", "c.jpg", "d e.jpg"), (30, 10, 40, 11))
# No default among them, so that a setting that gets lost is seen.
CUSTOM = Augmentation(crop_area_min=0.1, crop_area_max=0.9, aspect_min=0.5, aspect_max=2.0, flip_probability=0.25)
GPU = PipelineSettings(
    batch_size=2,
    image_size=64,
    device="gpu",
    device_id=None,
    threads=3,
    seed=17,
    prefetch=4,
    reader_prefetch=3,
    hw_decoder_load=0.9,
    width_hint=640,
    height_hint=480,
    dtype="float16",
    layout="nhwc",
)
CPU = dataclasses.replace(GPU, device="cpu")
GPU_DECODER = {"hw_decoder_load": 0.9, "preallocate_width_hint": 640, "preallocate_height_hint": 480}


def expected_training_operators(decoder: str, device: str, decoder_options: dict[str, Any]) -> tuple[Operator, ...]:
    return (
        Operator(
            "readers__File",
            "cpu",
            arguments={
                "file_root": "/data",
                "files": ["train/a.jpg", "train/b.jpg", "c.jpg", "d e.jpg"],
                "labels": [30, 10, 40, 11],
                "shard_id": 1,
                "num_shards": 2,
                "shuffle_after_epoch": True,
                "shuffle_after_epoch_seed": 17,
                "prefetch_queue_depth": 3,
            },
        ),
        Operator(
            "decoders__ImageRandomCrop",
            decoder,
            inputs=("readers__File[0]",),
            arguments={
                "output_type": int(types.RGB),
                "random_area": [0.1, 0.9],
                "random_aspect_ratio": [0.5, 2.0],
                **decoder_options,
            },
        ),
        Operator(
            "Resize",
            device,
            inputs=("decoders__ImageRandomCrop[0]",),
            arguments={"size": [64.0, 64.0], "interp_type": int(types.INTERP_LINEAR), "antialias": False},
        ),
        # A per-image argument stays on the CPU, whatever device its reader runs on.
        Operator("random__CoinFlip", "cpu", arguments={"probability": 0.25}),
        Operator(
            "CropMirrorNormalize",
            device,
            inputs=("Resize[0]",),
            tensor_arguments={"mirror": "random__CoinFlip[0]"},
            arguments={
                "crop": [64.0, 64.0],
                "mean": list(MEAN),
                "std": list(STD),
                "dtype": int(types.FLOAT16),
                "output_layout": "HWC",
            },
        ),
        Operator("Cast", "cpu", inputs=("readers__File[1]",), arguments={"dtype": int(types.INT64)}),
        Operator("Squeeze", "cpu", inputs=("Cast[0]",), arguments={"axes": [0]}),
    )


def expected_evaluation_operators(decoder: str, device: str, decoder_options: dict[str, Any]) -> tuple[Operator, ...]:
    return (
        Operator(
            "readers__File",
            "cpu",
            arguments={
                "file_root": "/data",
                "files": ["d e.jpg", "train/b.jpg", "d e.jpg", "c.jpg"],
                "labels": [11, 10, 11, 40],
                "prefetch_queue_depth": 3,
            },
        ),
        Operator(
            "decoders__Image",
            decoder,
            inputs=("readers__File[0]",),
            arguments={"output_type": int(types.RGB), **decoder_options},
        ),
        Operator(
            "Resize",
            device,
            inputs=("decoders__Image[0]",),
            # 64 * 256 / 224 = 73.1
            arguments={"resize_shorter": 73.0, "interp_type": int(types.INTERP_LINEAR), "antialias": False},
        ),
        Operator(
            "CropMirrorNormalize",
            device,
            inputs=("Resize[0]",),
            arguments={
                "crop": [64.0, 64.0],
                "mirror": 0,
                "mean": list(MEAN),
                "std": list(STD),
                "dtype": int(types.FLOAT16),
                "output_layout": "HWC",
            },
        ),
        Operator("Cast", "cpu", inputs=("readers__File[1]",), arguments={"dtype": int(types.INT64)}),
        Operator("Squeeze", "cpu", inputs=("Cast[0]",), arguments={"axes": [0]}),
    )


def expected_graph(operators: tuple[Operator, ...], device: str, seed: int, checkpointing: bool = False) -> Graph:
    return Graph(
        threads=3,
        batch_size=2,
        seed=seed,
        checkpointing=checkpointing,
        cpu_prefetch=4,
        gpu_prefetch=4,
        operators=operators,
        outputs=(("CropMirrorNormalize[0]", device), ("Squeeze[0]", device)),
    )


def training(settings: PipelineSettings) -> Graph:
    """Of rank 1 of 2."""
    return read_graph(training_graph(FOUR, 1, 2, CUSTOM, settings).serialize())


def evaluation(settings: PipelineSettings) -> Graph:
    return read_graph(evaluation_graph(FOUR, (3, 1, 3, 2), settings).serialize())


def test_the_gpu_training_graph_is_this_one() -> None:
    operators = expected_training_operators("mixed", "gpu", GPU_DECODER)
    assert training(GPU) == expected_graph(operators, "gpu", seed=18, checkpointing=True)  # of rank 1


def test_the_cpu_training_graph_is_this_one() -> None:
    operators = expected_training_operators("cpu", "cpu", {})
    assert training(CPU) == expected_graph(operators, "cpu", seed=18, checkpointing=True)


def test_the_gpu_evaluation_graph_is_this_one() -> None:
    operators = expected_evaluation_operators("mixed", "gpu", GPU_DECODER)
    assert evaluation(GPU) == expected_graph(operators, "gpu", seed=17)


def test_the_cpu_evaluation_graph_is_this_one() -> None:
    operators = expected_evaluation_operators("cpu", "cpu", {})
    assert evaluation(CPU) == expected_graph(operators, "cpu", seed=17)


@pytest.mark.parametrize("graph_of", [training, evaluation])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_devices_graphs_differ_in_placement_alone(graph_of: Any, dtype: str, layout: str) -> None:
    on_gpu = graph_of(dataclasses.replace(GPU, dtype=dtype, layout=layout))
    on_cpu = graph_of(dataclasses.replace(CPU, dtype=dtype, layout=layout))
    assert {operator.device for operator in on_cpu.operators} == {"cpu"}
    assert [operator.device for operator in on_gpu.operators if operator.name.startswith("decoders__")] == ["mixed"]

    moved = tuple(
        dataclasses.replace(
            operator,
            device="cpu",
            arguments={name: value for name, value in operator.arguments.items() if name not in GPU_DECODER},
        )
        for operator in on_gpu.operators
    )
    outputs = tuple((output, "cpu") for output, _ in on_gpu.outputs)
    assert dataclasses.replace(on_gpu, operators=moved, outputs=outputs) == on_cpu


@pytest.mark.parametrize(
    ("dtype", "layout", "dali_dtype", "dali_layout"),
    [
        ("float32", "nchw", types.FLOAT, "CHW"),
        ("float32", "nhwc", types.FLOAT, "HWC"),
        ("float16", "nchw", types.FLOAT16, "CHW"),
    ],
)
def test_dtype_and_layout_reach_the_gpu_graph(dtype: str, layout: str, dali_dtype: Any, dali_layout: str) -> None:
    settings = dataclasses.replace(GPU, dtype=dtype, layout=layout)
    for graph in (training(settings), evaluation(settings)):
        (last,) = [operator for operator in graph.operators if operator.name == "CropMirrorNormalize"]
        assert (last.arguments["dtype"], last.arguments["output_layout"]) == (int(dali_dtype), dali_layout)


def test_the_gpu_is_the_one_asked_for() -> None:
    settings = dataclasses.replace(GPU, device_id=3)
    assert training_graph(FOUR, 0, 1, CUSTOM, settings).device_id == 3
    assert evaluation_graph(FOUR, range(4), settings).device_id == 3


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_ranks_share_the_shuffling_seed_and_differ_in_the_other(rank: int) -> None:
    graph = read_graph(training_graph(FOUR, rank, 6, CUSTOM, CPU).serialize())
    assert graph.seed == 17 + rank
    assert graph.operators[0].arguments["shuffle_after_epoch_seed"] == 17
    assert graph.operators[0].arguments["shard_id"] == rank
    assert graph.operators[0].arguments["num_shards"] == 6


Pixels = NDArray[np.uint8]


def write_images(folder: Path, pictures: Sequence[Pixels], suffix: str = "png") -> ImageList:
    """The pictures [height, width, 3] as files, each with its index for a label. PNG keeps every pixel as it is."""
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.{suffix}", quality=95)
    names = tuple(f"{index}.{suffix}" for index in range(len(pictures)))
    return ImageList(folder, names, tuple(range(len(pictures))))


def noise(count: int, height: int = 64, width: int = 64) -> list[Pixels]:
    generator = np.random.default_rng(4)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def plain(colour: tuple[int, int, int], height: int = 16, width: int = 16) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def coordinates(height: int, width: int, step: int) -> Pixels:
    """Red is step times the column, green step times the row."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 0] = step * np.arange(width)
    picture[..., 1] = step * np.arange(height)[:, np.newaxis]
    return picture


def normalised(pictures: Any) -> NDArray[np.float32]:
    """Pixels [..., 3] of 0 to 255 as the recipe normalises them, [..., 3]."""
    return np.asarray((np.asarray(pictures, np.float64) - MEAN) / STD, np.float32)


def denormalised(images: NDArray[Any]) -> NDArray[np.float64]:
    """Images [batch, 3, height, width] as pixels [batch, height, width, 3]."""
    return np.asarray(images.transpose(0, 2, 3, 1) * np.array(STD) + MEAN, np.float64)


def run(pipeline: Pipeline, batches: int = 1) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Copies of the images and labels of the next batches."""
    pipeline.build()
    outputs = [pipeline.run() for _ in range(batches)]
    return [(np.array(images.as_tensor()), np.array(labels.as_tensor())) for images, labels in outputs]


def labels_of(pipeline: Pipeline, batches: int) -> list[int]:
    return [int(label) for _, labels in run(pipeline, batches) for label in labels]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("layout", "shape"), [("nchw", (3, 3, 32, 32)), ("nhwc", (3, 32, 32, 3))])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_shapes_and_types_of_a_batch(
    tmp_path: Path, dtype: str, layout: str, shape: tuple[int, ...], mode: str
) -> None:
    pictures = write_images(tmp_path, noise(4, 40, 52), "jpg")
    pictures = dataclasses.replace(pictures, labels=(7, 900, 21_840, 3))

    def batch(settings: PipelineSettings) -> tuple[NDArray[Any], NDArray[Any]]:
        if mode == "training":
            return run(training_graph(pictures, 0, 1, Augmentation(), settings))[0]
        return run(evaluation_graph(pictures, (2, 0, 1), settings))[0]

    images, labels = batch(PipelineSettings(batch_size=3, image_size=32, dtype=dtype, layout=layout))
    assert images.shape == shape
    assert images.dtype == dtype
    assert labels.shape == (3,)
    assert labels.dtype == np.int64
    if mode == "evaluation":
        assert labels.tolist() == [21_840, 7, 900]

    plain_images, plain_labels = batch(PipelineSettings(batch_size=3, image_size=32))
    if layout == "nhwc":
        plain_images = plain_images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(labels, plain_labels)
    # float16 has 11 bits of mantissa.
    np.testing.assert_allclose(images, plain_images, rtol=0 if dtype == "float32" else 2**-11, atol=1e-6)


# JPEG rounds the colour in YCbCr, which is off by 2 levels at most.
@pytest.mark.parametrize(("suffix", "levels"), [("png", 0.001), ("jpg", 2.0)])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_plain_image_has_the_recipe_s_values(tmp_path: Path, suffix: str, levels: float, mode: str) -> None:
    pictures = write_images(tmp_path, [plain((255, 128, 0))], suffix)
    settings = PipelineSettings(batch_size=1, image_size=32)
    graph = (
        training_graph(pictures, 0, 1, Augmentation(), settings)
        if mode == "training"
        else evaluation_graph(pictures, (0,), settings)
    )
    ((images, _),) = run(graph)
    # (255 - 123.675) / 58.395, (128 - 116.28) / 57.12, (0 - 103.53) / 57.375
    for channel, value in enumerate((2.24891, 0.20518, -1.80444)):
        np.testing.assert_allclose(images[0, channel], value, rtol=0, atol=levels / 57 + 1e-5)


@pytest.mark.parametrize("portrait", [False, True])
def test_evaluation_takes_the_centre_of_an_image_256_224ths_its_size(tmp_path: Path, portrait: bool) -> None:
    """At 56 pixels the short side is 64, so that 128 x 256 pixels halve and the crop is what 112 x 112 of them became.

    Halving without smoothing averages two pixels, so a frame of two is one pixel of pure red.
    """
    picture = plain((0, 0, 0), 128, 256)
    picture[8:120, 72:184] = (255, 0, 0)
    picture[10:118, 74:182] = (0, 255, 255)
    picture[12, 76] = picture[12, 77] = picture[13, 76] = picture[13, 77] = (0, 0, 255)
    expected = plain((255, 0, 0), 56, 56)
    expected[1:55, 1:55] = (0, 255, 255)
    expected[2, 2] = (0, 0, 255)
    if portrait:
        picture = np.ascontiguousarray(picture.transpose(1, 0, 2))
    pictures = write_images(tmp_path, [picture])
    ((images, _),) = run(evaluation_graph(pictures, (0,), PipelineSettings(batch_size=1, image_size=56)))
    np.testing.assert_allclose(denormalised(images)[0], expected, rtol=0, atol=0.001)


def test_evaluation_reads_the_indices_in_their_order_over_and_over(tmp_path: Path) -> None:
    colours: list[tuple[int, int, int]] = [(40 * index, 10, 200) for index in range(6)]
    pictures = write_images(tmp_path, [plain(colour) for colour in colours])
    settings = PipelineSettings(batch_size=2, image_size=8, threads=2)
    batches = run(evaluation_graph(pictures, (4, 0, 0, 5, 2, 2), settings), 7)
    for step, expected in enumerate([(4, 0), (0, 5), (2, 2), (4, 0), (0, 5), (2, 2), (4, 0)]):
        images, labels = batches[step]
        assert tuple(labels) == expected
        np.testing.assert_allclose(denormalised(images)[:, 4, 4], [colours[index] for index in expected], atol=0.001)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_evaluation_refuses_indices_that_do_not_fill_the_last_batch(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} indices are no multiple of the batch size 2"):
        evaluation_graph(FOUR, [0] * count, PipelineSettings(batch_size=2, image_size=8))


def test_training_resizes_the_crop_by_bilinear_interpolation_without_smoothing(tmp_path: Path) -> None:
    """A quarter of the pixels in each direction: every result is the mean of the middle 2 x 2 of its 4 x 4."""
    (picture,) = noise(1)
    pictures = write_images(tmp_path, [picture])
    ((images, _),) = run(training_graph(pictures, 0, 1, WHOLE, PipelineSettings(batch_size=1, image_size=16)))
    middles = picture.reshape(16, 4, 16, 4, 3)[:, 1:3, :, 1:3].mean(axis=(1, 3))
    np.testing.assert_allclose(denormalised(images)[0], middles, rtol=0, atol=0.51)


def test_flipping_always_mirrors_flipping_never(tmp_path: Path) -> None:
    pictures = write_images(tmp_path, noise(4), "jpg")
    settings = PipelineSettings(batch_size=4, image_size=32)
    never = run(training_graph(pictures, 0, 1, WHOLE, settings), 3)
    always = run(training_graph(pictures, 0, 1, FLIPPED, settings), 3)
    for (images, labels), (mirrored, mirrored_labels) in zip(never, always, strict=True):
        np.testing.assert_array_equal(labels, mirrored_labels)
        np.testing.assert_array_equal(images, mirrored[:, :, :, ::-1])
        assert np.abs(images - mirrored).max() > 1


def test_each_image_is_flipped_by_a_toss_of_its_own(tmp_path: Path) -> None:
    pictures = write_images(tmp_path, [coordinates(16, 16, 10)])
    augmentation = dataclasses.replace(WHOLE, flip_probability=0.25)
    settings = PipelineSettings(batch_size=50, image_size=16)
    flipped = [
        bool(image[8, 0, 0] > image[8, 15, 0])
        for images, _ in run(training_graph(pictures, 0, 1, augmentation, settings), 8)
        for image in denormalised(images)
    ]
    # Of 400 tosses 100 are expected, with a standard deviation of 8.7.
    assert 65 <= sum(flipped) <= 135
    assert len({tuple(flipped[start : start + 50]) for start in range(0, 400, 50)}) == 8


@pytest.mark.parametrize(
    ("area", "aspect", "width", "height"),
    [(0.25, 1.0, 32, 32), (0.5, 2.0, 64, 32), (0.5, 0.5, 32, 64), (1.0, 1.0, 64, 64)],
)
def test_crops_have_the_area_and_the_width_over_height_asked_for(
    tmp_path: Path, area: float, aspect: float, width: int, height: int
) -> None:
    pictures = write_images(tmp_path, [coordinates(64, 64, 4)])
    augmentation = Augmentation(area, area, aspect, aspect, flip_probability=0.0)
    settings = PipelineSettings(batch_size=16, image_size=32)
    ((images, _),) = run(training_graph(pictures, 0, 1, augmentation, settings))
    pixels = denormalised(images)
    # Between pixels 1 and 30 of the result lie 29 / 32 of the crop, and each pixel of the source is 4 levels.
    widths = (pixels[:, 16, 30, 0] - pixels[:, 16, 1, 0]) / 4 / 29 * 32
    heights = (pixels[:, 30, 16, 1] - pixels[:, 1, 16, 1]) / 4 / 29 * 32
    np.testing.assert_allclose(widths, width, atol=0.5)
    np.testing.assert_allclose(heights, height, atol=0.5)
    corners = {(round(left), round(top)) for left, top in pixels[:, 0, 0, :2]}
    assert (len(corners) == 1) is (area == 1.0)


def test_crops_vary_between_the_limits(tmp_path: Path) -> None:
    pictures = write_images(tmp_path, [coordinates(64, 64, 4)])
    settings = PipelineSettings(batch_size=200, image_size=32)
    augmentation = Augmentation(flip_probability=0.0)
    ((images, _),) = run(training_graph(pictures, 0, 1, augmentation, settings))
    pixels = denormalised(images)
    widths = (pixels[:, 16, 30, 0] - pixels[:, 16, 1, 0]) / 4 / 29 * 32
    heights = (pixels[:, 30, 16, 1] - pixels[:, 1, 16, 1]) / 4 / 29 * 32
    areas, aspects = widths * heights / 64**2, widths / heights
    # Crops are whole pixels, which is up to 4 % of the smallest.
    assert 0.075 <= areas.min() < 0.12
    assert 0.8 < areas.max() <= 1.01
    assert 0.70 <= aspects.min() < 0.80
    assert 1.25 < aspects.max() <= 1.42


@pytest.mark.parametrize(("images", "world_size"), [(12, 2), (11, 2), (10, 3)])
def test_in_every_pass_the_ranks_share_out_all_images_anew(tmp_path: Path, images: int, world_size: int) -> None:
    pictures = write_images(tmp_path, [plain((20 * index, 0, 0), 8, 8) for index in range(images)])
    passes: list[list[list[int]]] = []  # per rank and pass, the images
    for rank in range(world_size):
        shard = images * (rank + 1) // world_size - images * rank // world_size
        # A batch of 4 spans two passes, as no shard but that of 12 images is a multiple of it.
        settings = PipelineSettings(batch_size=4, image_size=8, seed=6)
        pipeline = training_graph(pictures, rank, world_size, Augmentation(), settings)
        batches = run(pipeline, math.ceil(5 * shard / 4))
        read = [int(label) for _, labels in batches for label in labels]
        shown = [round(float(pixels[4, 4, 0]) / 20) for batch, _ in batches for pixels in denormalised(batch)]
        assert shown == read
        passes.append([read[start : start + shard] for start in range(0, 5 * shard, shard)])

    for number in range(5):
        assert sorted(itertools.chain(*(orders[number] for orders in passes))) == list(range(images))
    assert passes[0][0] != list(range(len(passes[0][0])))
    for orders in passes:
        assert len({tuple(order) for order in orders}) == 5
        assert len({frozenset(order) for order in orders}) > 1


def test_a_seed_decides_order_and_pixels(tmp_path: Path) -> None:
    pictures = write_images(tmp_path, noise(8), "jpg")

    def training_bytes(seed: int, threads: int) -> list[bytes]:
        settings = PipelineSettings(batch_size=3, image_size=16, seed=seed, threads=threads)
        batches = run(training_graph(pictures, 0, 1, Augmentation(), settings), 8)
        return [images.tobytes() + labels.tobytes() for images, labels in batches]

    def order(seed: int) -> list[int]:
        return labels_of(training_graph(pictures, 0, 1, WHOLE, PipelineSettings(8, 16, seed=seed)), 3)

    assert training_bytes(1, threads=2) == training_bytes(1, threads=2)
    assert training_bytes(1, threads=1) == training_bytes(1, threads=3)
    assert not set(training_bytes(1, threads=2)) & set(training_bytes(2, threads=2))
    orders = [order(seed) for seed in range(4)]
    assert len({tuple(labels) for labels in orders}) == 4
    for labels in orders:
        assert [sorted(labels[start : start + 8]) for start in (0, 8, 16)] == [list(range(8))] * 3


def test_ranks_crop_and_flip_differently(tmp_path: Path) -> None:
    pictures = write_images(tmp_path, [coordinates(64, 64, 4)] * 2)
    settings = PipelineSettings(batch_size=8, image_size=16)
    ((first, _),), ((second, _),) = (
        run(training_graph(pictures, rank, 2, Augmentation(), settings)) for rank in range(2)
    )
    assert all(np.abs(left - right).max() > 0.1 for left, right in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
        ({"threads": 0}, "threads is 0; it must be at least 1"),
        ({"prefetch": -1}, "prefetch is -1; it must be at least 1"),
        ({"reader_prefetch": 0}, "reader_prefetch is 0; it must be at least 1"),
        ({"device": "mixed"}, "device is 'mixed'; it must be 'cpu' or 'gpu'"),
        ({"hw_decoder_load": -0.01}, "hw_decoder_load is -0.01; it must lie within 0 and 1"),
        ({"hw_decoder_load": 1.01}, "hw_decoder_load is 1.01; it must lie within 0 and 1"),
        ({"hw_decoder_load": math.nan}, "hw_decoder_load is nan; it must lie within 0 and 1"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; it must be one of float32, float16"),
        ({"layout": "NCHW"}, "layout is 'NCHW'; it must be one of nchw, nhwc"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        PipelineSettings(**{"batch_size": 2, "image_size": 8, **values})
    assert str(caught.value) == message


@pytest.mark.parametrize("load", [0.0, 1.0])
def test_the_limits_of_the_decoder_load_are_allowed(load: float) -> None:
    decoder = PipelineSettings(1, 1, device="gpu", hw_decoder_load=load).decoder()
    assert decoder == {
        "device": "mixed",
        "hw_decoder_load": load,
        "preallocate_width_hint": 0,
        "preallocate_height_hint": 0,
    }


def test_the_cpu_decoder_gets_no_gpu_options() -> None:
    assert PipelineSettings(1, 1, hw_decoder_load=0.9, width_hint=640).decoder() == {"device": "cpu"}


def test_settings_are_read_back_from_the_graph_and_not_from_the_request() -> None:
    graph = training_graph(FOUR, 1, 3, CUSTOM, GPU)
    graph.serialize()  # what defines the operators; it can't be built here
    assert read_back(graph) == {"threads": 3, "prefetch": 4, "hw_decoder_load": pytest.approx(0.9)}
    graph = training_graph(FOUR, 1, 3, CUSTOM, dataclasses.replace(CPU, threads=5, prefetch=1))
    graph.serialize()
    assert read_back(graph) == {"threads": 5, "prefetch": 1, "hw_decoder_load": None}
