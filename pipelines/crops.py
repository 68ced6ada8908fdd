"""The regions of an image: training's, drawn as PaddleClas or DALI draws it, and the middle that evaluation resizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from nvidia.dali import fn, math, types

from models.image_size import ImageSize
from pipelines.augmentation import Augmentation
from pipelines.settings import DALI_CROPS

# The relative amount by which limits are widened, so that no range is empty, and so that single precision does not
# make a crop that is as large as its image one pixel smaller. 65,535 pixels become at most 0.2 more.
_MARGIN = 1e-6
# The largest float32 below 1.
_BELOW_ONE = 1 - 2**-24
# Of an image whose width over height is this many times that of the crop, or a part of it as small, evaluation resizes
# the middle: its centre crop has nothing of the rest, and resized as a whole the image would need gigabytes.
MAX_ASPECT = 64


def draw_crop(size: Any, augmentation: Augmentation, preprocessing: str) -> tuple[Any, Any]:
    """Draw a region of an image of size [2], int32, within a graph.

    Returns the region's anchor and shape in whole pixels, [2] each (down, right).

    preprocessing "paddleclas" is PaddleClas's RandCropImage (ppcls/data/preprocess/ops/operators.py). Width over height
    is drawn uniformly between the aspect's limits; the share of the image's area is drawn uniformly between the area's
    limits, each reduced to the largest share that fits with this aspect; the sides are rounded down to whole pixels;
    every position is equally likely. So a crop is drawn only once, whatever the image's shape. RandCropImage fails
    where a side is less than a pixel; here the side is then 1. Where only the largest crop that fits is allowed, its
    double precision loses a pixel in 12 % of draws; here none is lost.

    preprocessing "dali" is fn.random_crop_generator: the aspect's logarithm is drawn uniformly, and both
    are drawn again, up to ten times, until they fit.
    """
    if preprocessing == DALI_CROPS:
        anchor, shape = fn.random_crop_generator(
            size,
            random_area=[augmentation.crop_area_min, augmentation.crop_area_max],
            random_aspect_ratio=[augmentation.aspect_min, augmentation.aspect_max],
        )
        return anchor, shape
    return _draw_published_crop(size, augmentation)


def _draw_published_crop(size: Any, augmentation: Augmentation) -> tuple[Any, Any]:
    """The crop of PaddleClas; anchor and shape are float32, as a cast costs as much as two other operators.

    An operator takes about 40 us of a core for a batch of 16, whatever it computes, so this uses as few as possible.
    """
    aspect = fn.random.uniform(range=[augmentation.aspect_min, augmentation.aspect_max * (1 + _MARGIN)])
    # Height and width of a crop of one pixel's area.
    unit = math.pow(aspect, _constant(-0.5, 0.5))
    # How often each of them fits into the image. The smaller number is the side, in units, of the largest crop, whose
    # share of the image's area is smaller / larger.
    fits = size / unit
    smaller, larger = fn.reductions.min(fits), fn.reductions.max(fits)
    # The limits of the area as shares of the largest crop's area.
    upwards = 1 + 4 * _MARGIN
    limits = _constant(augmentation.crop_area_min * upwards, augmentation.crop_area_max * (1 + _MARGIN) * upwards)
    limits = math.min(larger / smaller * limits, _constant(upwards, (1 + _MARGIN) * upwards))
    share = fn.random.uniform(range=limits)
    shape = math.max(math.floor(math.sqrt(share) * smaller * unit), 1.0)
    place = fn.random.uniform(range=[0.0, _BELOW_ONE], shape=[2])
    anchor = math.floor(place * (size - shape + 1.0))
    return anchor, shape


def middle(size: Any, crop: ImageSize) -> dict[str, Any]:
    """What fn.resize is told of the part of an image that is resized for a centre crop, within a graph.

    It is all of an image of size [2], int32, unless that is MAX_ASPECT times as long or as wide as the crop is.
    """
    # The image in units in which the crop is a square. Products of sides may be beyond int32.
    units = types.Constant(np.array([crop.width, crop.height], np.int32), device="cpu")
    short = fn.reductions.min(fn.cast(size, dtype=types.INT64) * units, axes=[0])
    excess = math.max(size - MAX_ASPECT * short // units, 0)
    start = fn.cast(excess // 2, dtype=types.FLOAT)
    return {"roi_start": start, "roi_end": size - start}


def _constant(first: float, second: float) -> Any:
    return types.Constant(np.array([first, second], np.float32), device="cpu")
