"""PP-LCNet's table of layers; without Paddle, so that what only counts them need not load it."""

from __future__ import annotations

STEM_CHANNELS = 16
HEAD_CHANNELS = 1280

# (kernel, output channels, stride, squeeze-and-excitation) of each depthwise separable block, at scale 1.
# Source: "PP-LCNet: A Lightweight CPU Convolutional Neural Network", table 2, and PaddleClas's pp_lcnet.py.
STAGES: dict[str, tuple[tuple[int, int, int, bool], ...]] = {
    "blocks2": ((3, 32, 1, False),),
    "blocks3": ((3, 64, 2, False), (3, 64, 1, False)),
    "blocks4": ((3, 128, 2, False), (3, 128, 1, False)),
    "blocks5": ((3, 256, 2, False), *((5, 256, 1, False),) * 5),
    "blocks6": ((5, 512, 2, True), (5, 512, 1, True)),
}


def scaled_channels(channels: int, scale: float) -> int:
    """Channels at a scale: the nearest multiple of 8, at least 8, and never more than 10 % below channels x scale."""
    wanted = channels * scale
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8
