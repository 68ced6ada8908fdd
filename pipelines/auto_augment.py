"""AutoAugment (Cubuk et al., arXiv:1805.09501) in training, by DALI's own operators."""

from __future__ import annotations

import warnings
from typing import Any

from nvidia.dali.auto_aug.auto_augment import auto_augment

# Of DALI's policies the one whose 25 sub-policies are those that PaddleClas draws from. DALI's "image_net" is another
# list (that of TensorFlow's EfficientNet), with solarize_add and translations.
POLICY = "reduced_image_net"
# What rotating and shearing leave empty is grey, in PaddleClas too.
FILL_LEVEL = 128
# The policy's operators that nothing else in our graphs uses, by their schemas: a graph with all of them augments.
SCHEMAS = ("Equalize", "Rotate", "Saturation", "WarpAffine")


def augmented(images: Any) -> Any:
    """Within a graph made with enable_conditionals: each image [height, width, 3], uint8, by a sub-policy of its own.

    The sub-policies, their probabilities and levels are those of PaddleClas's ImageNetPolicy
    (ppcls/data/preprocess/ops/autoaugment.py), and so is the grey that fills. What a level means is DALI's (2.4,
    auto_aug/auto_augment.py), read from both sources:

    - DALI spreads levels over 11 steps, PaddleClas over 10: rotating by level 9 is 27 degrees, in PaddleClas 30;
      shearing by level 5 moves 0.15, in PaddleClas 0.167.
    - DALI rotates either way, PaddleClas always the same; DALI rotates and shears by bilinear interpolation, PaddleClas
      rotates to the nearest pixel and shears bicubically.
    - Posterize of levels 5 to 8 keeps 2, 2, 3 and 3 bits, in PaddleClas 6, 5, 5 and 4.
    - Solarize inverts from level x 25.6 up, so that higher levels do less; in PaddleClas from 256 - level x 28.4 up.
    - Color, contrast and sharpness multiply by 0.1 + level x 0.18, in PaddleClas by 1 - level x 0.1 or 1 + level x 0.1.
    - Equalize is OpenCV's, in PaddleClas Pillow's, which rounds otherwise.
    """
    # The policy calls operators by names that DALI has deprecated, and DALI says so at every such call, whatever
    # filters are set.
    with warnings.catch_warnings(record=True):
        return auto_augment(images, policy_name=POLICY, fill_value=FILL_LEVEL)
