"""Single images as PaddleClas's loader prepares them: pixels against OpenCV called directly, crops, formats."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from pipelines.augmentation import Augmentation
from pipelines.errors import LoaderError
from pipelines.image_lists import ImageList
from pipelines.opencv_images import draw_crop, evaluation_images, training_images
from tests.support.dali import FLIPPED, WHOLE, Pixels, noise, write_images
from tests.support.opencv_sources import (
    SIZE,
    evaluation_source,
    settings,
    training_source,
)

MIN_P_VALUE = 1e-3


def read(path: Path) -> Pixels:
    """What OpenCV decodes, R, G, B."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None
    turned: Pixels = np.asarray(pixels[:, :, ::-1], np.uint8).copy()
    return turned


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
