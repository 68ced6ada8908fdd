"""The fused operators within a DALI graph, by DALI's numba plugin: drawing crops, and all that follows decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.plugin.numba import NumbaFunction

from pipelines.augmentation import MEAN, STD, Augmentation
from pipelines.fused import cropping, finishing
from pipelines.fused.stored_code import RUN, RUN_BATCH, SETUP, address
from pipelines.settings import MAX_PIXELS, PipelineSettings

# What stands for no height and width to cover.
WHOLE = (0, 0)
# Factors and summands by which a level of 0 to 255 is normalised, per channel.
NORMAL = np.array([[1 / (255 * s) for s in STD], [-m / s for m, s in zip(MEAN, STD, strict=True)]], np.float32)


class _Stored(NumbaFunction):
    """The plugin's operator with code that is on disk; the plugin compiles its own for seconds at each start."""

    def _get_run_fn_cpu(self, run_fn: Callable[..., None], *arguments: Any) -> int:
        batch_processing = arguments[-1]
        return address(RUN_BATCH if batch_processing else RUN, run_fn)

    def _get_setup_fn_cpu(self, setup_fn: Callable[..., None]) -> int:
        return address(SETUP, setup_fn)


def drawn_crops(shapes: Any, augmentation: Augmentation) -> tuple[Any, Any, Any, Any]:
    """Draw a region of each image of a batch, whose shapes are int32 [3], and whether it is mirrored.

    Returns the region's anchor and shape in whole pixels, int32 [2] each (down, right), drawn as `draw_crop` draws
    them; 1 for a region that is to be mirrored, else 0; and 2 for an image of more than MAX_PIXELS, else 0. All of it
    is one operator for a batch, as each of DALI's own takes about 4 us of a core per image, whatever it computes.
    """
    limits = [
        augmentation.crop_area_min,
        augmentation.crop_area_max,
        augmentation.aspect_min,
        augmentation.aspect_max,
        augmentation.flip_probability,
    ]
    operator = _Stored(
        run_fn=cropping.run,
        setup_fn=cropping.shape_outputs,
        out_types=[types.INT32] * 4,
        in_types=[types.INT32, types.FLOAT, types.FLOAT, types.INT32],
        outs_ndim=[1, 1, 0, 0],
        ins_ndim=[1, 1, 1, 0],
        batch_processing=True,
    )
    drawn = fn.random.uniform(range=[0.0, 1.0], shape=[5])
    anchor, shape, mirror, excess = operator(
        shapes, drawn, np.array(limits, np.float32), types.Constant(MAX_PIXELS, dtype=types.INT32)
    )
    return anchor, shape, mirror, excess


def prepared(images: Any, settings: PipelineSettings, mirror: Any, cover: tuple[int, int] | None = None) -> Any:
    """Images of bytes [height, width, 3], resized, cropped, mirrored where mirror is 1, and normalised.

    They are resized until they just cover this height and width, and the centre is cropped; the sides, the sampled
    places and the crop's place are those of PaddleClas's ResizeImage and CropImage. Without cover the whole image
    becomes the whole result. Interpolation is OpenCV's INTER_LINEAR, rounded to whole levels as there: no level
    differs by more than 1. mirror is an int32 or a scalar of the graph.
    """
    half = settings.dtype == "float16"
    operator = _Stored(
        run_fn=finishing.run_float16 if half else finishing.run_float32,
        setup_fn=finishing.shape_outputs,
        out_types=[types.UINT16 if half else types.FLOAT],
        in_types=[types.UINT8, types.INT32, types.INT32, types.FLOAT, types.UINT8],
        outs_ndim=[3],
        ins_ndim=[3, 0, 1, 2, 3],
    )
    if isinstance(mirror, int):
        mirror = types.Constant(mirror, dtype=types.INT32)
    # Of the template only the shape is used.
    template = np.empty(settings.size.of_images(finishing.CHANNELS, settings.layout), np.uint8)
    finished = operator(images, mirror, np.array(cover or WHOLE, np.int32), NORMAL, template)
    return fn.reinterpret(finished, dtype=types.FLOAT16) if half else finished
