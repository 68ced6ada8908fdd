"""DALI's graphs as tests build, read and run them, and small pictures to feed them."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import file_name
from pipelines.dali_graphs import Feed, evaluation_graph, training_graph
from pipelines.image_lists import ImageList
from pipelines.settings import PipelineSettings
from tests.support.serialised import Graph, read_graph

Pixels = NDArray[np.uint8]

# Of ImageNet's pixels, on the scale of 0 to 255, for R, G and B.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

WHOLE = Augmentation(crop_area_min=1.0, crop_area_max=1.0, aspect_min=1.0, aspect_max=1.0, flip_probability=0.0)
FLIPPED = dataclasses.replace(WHOLE, flip_probability=1.0)

# No default among them, so that a setting that gets lost is seen.
CUSTOM = Augmentation(crop_area_min=0.1, crop_area_max=0.9, aspect_min=0.5, aspect_max=2.0, flip_probability=0.25)
GPU = PipelineSettings(
    batch_size=2,
    image_size=64,
    decoder="mixed",
    device_id=None,
    decode_threads=3,
    seed=17,
    prefetch=4,
    hw_decoder_load=0.9,
    width_hint=640,
    height_hint=480,
    dtype="float16",
    layout="nhwc",
)
CPU = dataclasses.replace(GPU, decoder="cpu")
# DALI says so when it builds the training graph, whose feed keeps its own position (see DaliSource).
EXTERNAL_SOURCE_CHECKPOINT = "Checkpointing enabled in a pipeline with external source"


def no_feed() -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    raise AssertionError("a graph that is only looked at asks for files")


def training(settings: PipelineSettings) -> Graph:
    pipeline = training_graph(no_feed, CUSTOM, settings, seed=18)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=EXTERNAL_SOURCE_CHECKPOINT)
        return read_graph(pipeline.serialize())


def evaluation(settings: PipelineSettings) -> Graph:
    return read_graph(evaluation_graph(no_feed, settings).serialize())


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


def feed(images: ImageList, *batches: Sequence[int]) -> Feed:
    """Batches of the list's indices, over and over."""
    over_and_over = itertools.cycle(batches)

    def next_batch() -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
        indices = next(over_and_over)
        names = [file_name(f"{images.root}/{images.paths[index]}") for index in indices]
        return names, np.array([[images.labels[index]] for index in indices], np.int64)

    return next_batch


def run(pipeline: Pipeline, batches: int = 1) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Copies of the images and labels of the next batches."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=EXTERNAL_SOURCE_CHECKPOINT)
        pipeline.build()
    outputs = [pipeline.run() for _ in range(batches)]
    return [(np.array(images.as_tensor()), np.array(labels.as_tensor())) for images, labels in outputs]
