from __future__ import annotations

import dataclasses
import math

import pytest

from models.image_size import ImageSize
from pipelines.augmentation import MEAN, STD, Augmentation, eval_cover


def test_defaults_are_the_published_recipe() -> None:
    assert dataclasses.astuple(Augmentation()) == (0.08, 1.0, 0.75, pytest.approx(1.3333333), 0.5)
    assert MEAN == (0.485, 0.456, 0.406)
    assert STD == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_area_min": 0.0}, "crop_area_min is 0.0; it must be above 0 and at most 1"),
        ({"crop_area_min": 1.5}, "crop_area_min is 1.5; it must be above 0 and at most 1"),
        ({"crop_area_min": math.nan}, "crop_area_min is nan"),
        (
            {"crop_area_min": 0.5, "crop_area_max": 0.4},
            "crop_area_max is 0.4; it must be at least crop_area_min (0.5) and at most 1",
        ),
        ({"crop_area_max": 1.01}, "crop_area_max is 1.01"),
        ({"crop_area_max": math.nan}, "crop_area_max is nan"),
        ({"aspect_min": 0.0}, "aspect_min is 0.0; it must be above 0 and finite"),
        ({"aspect_min": math.inf}, "aspect_min is inf"),
        ({"aspect_max": 0.7}, "aspect_max is 0.7; it must be at least aspect_min (0.75) and finite"),
        ({"aspect_max": math.inf}, "aspect_max is inf"),
        ({"aspect_max": math.nan}, "aspect_max is nan"),
        ({"flip_probability": -0.1}, "flip_probability is -0.1; it must lie between 0 and 1"),
        ({"flip_probability": 1.1}, "flip_probability is 1.1"),
        ({"flip_probability": math.nan}, "flip_probability is nan"),
    ],
)
def test_a_figure_outside_its_limits_is_refused_with_value_and_limit(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        Augmentation(**settings)
    assert message in str(caught.value)


def test_the_limits_themselves_are_allowed() -> None:
    Augmentation(crop_area_min=1.0, crop_area_max=1.0, aspect_min=1.0, aspect_max=1.0, flip_probability=0.0)
    Augmentation(flip_probability=1.0)


@pytest.mark.parametrize(("image_size", "short_side"), [(224, 256), (112, 128), (64, 73), (320, 366), (1, 1)])
def test_eval_cover_keeps_256_to_224(image_size: int, short_side: int) -> None:
    assert eval_cover(ImageSize(image_size, image_size)) == (short_side, short_side)
    assert eval_cover(ImageSize(image_size, 224)) == (short_side, 256)
    assert eval_cover(ImageSize(224, image_size)) == (256, short_side)


@pytest.mark.parametrize(("size", "written"), [(ImageSize(0, 0), "0"), (ImageSize(32, 0), "32x0")])
def test_eval_cover_refuses_no_pixels(size: ImageSize, written: str) -> None:
    with pytest.raises(ValueError, match=f"image_size is {written}; it must be at least 1 pixel"):
        eval_cover(size)
