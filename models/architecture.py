"""PP-LCNet's table of layers; without Paddle, so that code that only counts layers need not load it."""

from __future__ import annotations

import math

STEM_CHANNELS = 16
HEAD_CHANNELS = 1280
IMAGE_CHANNELS = 3
# The channels divided by those inside a squeeze-and-excitation.
SQUEEZE_FACTOR = 4

# Pixels of a side that leave one pixel after the stem and the first blocks of four stages have each halved them.
MIN_IMAGE_SIZE = 2**5
# What the stages with a stride of 2 halve, after the stem has halved both sides: BOTH of them again, as published, or
# the HEIGHT alone, as in PaddleClas's PULC recipes for lines of text (stride_list [2, [2, 1], [2, 1], [2, 1], [2, 1]]).
# The weights have the same shapes.
BOTH, HEIGHT = "both", "height"
STEM_STRIDE = 2

# The entries of the last layer, which has an output for each class, and what happens to that of a file of weights: it
# is kept, or a new one starts from random values as it does without a file.
HEAD = ("fc.weight", "fc.bias")
KEEP, NEW = "keep", "new"

# (kernel, output channels, stride, squeeze-and-excitation) of each depthwise separable block, at scale 1.
# Source: "PP-LCNet: A Lightweight CPU Convolutional Neural Network", table 2, and PaddleClas's pp_lcnet.py.
STAGES: dict[str, tuple[tuple[int, int, int, bool], ...]] = {
    "blocks2": ((3, 32, 1, False),),
    "blocks3": ((3, 64, 2, False), (3, 64, 1, False)),
    "blocks4": ((3, 128, 2, False), (3, 128, 1, False)),
    "blocks5": ((3, 256, 2, False), *((5, 256, 1, False),) * 5),
    "blocks6": ((5, 512, 2, True), (5, 512, 1, True)),
}


def stride_of(stride: int, strides: str) -> tuple[int, int]:
    """The stride of a block, down and right, in a network whose stages halve BOTH sides or the HEIGHT alone."""
    return stride, 1 if strides == HEIGHT else stride


def scaled_channels(channels: int, scale: float) -> int:
    """Channels at a scale: the nearest multiple of 8, at least 8, and never more than 10 % below channels x scale."""
    wanted = channels * scale
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def parameter_shapes(scale: float, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the 146 entries of the model's state_dict, by name and in its order, without building the model.

    Convolutions are [out, in / groups, kernel, kernel], the fully connected layer [in, out].
    """
    channels = scaled_channels(STEM_CHANNELS, scale)
    shapes = _conv_bn("conv1", (channels, IMAGE_CHANNELS, 3, 3))
    for stage, blocks in STAGES.items():
        for index, (kernel, out, _, use_se) in enumerate(blocks):
            block, out_channels = f"{stage}.{index}", scaled_channels(out, scale)
            shapes |= _conv_bn(f"{block}.dw_conv", (channels, 1, kernel, kernel))
            if use_se:
                squeezed = channels // SQUEEZE_FACTOR
                shapes |= _conv(f"{block}.se.conv1", squeezed, channels) | _conv(
                    f"{block}.se.conv2", channels, squeezed
                )
            shapes |= _conv_bn(f"{block}.pw_conv", (out_channels, channels, 1, 1))
            channels = out_channels
    shapes["last_conv.weight"] = (HEAD_CHANNELS, channels, 1, 1)
    return shapes | {"fc.weight": (HEAD_CHANNELS, num_classes), "fc.bias": (num_classes,)}


def parameter_count(scale: float, num_classes: int) -> int:
    """The number of trainable values at a scale, as it is published: without batch norm's running statistics."""
    shapes = parameter_shapes(scale, num_classes)
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(("_mean", "_variance")))


def _conv_bn(name: str, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    statistics = dict.fromkeys((f"{name}.bn.{part}" for part in ("weight", "bias", "_mean", "_variance")), weight[:1])
    return {f"{name}.conv.weight": weight, **statistics}


def _conv(name: str, out_channels: int, in_channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out_channels, in_channels, 1, 1), f"{name}.bias": (out_channels,)}
