"""What PaddleClas makes of an image with OpenCV, in numpy: the reference for the graphs' pixels.

Written from OpenCV's definition of INTER_LINEAR (pixels are sampled at their centres, those beyond the border repeat,
nothing is smoothed) and from PaddleClas's ResizeImage and CropImage (ppcls/data/preprocess/ops/operators.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def resized(picture: Pixels, height: int, width: int) -> Pixels:
    """Bilinear, [height, width, 3], of a picture of any size."""
    rows = _along_first(picture.astype(np.float64), height)
    both = _along_first(rows.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return np.asarray(np.rint(both), np.uint8)


def _along_first(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    last = len(values) - 1
    places = np.clip((np.arange(count) + 0.5) * len(values) / count - 0.5, 0, last)
    below = np.floor(places).astype(int)
    weights = (places - below).reshape(-1, 1, 1)
    return np.asarray(values[below] * (1 - weights) + values[np.minimum(below + 1, last)] * weights, np.float64)


def evaluated(picture: Pixels, short: int = 256, size: int = 224) -> Pixels:
    """Short side resized to short pixels, and the centre of size x size pixels of that."""
    height, width = picture.shape[:2]
    share = short / min(height, width)
    picture = resized(picture, round(height * share), round(width * share))
    top, left = ((side - size) // 2 for side in picture.shape[:2])
    return picture[top : top + size, left : left + size]
