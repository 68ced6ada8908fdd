"""What is published about PP-LCNet: its recipe and each size; without Paddle, so that the command line is quick."""

from __future__ import annotations

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
    top5 are the size's published ImageNet accuracy as fractions. Source: PaddleClas,
    configs/ImageNet/PPLCNet/PPLCNet_x*.yaml and the PP-LCNet model page.
    """

    scale: float
    weight_decay: float
    top1: float
    top5: float
    auto_augment: bool = False


SIZES = {
    "x0_25": Size(0.25, 3e-5, 0.5186, 0.7565),
    "x0_35": Size(0.35, 3e-5, 0.5809, 0.8083),
    "x0_5": Size(0.5, 3e-5, 0.6314, 0.8466),
    "x0_75": Size(0.75, 3e-5, 0.6818, 0.8830),
    "x1_0": Size(1.0, 3e-5, 0.7132, 0.9003),
    "x1_5": Size(1.5, 4e-5, 0.7371, 0.9153),
    "x2_0": Size(2.0, 4e-5, 0.7518, 0.9227),
    "x2_5": Size(2.5, 4e-5, 0.7660, 0.9300, auto_augment=True),
}
