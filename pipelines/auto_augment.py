"""AutoAugment (Cubuk et al., arXiv:1805.09501) in training, by DALI's own operators."""

from __future__ import annotations

import warnings
from typing import Any

from nvidia.dali.auto_aug.auto_augment import auto_augment

# The DALI policy whose 25 sub-policies are those that PaddleClas draws from. DALI's "image_net" is a different list
# (that of TensorFlow's EfficientNet), with solarize_add and translations.
POLICY = "reduced_image_net"
# The areas that rotating and shearing leave empty become grey, as in PaddleClas.
FILL_LEVEL = 128
# The schemas of the policy's operators that nothing else in our graphs uses: a graph that has all of them augments.
SCHEMAS = ("Equalize", "Rotate", "Saturation", "WarpAffine")


def augmented(images: Any) -> Any:
    """Augment each image [height, width, 3], uint8, by its own sub-policy, in a graph made with enable_conditionals.

    The sub-policies, their probabilities and levels, and the grey of empty areas are those of PaddleClas's
    ImageNetPolicy (ppcls/data/preprocess/ops/autoaugment.py). What a level means is defined by DALI (2.4,
    auto_aug/auto_augment.py). The differences, read from both sources:

    - DALI spreads levels over 11 steps, PaddleClas over 10: rotating by level 9 is 27 degrees, in PaddleClas 30;
      shearing by level 5 moves 0.15, in PaddleClas 0.167.
    - DALI rotates in either direction, PaddleClas always in the same one; DALI rotates and shears by bilinear
      interpolation, PaddleClas rotates to the nearest pixel and shears bicubically.
    - Posterize of levels 5 to 8 keeps 2, 2, 3 and 3 bits, in PaddleClas 6, 5, 5 and 4.
    - Solarize inverts from level x 25.6 up, so that higher levels do less; in PaddleClas from 256 - level x 28.4 up.
    - Color, contrast and sharpness multiply by 0.1 + level x 0.18, in PaddleClas by 1 - level x 0.1 or 1 + level x 0.1.
    - Equalize is OpenCV's, in PaddleClas Pillow's, which rounds differently.
    """
    # The policy calls operators by names that DALI has deprecated, and DALI warns at every such call, whatever filters
    # are set.
    with warnings.catch_warnings(record=True):
        return auto_augment(images, policy_name=POLICY, fill_value=FILL_LEVEL)
