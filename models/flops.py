"""The number of multiply-accumulates that one image costs in each PP-LCNet size, counted from the table of layers."""

from __future__ import annotations

from itertools import chain

from models.architecture import (
    BOTH,
    HEAD_CHANNELS,
    IMAGE_CHANNELS,
    SQUEEZE_FACTOR,
    STAGES,
    STEM_CHANNELS,
    STEM_STRIDE,
    scaled_channels,
    stride_of,
)
from models.image_size import ImageSize, PlainSize
from models.sizes import SIZES


def macs(size: str, image_size: PlainSize = 224, num_classes: int = 1000, strides: str = BOTH) -> int:
    """The number of multiply-accumulates of one image's forward pass.

    All convolutions are counted, including the two 1 x 1 inside each squeeze-and-excitation, and the fully connected
    layer. Biases, batch normalisation, activations, pooling and the product with the attention are not counted. In this
    way the eight sizes have the published figures (155.70 million for x1_0, at 224 pixels with 1000 classes).
    size is a key of SIZES, image_size the image's in pixels, strides what the stages halve (see `architecture.BOTH`).
    Raises ValueError for an unknown size, and for an image_size or num_classes below 1.
    """
    if size not in SIZES:
        raise ValueError(f"unknown model {size!r}; known: {', '.join(SIZES)}")
    image = ImageSize.of(image_size)
    if min(image.height, image.width, num_classes) < 1:
        raise ValueError(f"image_size is {image_size}, num_classes {num_classes}; both must be at least 1")
    scale = SIZES[size].scale
    channels = scaled_channels(STEM_CHANNELS, scale)
    height, width = _output_side(image.height, STEM_STRIDE), _output_side(image.width, STEM_STRIDE)
    total = height * width * 3**2 * IMAGE_CHANNELS * channels
    for kernel, out, stride, use_se in chain.from_iterable(STAGES.values()):
        out_channels = scaled_channels(out, scale)
        down, right = stride_of(stride, strides)
        height, width = _output_side(height, down), _output_side(width, right)
        depthwise = height * width * kernel**2 * channels
        attention = 2 * channels * (channels // SQUEEZE_FACTOR) if use_se else 0
        pointwise = height * width * channels * out_channels
        total += depthwise + attention + pointwise
        channels = out_channels
    return total + channels * HEAD_CHANNELS + HEAD_CHANNELS * num_classes


def _output_side(side: int, stride: int) -> int:
    """The side after a convolution of odd kernel k with padding k // 2: side / stride, rounded up."""
    return -(-side // stride)
