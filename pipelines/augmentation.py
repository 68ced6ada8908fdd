"""How a training image is cropped, flipped and normalised: the published recipe's figures in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.image_size import ImageSize

# Mean and standard deviation of ImageNet's training pixels per channel (R, G, B), as fractions of full scale. The
# published weights were trained with exactly these (PaddleClas, configs/ImageNet/PPLCNet), so they can't be set.
MEAN: tuple[float, float, float] = (0.485, 0.456, 0.406)
STD: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The random part of preparing a training image; the defaults are the published recipe.

    crop_area_min and crop_area_max bound the crop's share of the image's area; aspect_min and aspect_max bound its
    width over height, in the image's pixels, whatever size the crop is then resized to; flip_probability is that of a
    left-right flip. Raises ValueError for a value outside its limits.
    """

    crop_area_min: float = 0.08
    crop_area_max: float = 1.0
    aspect_min: float = 3 / 4
    aspect_max: float = 4 / 3
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        # `not (inside the limits)` throughout, because every comparison with NaN is false.
        if not 0.0 < self.crop_area_min <= 1.0:
            raise ValueError(f"crop_area_min is {self.crop_area_min}; it must be above 0 and at most 1")
        if not self.crop_area_min <= self.crop_area_max <= 1.0:
            raise ValueError(
                f"crop_area_max is {self.crop_area_max}; it must be at least crop_area_min ({self.crop_area_min}) "
                "and at most 1"
            )
        if not 0.0 < self.aspect_min < math.inf:
            raise ValueError(f"aspect_min is {self.aspect_min}; it must be above 0 and finite")
        if not self.aspect_min <= self.aspect_max < math.inf:
            raise ValueError(
                f"aspect_max is {self.aspect_max}; it must be at least aspect_min ({self.aspect_min}) and finite"
            )
        if not 0.0 <= self.flip_probability <= 1.0:
            raise ValueError(f"flip_probability is {self.flip_probability}; it must lie between 0 and 1")


def eval_cover(size: ImageSize) -> tuple[int, int]:
    """Height and width, in pixels, that a resized image just covers before evaluation crops its centre to a size.

    Keeps the published evaluation's ratio of 256 to 224 at every crop size; for a square crop both are the short side
    of the resized image. Raises ValueError for a side below 1 pixel.
    """
    if min(size.height, size.width) < 1:
        raise ValueError(f"image_size is {size.plain}; it must be at least 1 pixel")
    return round(size.height * 256 / 224), round(size.width * 256 / 224)
