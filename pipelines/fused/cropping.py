"""Drawing the crops of a batch: the functions that are compiled.

numba takes stored code for current as long as the file of the function itself is unchanged, so all of it is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

_inner = njit(nogil=True, boundscheck=False, error_model="numpy")
# The relative amount by which sides are widened, so that rounding, also that of the limits, makes none a pixel smaller.
# 65,535 pixels become 0.007 more.
MARGIN = 1e-7
# An image's inputs and outputs, in DALI's order, and the entries of the vectors among them.
IMAGE_SHAPE, DRAWN, LIMITS, MAX_PIXELS = range(4)
ANCHOR, CROP_SHAPE, MIRROR, EXCESS = range(4)
AREA_MIN, AREA_MAX, ASPECT_MIN, ASPECT_MAX, FLIP = range(5)
ASPECT, SHARE, TOP, LEFT, TOSS = range(5)


@_inner  # type: ignore[untyped-decorator]
def draw(height: int, width: int, drawn: Any, limits: Any, anchor: Any, shape: Any) -> None:
    """Write a crop's anchor and shape, in pixels down and right, from numbers drawn evenly between 0 and 1.

    It is PaddleClas's RandCropImage, see `pipelines.crops.draw_crop`.
    """
    aspect = limits[ASPECT_MIN] + drawn[ASPECT] * (limits[ASPECT_MAX] - limits[ASPECT_MIN])
    # The share of the image's area of the largest crop with this aspect.
    largest = min(width / height / aspect, height / width * aspect)
    low, high = min(limits[AREA_MIN], largest), min(limits[AREA_MAX], largest)
    area = (low + drawn[SHARE] * (high - low)) * height * width
    down, right = np.sqrt(area / aspect) * (1 + MARGIN), np.sqrt(area * aspect) * (1 + MARGIN)
    shape[0], shape[1] = min(max(int(down), 1), height), min(max(int(right), 1), width)
    anchor[0] = min(int(drawn[TOP] * (height - shape[0] + 1)), height - shape[0])
    anchor[1] = min(int(drawn[LEFT] * (width - shape[1] + 1)), width - shape[1])


def shape_outputs(out_shapes: Any, _d: Any, _o: int, _s: Any, _e: Any, _i: int, samples: int) -> None:
    """Anchors and shapes are pairs, the others scalars; see `stored_code.SETUP`."""
    for index in range(samples):
        out_shapes[ANCHOR * samples + index][0] = 2
        out_shapes[CROP_SHAPE * samples + index][0] = 2


def run(outs: Any, _s: Any, _d: Any, _o: int, ins: Any, _t: Any, _e: Any, _i: int, samples: int) -> None:
    """Draw the crops of a batch, and whether they are mirrored; see `stored_code.RUN_BATCH`.

    excess is 2 for an image of too many pixels, else 0.
    """
    for index in range(samples):
        image = carray(ins[IMAGE_SHAPE * samples + index], 3, np.int32)
        drawn = carray(ins[DRAWN * samples + index], 5, np.float32)
        limits = carray(ins[LIMITS * samples + index], 5, np.float32)
        max_pixels = carray(ins[MAX_PIXELS * samples + index], 1, np.int32)[0]
        anchor = carray(outs[ANCHOR * samples + index], 2, np.int32)
        shape = carray(outs[CROP_SHAPE * samples + index], 2, np.int32)
        height, width = np.int64(image[0]), np.int64(image[1])
        draw(height, width, drawn, limits, anchor, shape)
        carray(outs[MIRROR * samples + index], 1, np.int32)[0] = 1 if drawn[TOSS] < limits[FLIP] else 0
        carray(outs[EXCESS * samples + index], 1, np.int32)[0] = 2 if height * width > max_pixels else 0
