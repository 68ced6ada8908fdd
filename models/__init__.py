"""PP-LCNet in its eight published sizes: `build` makes one, `SIZES` has what was published about each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.architecture import BOTH, HEIGHT
from models.sizes import SIZES, Size

if TYPE_CHECKING:
    from models.pplcnet import PPLCNet

__all__ = ["SIZES", "Size", "build"]


def build(model: str, num_classes: int = 1000, data_format: str = "NCHW", strides: str = BOTH) -> PPLCNet:
    """PP-LCNet of a published size, with fresh weights drawn from Paddle's global generator.

    model is a key of SIZES, e.g. "x1_0"; num_classes is the width of the logits; data_format is that of the images,
    "NCHW" or "NHWC"; strides is what its stages halve, "both" sides or the "height" alone. Raises ValueError for any
    other value.
    """
    if model not in SIZES:
        raise ValueError(f"unknown model {model!r}; known: {', '.join(SIZES)}")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; it must be at least 1")
    if data_format not in ("NCHW", "NHWC"):
        raise ValueError(f"unknown data_format {data_format!r}; known: NCHW, NHWC")
    if strides not in (BOTH, HEIGHT):
        raise ValueError(f"unknown strides {strides!r}; known: {BOTH}, {HEIGHT}")
    # Imported here, as listing the sizes must not cost the seconds that loading Paddle takes.
    from models.pplcnet import PPLCNet

    return PPLCNet(SIZES[model].scale, num_classes, data_format=data_format, strides=strides)
