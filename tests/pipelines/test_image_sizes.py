"""Images that are no squares, and whole ones: all ways to prepare them against OpenCV called directly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import types

from models.image_size import ImageSize
from pipelines import dali_graphs as graphs
from pipelines.augmentation import Augmentation
from pipelines.dali_graphs import evaluation_graph, training_graph
from pipelines.fused import operator
from pipelines.graph_settings import read_settings
from pipelines.image_lists import ImageList
from pipelines.opencv_images import Crop, draw_crop, evaluation_images, training_images
from pipelines.settings import DALI_RESIZE, FUSED_RESIZE, OPENCV_LOADER, WHOLE_IMAGES, PipelineSettings
from tests.support.dali import (
    CUSTOM,
    EXTERNAL_SOURCE_CHECKPOINT,
    Pixels,
    denormalised,
    feed,
    no_feed,
    run,
    write_images,
)

SIZES = ["80x160", "160x80", "33x200", "96"]
WAYS = [FUSED_RESIZE, DALI_RESIZE, OPENCV_LOADER]
# DALI's interpolation is in floating point, OpenCV's in multiples of 1/2048, and the fused operator's follows that.
MOST_LEVELS = 1.001
SHAPES = [(120, 200), (200, 120), (90, 90), (61, 350), (350, 61), (5, 7), (1, 1), (37, 900), (900, 37)]


def pictures() -> list[Pixels]:
    """Smooth ones, in which neither interpolation has steps."""
    drawn = np.random.default_rng(1)
    noise = [drawn.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]
    return [cv2.blur(one, (5, 5)).reshape(one.shape) for one in noise]


def settings(size: str, way: str, **more: Any) -> PipelineSettings:
    written = ImageSize.of(size).plain
    chosen = PipelineSettings(1, image_size=written, decode_threads=2, resize=way, **more)
    return chosen.with_opencv() if way == OPENCV_LOADER else chosen


def resized(picture: Pixels, height: int, width: int) -> Pixels:
    made = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(made, np.uint8).reshape(height, width, 3)


def trained(
    images: ImageList, picture: Pixels, number: int, chosen: PipelineSettings, augmentation: Augmentation
) -> Any:
    """A training image in grey levels [height, width, 3], as the chosen way makes it of a picture or of its file."""
    if chosen.loader == OPENCV_LOADER:
        made = training_images(augmentation, chosen)(picture, np.random.default_rng(number))[np.newaxis]
    else:
        ((made, _),) = run(training_graph(feed(images, [number]), augmentation, chosen, seed=number))
    return denormalised(made)[0]


def evaluated(images: ImageList, picture: Pixels, number: int, chosen: PipelineSettings) -> Any:
    if chosen.loader == OPENCV_LOADER:
        made = evaluation_images(chosen)(picture, np.random.default_rng(0))[np.newaxis]
    else:
        ((made, _),) = run(evaluation_graph(feed(images, [number]), chosen))
    return denormalised(made)[0]


def keep_crop(monkeypatch: pytest.MonkeyPatch, crop: Crop) -> None:
    """Let DALI's graphs draw this crop, which is not mirrored."""

    def constant(values: list[int], dtype: Any = np.int32) -> Any:
        return types.Constant(np.array(values, dtype), device="cpu")

    place, sides = [crop.top, crop.left], [crop.height, crop.width]
    monkeypatch.setattr(graphs, "draw_crop", lambda *_: (constant(place, np.float32), constant(sides, np.float32)))
    none = types.Constant(0, dtype=types.INT32)
    monkeypatch.setattr(operator, "drawn_crops", lambda *_: (constant(place), constant(sides), none, none))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_random_crops_are_resized_to_height_and_width_as_by_opencv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str, way: str
) -> None:
    """The crop is drawn in the image's own pixels, with the limits of its aspect there, whatever it becomes."""
    images, wanted = write_images(tmp_path, pictures()), ImageSize.of(size)
    augmentation = Augmentation(flip_probability=0.0)
    for number, picture in enumerate(pictures()):
        crop = draw_crop(picture.shape[0], picture.shape[1], augmentation, np.random.default_rng(number))
        keep_crop(monkeypatch, crop)
        region = picture[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        made = trained(images, picture, number, settings(size, way), augmentation)
        assert made.shape == (wanted.height, wanted.width, 3)
        difference = np.abs(made - resized(region, wanted.height, wanted.width))
        assert difference.max() < MOST_LEVELS, picture.shape
        assert difference.mean() < 0.15


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_evaluation_covers_256_224ths_of_both_sides_and_crops_the_centre(tmp_path: Path, size: str, way: str) -> None:
    images, wanted = write_images(tmp_path, pictures()), ImageSize.of(size)
    cover = round(wanted.height * 256 / 224), round(wanted.width * 256 / 224)
    for number, picture in enumerate(pictures()):
        share = max(cover[0] / picture.shape[0], cover[1] / picture.shape[1])
        whole = resized(picture, round(picture.shape[0] * share), round(picture.shape[1] * share))
        assert whole.shape[0] >= cover[0]
        assert whole.shape[1] >= cover[1]
        assert cover[0] == whole.shape[0] or cover[1] == whole.shape[1]
        top, left = (whole.shape[0] - wanted.height) // 2, (whole.shape[1] - wanted.width) // 2
        expected = whole[top : top + wanted.height, left : left + wanted.width]
        difference = np.abs(evaluated(images, picture, number, settings(size, way)) - expected)
        assert difference.max() < MOST_LEVELS, picture.shape
        assert difference.mean() < 0.15


def test_the_published_evaluation_follows_from_the_same_rule() -> None:
    """Height and width of ImageNet's most common shape: 256 x 341, of which the middle 224 x 224 are taken."""
    drawn = np.random.default_rng(2).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    made = evaluation_images(settings("224", OPENCV_LOADER))(drawn, np.random.default_rng(0))
    expected = resized(drawn, 256, 341)[16:240, 58:282]
    np.testing.assert_allclose(denormalised(made[np.newaxis])[0], expected, atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_whole_images_become_the_whole_result(tmp_path: Path, size: str, flip: float, way: str) -> None:
    """In training, where they may be flipped, and in evaluation, where they never are."""
    images, wanted = write_images(tmp_path, pictures()), ImageSize.of(size)
    chosen = settings(size, way, preprocessing=WHOLE_IMAGES, decode_region=way == DALI_RESIZE)
    for number, picture in enumerate(pictures()):
        expected = resized(picture, wanted.height, wanted.width)
        made = trained(images, picture, number, chosen, replace(CUSTOM, flip_probability=flip))
        assert np.abs(made - expected[:, :: -1 if flip else 1]).max() < MOST_LEVELS, picture.shape
        assert np.abs(evaluated(images, picture, number, chosen) - expected).max() < MOST_LEVELS, picture.shape


@pytest.mark.parametrize("way", [DALI_RESIZE, OPENCV_LOADER])
@pytest.mark.parametrize(("shape", "size", "kept"), [
    # Of a crop twice as wide as high, 128 times the image's height is kept of its width, or 32 times its width.
    ((3, 1000), "32x64", (3, 3 * 64 * 2)),
    ((1000, 3), "32x64", (3 * 64 // 2, 3)),
    ((1000, 3), "64x32", (3 * 64 * 2, 3)),
    ((3, 1000), "64", (3, 3 * 64)),
])  # fmt: skip
def test_of_an_image_that_is_much_longer_than_the_crop_the_middle_is_resized(
    tmp_path: Path, shape: tuple[int, int], size: str, kept: tuple[int, int], way: str
) -> None:
    """What is beyond it decides nothing, and no pixel of the crop is beyond it."""
    picture = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    top, left = (shape[0] - kept[0]) // 2, (shape[1] - kept[1]) // 2
    middle = np.ascontiguousarray(picture[top : top + kept[0], left : left + kept[1]])
    # 20 levels a pixel around the middle.
    line = np.clip(127 + 20 * (np.arange(max(shape)) - max(shape) // 2), 0, 255).astype(np.uint8)
    ramp = np.broadcast_to(line[:, np.newaxis], (max(shape), min(shape)))
    ramp = np.repeat((ramp if shape[0] > shape[1] else ramp.T)[..., np.newaxis], 3, axis=2)
    images, chosen = write_images(tmp_path, [picture, middle, ramp]), settings(size, way)
    difference = np.abs(evaluated(images, picture, 0, chosen) - evaluated(images, middle, 1, chosen))
    assert difference.max() < MOST_LEVELS
    assert difference.mean() < 0.01
    # The fused operator samples the whole image where the crop is; the middle's place is half a pixel off at most.
    by_fused = evaluated(images, ramp, 2, settings(size, FUSED_RESIZE))
    assert np.ptp(by_fused) > 25
    assert np.abs(evaluated(images, ramp, 2, chosen) - by_fused).max() < 11


@pytest.mark.filterwarnings(f"ignore:{EXTERNAL_SOURCE_CHECKPOINT}")
@pytest.mark.parametrize("auto_augment", [False, True])
@pytest.mark.parametrize("region", [False, True])
@pytest.mark.parametrize("preprocessing", ["paddleclas", "dali", "whole"])
def test_what_is_made_of_an_image_is_read_back_from_the_graph(
    preprocessing: str, region: bool, auto_augment: bool
) -> None:
    chosen = settings("80x160", DALI_RESIZE, preprocessing=preprocessing, auto_augment=auto_augment)
    training = training_graph(no_feed, CUSTOM, replace(chosen, decode_region=region), seed=1)
    evaluation = evaluation_graph(no_feed, replace(chosen, decode_region=region))
    found = []
    for graph in (training, evaluation):
        graph.build()
        found.append(read_settings(graph))
    assert [one["preprocessing"] for one in found] == [preprocessing, None]
    assert [one["antialias"] for one in found] == [preprocessing == "dali"] * 2
    assert [one["auto_augment"] for one in found] == [auto_augment, False]
    assert [one["decode_region"] for one in found] == [region] * 2


@pytest.mark.filterwarnings(f"ignore:{EXTERNAL_SOURCE_CHECKPOINT}")
def test_whole_images_by_the_fused_operator_are_read_back() -> None:
    graph = training_graph(no_feed, CUSTOM, settings("80x160", FUSED_RESIZE, preprocessing=WHOLE_IMAGES), seed=1)
    graph.build()
    found = read_settings(graph)
    assert (found["preprocessing"], found["resize"], found["antialias"]) == (WHOLE_IMAGES, FUSED_RESIZE, False)


@pytest.mark.parametrize("way", [FUSED_RESIZE, DALI_RESIZE])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_layouts_and_number_formats_of_images_that_are_no_squares(
    tmp_path: Path, way: str, layout: str, dtype: str
) -> None:
    images = write_images(tmp_path, pictures())
    plain, chosen = settings("80x160", way), settings("80x160", way, dtype=dtype, layout=layout)
    for number in range(3):
        ((expected, _),) = run(training_graph(feed(images, [number]), CUSTOM, plain, seed=5))
        ((made, _),) = run(training_graph(feed(images, [number]), CUSTOM, chosen, seed=5))
        assert made.shape == ((1, 3, 80, 160) if layout == "nchw" else (1, 80, 160, 3))
        ordered: NDArray[Any] = made if layout == "nchw" else made.transpose(0, 3, 1, 2)
        np.testing.assert_allclose(ordered, expected, rtol=0 if dtype == "float32" else 2**-11, atol=1e-6)
