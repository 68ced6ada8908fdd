"""The training crops' distribution: that of the published definition, or of DALI's, and not each other's.

Samples are compared by the two-sample Kolmogorov-Smirnov test. Seeds are fixed, so that a test that passes once passes
always; MIN_P_VALUE is the p-value below which two samples count as drawn differently.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from scipy.stats import ks_2samp

from pipelines.augmentation import Augmentation
from pipelines.crops import draw_crop
from pipelines.fused.operator import drawn_crops

# The fused operator, which draws as published.
FUSED = "fused"
DRAWS = 20_000
MIN_P_VALUE = 1e-3
# Height and width; in the last one few crops of the area asked for would fit.
SHAPES = [(375, 500), (500, 375), (100, 400)]

# Crops [draws, 4]: top, left, height and width in pixels.
Crops = NDArray[np.float64]


def drawn(
    shape: tuple[int, int], preprocessing: str, augmentation: Augmentation | None = None, draws: int = DRAWS
) -> Crops:
    """What the training graph's own function draws, for images of one shape."""

    @pipeline_def(batch_size=draws, num_threads=2, device_id=None, seed=5)  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        if preprocessing == FUSED:
            size = types.Constant(np.array([*shape, 3], np.int32), device="cpu")
            anchor, sides, *_ = drawn_crops(fn.copy(size), augmentation or Augmentation())
            return anchor, sides
        size = types.Constant(np.array(shape, np.int32), device="cpu")
        return draw_crop(fn.copy(size), augmentation or Augmentation(), preprocessing)

    pipeline = graph()
    pipeline.build()
    return np.concatenate([np.array(output.as_tensor(), np.float64) for output in pipeline.run()], axis=1)


def published(shape: tuple[int, int], augmentation: Augmentation | None = None) -> Crops:
    """PaddleClas's RandCropImage, by its definition: one aspect, one area that fits, whole pixels, any position."""
    limits = augmentation or Augmentation()
    generator = np.random.default_rng(6)
    height, width = shape
    aspects = generator.uniform(limits.aspect_min, limits.aspect_max, DRAWS)
    largest = np.minimum(width / height / aspects, height / width * aspects)
    least, most = (np.minimum(area, largest) for area in (limits.crop_area_min, limits.crop_area_max))
    areas = height * width * (least + (most - least) * generator.random(DRAWS))
    sides = np.trunc(np.stack([np.sqrt(areas / aspects), np.sqrt(areas * aspects)], axis=1))
    places = generator.integers(0, np.array(shape) - sides, endpoint=True)
    return np.concatenate([places, sides], axis=1)


def dali(shape: tuple[int, int]) -> Crops:
    """Area and the aspect's logarithm drawn evenly, in an image that every such crop fits into."""
    generator = np.random.default_rng(7)
    limits = SMALL
    aspects = np.exp(generator.uniform(np.log(limits.aspect_min), np.log(limits.aspect_max), DRAWS))
    areas = shape[0] * shape[1] * generator.uniform(limits.crop_area_min, limits.crop_area_max, DRAWS)
    sides = np.rint(np.stack([np.sqrt(areas / aspects), np.sqrt(areas * aspects)], axis=1))
    places = generator.integers(0, np.array(shape) - sides, endpoint=True)
    return np.concatenate([places, sides], axis=1)


# Half the area of a square holds every aspect up to 2.
SMALL = Augmentation(crop_area_min=0.05, crop_area_max=0.5, aspect_min=0.5, aspect_max=2.0)


def p_values(first: Crops, second: Crops, shape: tuple[int, int]) -> dict[str, float]:
    """Of the area's share, width over height, and the place within the room that a crop leaves, if any, each way."""

    def figures(crops: Crops) -> dict[str, NDArray[np.float64]]:
        room = np.array(shape) - crops[:, 2:]
        return {
            "area": crops[:, 2] * crops[:, 3] / (shape[0] * shape[1]),
            "aspect": crops[:, 3] / crops[:, 2],
            # A place stands for the middle of the part of the room that it takes.
            **{
                name: ((crops[:, axis] + 0.5) / (room[:, axis] + 1))[room[:, axis] > 0]
                for axis, name in enumerate(("top", "left"))
            },
        }

    ours, theirs = figures(first), figures(second)
    return {
        name: float(ks_2samp(ours[name], theirs[name]).pvalue)
        for name in ours
        if min(len(ours[name]), len(theirs[name])) > 0
    }


@pytest.mark.parametrize("way", ["paddleclas", FUSED])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_published_recipe_draws_as_published(shape: tuple[int, int], way: str) -> None:
    found = p_values(drawn(shape, way), published(shape), shape)
    assert min(found.values()) > MIN_P_VALUE, found


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(crop_area_min=0.1, crop_area_max=0.3, aspect_min=0.5, aspect_max=3.0),
        # Where the smallest area asked for doesn't fit, it is the largest that does.
        Augmentation(crop_area_min=0.6, crop_area_max=0.9),
    ],
)
@pytest.mark.parametrize("way", ["paddleclas", FUSED])
@pytest.mark.parametrize("shape", SHAPES)
def test_so_it_does_within_other_limits(shape: tuple[int, int], augmentation: Augmentation, way: str) -> None:
    found = p_values(drawn(shape, way, augmentation), published(shape, augmentation), shape)
    assert min(found.values()) > MIN_P_VALUE, found


# Not 375 x 500, where the crops that don't fit make up for it: p is 0.009 there, of the aspect.
@pytest.mark.parametrize("shape", [(400, 400), (500, 375), (100, 400)])
def test_dali_s_recipe_is_told_from_the_published_one(shape: tuple[int, int]) -> None:
    """So the test can fail: a uniform and a log-uniform aspect's distributions are 0.07 apart at most."""
    found = p_values(drawn(shape, "dali"), published(shape), shape)
    assert found["aspect"] < MIN_P_VALUE / 1e6, found


def test_dali_s_recipe_draws_areas_and_the_aspect_s_logarithm_evenly() -> None:
    shape = (1000, 1000)
    found = p_values(drawn(shape, "dali", SMALL), dali(shape), shape)
    assert min(found.values()) > MIN_P_VALUE, found
    other = p_values(drawn(shape, "paddleclas", SMALL), dali(shape), shape)
    assert other["aspect"] < MIN_P_VALUE / 1e6
    assert other["area"] > MIN_P_VALUE


# DALI's generator computes in 32 bits: of images of 10^8 pixels and more it draws crops outside of them.
@pytest.mark.parametrize(
    ("shape", "recipes"),
    [
        *(
            (shape, ("paddleclas", FUSED, "dali"))
            for shape in [*SHAPES, (1, 1), (1, 3000), (7, 1), (2, 3), (4000, 6000)]
        ),
        *((shape, ("paddleclas", FUSED)) for shape in [(65_535, 65_535), (60_000, 3)]),
    ],
)
def test_crops_are_whole_pixels_of_the_image(shape: tuple[int, int], recipes: tuple[str, ...]) -> None:
    for preprocessing, augmentation in itertools.product(
        recipes, (Augmentation(), SMALL, Augmentation(1.0, 1.0, 0.1, 10.0))
    ):
        crops = drawn(shape, preprocessing, augmentation, draws=1000)
        np.testing.assert_array_equal(crops, np.rint(crops))
        assert crops[:, :2].min() >= 0
        assert crops[:, 2:].min() >= 1
        assert ((crops[:, :2] + crops[:, 2:]).max(axis=0) <= shape).all()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 224, 333, 1000, 65_535])
@pytest.mark.parametrize(
    ("area", "aspect"), [(1.0, 1.0), (0.25, 1.0), (0.5, 2.0), (0.5, 0.5), (1 / 9, 1.0), (0.75, 0.75)]
)
@pytest.mark.parametrize("way", ["paddleclas", FUSED])
def test_a_crop_without_chance_has_the_sides_that_follow(size: int, area: float, aspect: float, way: str) -> None:
    """Single precision makes no pixel less of them, where they are whole."""
    crops = drawn((size, size), way, Augmentation(area, area, aspect, aspect), draws=500)
    height, width = (max(1.0, size * np.sqrt(area / aspect)), max(1.0, size * np.sqrt(area * aspect)))
    for side, expected in ((crops[:, 2], height), (crops[:, 3], width)):
        assert side.min() == side.max()
        assert side[0] == np.floor(expected + 1e-6 * size)


@pytest.mark.parametrize("way", ["paddleclas", FUSED])
def test_every_place_is_as_likely(way: str) -> None:
    """Of 5 x 4 pixels and crops of 2 x 2 there are 4 x 3 places, each expected 1,667 times with a deviation of 39."""
    crops = drawn((5, 4), way, Augmentation(0.2, 0.2, 1.0, 1.0))
    assert (crops[:, 2:] == 2).all()
    _, counts = np.unique(crops[:, :2], axis=0, return_counts=True)
    assert len(counts) == 12
    assert abs(counts - DRAWS / 12).max() < 4 * 39
