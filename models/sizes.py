"""What is published about PP-LCNet: its recipe and each size; without Paddle, so that the command line is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """The published training, as far as all sizes share it; `pipelines.augmentation.Augmentation` has the crops.

    step_images is the number of images in one step of all devices. Source: PaddleClas,
    configs/ImageNet/PPLCNet/PPLCNet_x*.yaml.
    """

    epochs: int = 360
    step_images: int = 2048
    learning_rate_per_image: float = 0.1 / 256
    lr_warmup_epochs: int = 5
    momentum: float = 0.9
    label_smoothing: float = 0.1
    image_size: int = 224
    classes: int = 1000


RECIPE = Recipe()


@dataclass(frozen=True, slots=True)
class Size:
    """One published size.

    weight_decay is the L2 coefficient of the size's training recipe, auto_augment whether it uses AutoAugment; top1 and
    top5 are the size's published ImageNet accuracy as fractions; latency_ms is the published time of one image on
    PUBLISHED_LATENCY's processor. NaN where nothing is published. Source: PaddleClas,
    configs/ImageNet/PPLCNet/PPLCNet_x*.yaml and the PP-LCNet model page (docs/en/models/PP-LCNet_en.md).
    """

    scale: float
    weight_decay: float
    top1: float
    top5: float
    auto_augment: bool = False
    latency_ms: float = math.nan


@dataclass(frozen=True, slots=True)
class LatencySetting:
    """What the sizes' published latencies were measured on."""

    processor: str
    library: str
    threads: int
    batch_size: int
    image_size: int


PUBLISHED_LATENCY = LatencySetting("Intel Xeon Gold 6148", "oneDNN", 10, 1, 224)

SIZES = {
    "x0_25": Size(0.25, 3e-5, 0.5186, 0.7565, latency_ms=1.74),
    "x0_35": Size(0.35, 3e-5, 0.5809, 0.8083, latency_ms=1.92),
    "x0_5": Size(0.5, 3e-5, 0.6314, 0.8466, latency_ms=2.05),
    "x0_75": Size(0.75, 3e-5, 0.6818, 0.8830, latency_ms=2.29),
    "x1_0": Size(1.0, 3e-5, 0.7132, 0.9003, latency_ms=2.46),
    "x1_5": Size(1.5, 4e-5, 0.7371, 0.9153, latency_ms=3.19),
    "x2_0": Size(2.0, 4e-5, 0.7518, 0.9227, latency_ms=4.27),
    "x2_5": Size(2.5, 4e-5, 0.7660, 0.9300, auto_augment=True, latency_ms=5.39),
}
