"""PP-LCNet as published, a second time and in numpy: nothing here comes from `models`, nothing from Paddle.

Source: PaddleClas, ppcls/arch/backbone/legendary_models/pp_lcnet.py (2392301). What is a rule there, as the rounding of
channels, is a literal table here, so that one can be held against the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]

BATCH_NORM_EPSILON = 1e-5  # Paddle's default, which the published layers leave as it is
KEPT = 0.8  # 1 - the published dropout
LAST_CHANNELS = 1280


class Block(NamedTuple):
    """One depthwise separable block: what is the same at every scale."""

    path: str
    kernel: int
    stride: int
    squeezes: bool


BLOCKS = (
    Block("blocks2.0", 3, 1, False),
    Block("blocks3.0", 3, 2, False),
    Block("blocks3.1", 3, 1, False),
    Block("blocks4.0", 3, 2, False),
    Block("blocks4.1", 3, 1, False),
    Block("blocks5.0", 3, 2, False),
    Block("blocks5.1", 5, 1, False),
    Block("blocks5.2", 5, 1, False),
    Block("blocks5.3", 5, 1, False),
    Block("blocks5.4", 5, 1, False),
    Block("blocks5.5", 5, 1, False),
    Block("blocks6.0", 5, 2, True),
    Block("blocks6.1", 5, 1, True),
)


class Channels(NamedTuple):
    """Of one scale: the stem's channels, what each block gives, and to what the two last blocks squeeze."""

    stem: int
    blocks: tuple[int, ...]
    squeezed: tuple[int, int]


CHANNELS = {
    "x0_25": Channels(8, (8, 16, 16, 32, 32, 64, 64, 64, 64, 64, 64, 128, 128), (16, 32)),
    # 5.6 -> 8; 11.2 -> 16, since 8 would lose more than 10 %; 22.4 -> 24; 44.8 -> 48; 89.6 -> 88; 179.2 -> 176
    "x0_35": Channels(8, (16, 24, 24, 48, 48, 88, 88, 88, 88, 88, 88, 176, 176), (22, 44)),
    "x0_5": Channels(8, (16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256), (32, 64)),
    "x0_75": Channels(16, (24, 48, 48, 96, 96, 192, 192, 192, 192, 192, 192, 384, 384), (48, 96)),
    "x1_0": Channels(16, (32, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512), (64, 128)),
    "x1_5": Channels(24, (48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768), (96, 192)),
    "x2_0": Channels(32, (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024), (128, 256)),
    "x2_5": Channels(40, (80, 160, 160, 320, 320, 640, 640, 640, 640, 640, 640, 1280, 1280), (160, 320)),
}

# Every entry of a published parameter file, in its order.
KEYS = (
    "conv1.conv.weight",
    "conv1.bn.weight",
    "conv1.bn.bias",
    "conv1.bn._mean",
    "conv1.bn._variance",
    "blocks2.0.dw_conv.conv.weight",
    "blocks2.0.dw_conv.bn.weight",
    "blocks2.0.dw_conv.bn.bias",
    "blocks2.0.dw_conv.bn._mean",
    "blocks2.0.dw_conv.bn._variance",
    "blocks2.0.pw_conv.conv.weight",
    "blocks2.0.pw_conv.bn.weight",
    "blocks2.0.pw_conv.bn.bias",
    "blocks2.0.pw_conv.bn._mean",
    "blocks2.0.pw_conv.bn._variance",
    "blocks3.0.dw_conv.conv.weight",
    "blocks3.0.dw_conv.bn.weight",
    "blocks3.0.dw_conv.bn.bias",
    "blocks3.0.dw_conv.bn._mean",
    "blocks3.0.dw_conv.bn._variance",
    "blocks3.0.pw_conv.conv.weight",
    "blocks3.0.pw_conv.bn.weight",
    "blocks3.0.pw_conv.bn.bias",
    "blocks3.0.pw_conv.bn._mean",
    "blocks3.0.pw_conv.bn._variance",
    "blocks3.1.dw_conv.conv.weight",
    "blocks3.1.dw_conv.bn.weight",
    "blocks3.1.dw_conv.bn.bias",
    "blocks3.1.dw_conv.bn._mean",
    "blocks3.1.dw_conv.bn._variance",
    "blocks3.1.pw_conv.conv.weight",
    "blocks3.1.pw_conv.bn.weight",
    "blocks3.1.pw_conv.bn.bias",
    "blocks3.1.pw_conv.bn._mean",
    "blocks3.1.pw_conv.bn._variance",
    "blocks4.0.dw_conv.conv.weight",
    "blocks4.0.dw_conv.bn.weight",
    "blocks4.0.dw_conv.bn.bias",
    "blocks4.0.dw_conv.bn._mean",
    "blocks4.0.dw_conv.bn._variance",
    "blocks4.0.pw_conv.conv.weight",
    "blocks4.0.pw_conv.bn.weight",
    "blocks4.0.pw_conv.bn.bias",
    "blocks4.0.pw_conv.bn._mean",
    "blocks4.0.pw_conv.bn._variance",
    "blocks4.1.dw_conv.conv.weight",
    "blocks4.1.dw_conv.bn.weight",
    "blocks4.1.dw_conv.bn.bias",
    "blocks4.1.dw_conv.bn._mean",
    "blocks4.1.dw_conv.bn._variance",
    "blocks4.1.pw_conv.conv.weight",
    "blocks4.1.pw_conv.bn.weight",
    "blocks4.1.pw_conv.bn.bias",
    "blocks4.1.pw_conv.bn._mean",
    "blocks4.1.pw_conv.bn._variance",
    "blocks5.0.dw_conv.conv.weight",
    "blocks5.0.dw_conv.bn.weight",
    "blocks5.0.dw_conv.bn.bias",
    "blocks5.0.dw_conv.bn._mean",
    "blocks5.0.dw_conv.bn._variance",
    "blocks5.0.pw_conv.conv.weight",
    "blocks5.0.pw_conv.bn.weight",
    "blocks5.0.pw_conv.bn.bias",
    "blocks5.0.pw_conv.bn._mean",
    "blocks5.0.pw_conv.bn._variance",
    "blocks5.1.dw_conv.conv.weight",
    "blocks5.1.dw_conv.bn.weight",
    "blocks5.1.dw_conv.bn.bias",
    "blocks5.1.dw_conv.bn._mean",
    "blocks5.1.dw_conv.bn._variance",
    "blocks5.1.pw_conv.conv.weight",
    "blocks5.1.pw_conv.bn.weight",
    "blocks5.1.pw_conv.bn.bias",
    "blocks5.1.pw_conv.bn._mean",
    "blocks5.1.pw_conv.bn._variance",
    "blocks5.2.dw_conv.conv.weight",
    "blocks5.2.dw_conv.bn.weight",
    "blocks5.2.dw_conv.bn.bias",
    "blocks5.2.dw_conv.bn._mean",
    "blocks5.2.dw_conv.bn._variance",
    "blocks5.2.pw_conv.conv.weight",
    "blocks5.2.pw_conv.bn.weight",
    "blocks5.2.pw_conv.bn.bias",
    "blocks5.2.pw_conv.bn._mean",
    "blocks5.2.pw_conv.bn._variance",
    "blocks5.3.dw_conv.conv.weight",
    "blocks5.3.dw_conv.bn.weight",
    "blocks5.3.dw_conv.bn.bias",
    "blocks5.3.dw_conv.bn._mean",
    "blocks5.3.dw_conv.bn._variance",
    "blocks5.3.pw_conv.conv.weight",
    "blocks5.3.pw_conv.bn.weight",
    "blocks5.3.pw_conv.bn.bias",
    "blocks5.3.pw_conv.bn._mean",
    "blocks5.3.pw_conv.bn._variance",
    "blocks5.4.dw_conv.conv.weight",
    "blocks5.4.dw_conv.bn.weight",
    "blocks5.4.dw_conv.bn.bias",
    "blocks5.4.dw_conv.bn._mean",
    "blocks5.4.dw_conv.bn._variance",
    "blocks5.4.pw_conv.conv.weight",
    "blocks5.4.pw_conv.bn.weight",
    "blocks5.4.pw_conv.bn.bias",
    "blocks5.4.pw_conv.bn._mean",
    "blocks5.4.pw_conv.bn._variance",
    "blocks5.5.dw_conv.conv.weight",
    "blocks5.5.dw_conv.bn.weight",
    "blocks5.5.dw_conv.bn.bias",
    "blocks5.5.dw_conv.bn._mean",
    "blocks5.5.dw_conv.bn._variance",
    "blocks5.5.pw_conv.conv.weight",
    "blocks5.5.pw_conv.bn.weight",
    "blocks5.5.pw_conv.bn.bias",
    "blocks5.5.pw_conv.bn._mean",
    "blocks5.5.pw_conv.bn._variance",
    "blocks6.0.dw_conv.conv.weight",
    "blocks6.0.dw_conv.bn.weight",
    "blocks6.0.dw_conv.bn.bias",
    "blocks6.0.dw_conv.bn._mean",
    "blocks6.0.dw_conv.bn._variance",
    "blocks6.0.se.conv1.weight",
    "blocks6.0.se.conv1.bias",
    "blocks6.0.se.conv2.weight",
    "blocks6.0.se.conv2.bias",
    "blocks6.0.pw_conv.conv.weight",
    "blocks6.0.pw_conv.bn.weight",
    "blocks6.0.pw_conv.bn.bias",
    "blocks6.0.pw_conv.bn._mean",
    "blocks6.0.pw_conv.bn._variance",
    "blocks6.1.dw_conv.conv.weight",
    "blocks6.1.dw_conv.bn.weight",
    "blocks6.1.dw_conv.bn.bias",
    "blocks6.1.dw_conv.bn._mean",
    "blocks6.1.dw_conv.bn._variance",
    "blocks6.1.se.conv1.weight",
    "blocks6.1.se.conv1.bias",
    "blocks6.1.se.conv2.weight",
    "blocks6.1.se.conv2.bias",
    "blocks6.1.pw_conv.conv.weight",
    "blocks6.1.pw_conv.bn.weight",
    "blocks6.1.pw_conv.bn.bias",
    "blocks6.1.pw_conv.bn._mean",
    "blocks6.1.pw_conv.bn._variance",
    "last_conv.weight",
    "fc.weight",
    "fc.bias",
)


def shapes(size: str, num_classes: int) -> dict[str, list[int]]:
    """The shape of every key, by path; its order is not that of KEYS."""
    channels = CHANNELS[size]
    squeezed = iter(channels.squeezed)
    convolutions = {"conv1": [channels.stem, 3, 3, 3]}
    others = {"last_conv.weight": [LAST_CHANNELS, channels.blocks[-1], 1, 1]}
    for block, inputs, outputs in zip(BLOCKS, (channels.stem, *channels.blocks), channels.blocks, strict=False):
        convolutions[f"{block.path}.dw_conv"] = [inputs, 1, block.kernel, block.kernel]
        convolutions[f"{block.path}.pw_conv"] = [outputs, inputs, 1, 1]
        if block.squeezes:
            fewer = next(squeezed)
            others[f"{block.path}.se.conv1.weight"] = [fewer, inputs, 1, 1]
            others[f"{block.path}.se.conv1.bias"] = [fewer]
            others[f"{block.path}.se.conv2.weight"] = [inputs, fewer, 1, 1]
            others[f"{block.path}.se.conv2.bias"] = [inputs]
    for path, shape in convolutions.items():
        others[f"{path}.conv.weight"] = shape
        others |= {f"{path}.bn.{name}": shape[:1] for name in ("weight", "bias", "_mean", "_variance")}
    return {**others, "fc.weight": [LAST_CHANNELS, num_classes], "fc.bias": [num_classes]}


def logits(weights: Weights, images: Array, *, scales_for_dropout: bool) -> Array:
    """Evaluate images [N, 3, H, W]: logits [N, classes].

    scales_for_dropout multiplies what dropout would have had to drop from by the share it keeps, as the published
    network does ("downscale_in_infer"); without it dropout is left out.
    """
    x = _convolution(images, weights["conv1.conv.weight"], 2)
    x = _hard_swish(_normalised(weights, "conv1.bn", x))
    for block in BLOCKS:
        x = _depthwise(x, weights[f"{block.path}.dw_conv.conv.weight"], block.stride)
        x = _hard_swish(_normalised(weights, f"{block.path}.dw_conv.bn", x))
        if block.squeezes:
            x = x * _attention(weights, f"{block.path}.se", x)[:, :, None, None]
        x = _convolution(x, weights[f"{block.path}.pw_conv.conv.weight"], 1)
        x = _hard_swish(_normalised(weights, f"{block.path}.pw_conv.bn", x))
    hidden = _hard_swish(x.mean((2, 3)) @ weights["last_conv.weight"][:, :, 0, 0].T)
    if scales_for_dropout:
        hidden = KEPT * hidden
    result: Array = hidden @ weights["fc.weight"] + weights["fc.bias"]
    return result


def _taps(x: Array, kernel: int, stride: int) -> Iterator[tuple[int, int, Array]]:
    """For each place (row, column) of the kernel what it meets, with kernel // 2 zeros around the image.

    Each is [N, C, H / stride, W / stride], rounded up.
    """
    border = kernel // 2
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (border, border), (border, border)))
    for row in range(kernel):
        for column in range(kernel):
            yield row, column, padded[:, :, row : row + height : stride, column : column + width : stride]


def _convolution(x: Array, weight: Array, stride: int) -> Array:
    """Each output channel from all input channels; weight [out, in, k, k]."""
    taps = _taps(x, weight.shape[-1], stride)
    return sum((np.einsum("nchw,oc->nohw", met, weight[:, :, i, j], optimize=True) for i, j, met in taps), np.zeros(()))


def _depthwise(x: Array, weight: Array, stride: int) -> Array:
    """Each output channel from the input channel of its number; weight [channels, 1, k, k]."""
    taps = _taps(x, weight.shape[-1], stride)
    return sum((met * weight[:, 0, i, j, None, None] for i, j, met in taps), np.zeros(()))


def _normalised(weights: Weights, path: str, x: Array) -> Array:
    """Batch normalisation by the running mean and variance."""
    factor = weights[f"{path}.weight"] / np.sqrt(weights[f"{path}._variance"] + BATCH_NORM_EPSILON)
    shift = weights[f"{path}.bias"] - weights[f"{path}._mean"] * factor
    result: Array = x * factor[:, None, None] + shift[:, None, None]
    return result


def _attention(weights: Weights, path: str, x: Array) -> Array:
    """A factor for each image and channel: [N, C]."""
    squeezed = x.mean((2, 3)) @ weights[f"{path}.conv1.weight"][:, :, 0, 0].T + weights[f"{path}.conv1.bias"]
    excited = np.maximum(squeezed, 0) @ weights[f"{path}.conv2.weight"][:, :, 0, 0].T + weights[f"{path}.conv2.bias"]
    result: Array = np.clip(excited / 6 + 0.5, 0, 1)
    return result


def _hard_swish(x: Array) -> Array:
    result: Array = x * np.clip(x + 3, 0, 6) / 6
    return result
