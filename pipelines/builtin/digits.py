"""The built-in set `digits`: handwritten digits that a CPU learns in minutes, so that top-1 can be checked anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.augmentation import Augmentation
from pipelines.builtin.cache import make_once
from pipelines.builtin.declared import BuiltinSet

NAME = "digits"
VERSION = 1

# scikit-learn's digits are 8x8. PP-LCNet halves its input five times, so 8x8 would be 1x1 after the third; 64x64 leaves
# 2x2 for the last stage and costs a twelfth of the arithmetic of 224x224.
IMAGE_SIZE_PIXELS = 64

# Compression artefacts on strokes a few pixels wide would be part of what is learnt; at 95 they are invisible.
JPEG_QUALITY = 95

# Every fifth image of each class is for validation: 355 images, so one image is 0.3 % of top-1.
HELD_OUT_EVERY = 5

# A mirrored digit is not a digit, so there are no flips. A crop of 8 % of a digit is an unrecognisable piece of a
# stroke; from 35 % on, enough is left to distinguish it from the others.
SETTINGS = """\
name = "digits"
num_classes = 10

[augmentation]
flip_probability = 0.0
crop_area_min = 0.35
"""


def build(folder: Path) -> None:
    """Write the set's 1,797 images into folder as train/<digit>/ and val/<digit>/, the same bytes each time.

    The images are the test part of UCI's "Optical Recognition of Handwritten Digits", which scikit-learn includes. A
    file is named after its index there.
    """
    from sklearn.datasets import load_digits  # here, because it takes a second and only the first run needs it

    digits = load_digits()
    # Ink runs from 0 to 16 in the source.
    ink = np.round(digits.images * (255 / 16)).astype(np.uint8)
    seen_of_class = [0] * 10
    for index, (image, target) in enumerate(zip(ink, digits.target, strict=True)):
        digit = int(target)
        seen_of_class[digit] += 1
        split = "val" if seen_of_class[digit] % HELD_OUT_EVERY == 0 else "train"
        class_folder = folder / split / str(digit)
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((IMAGE_SIZE_PIXELS, IMAGE_SIZE_PIXELS), Image.Resampling.BICUBIC).convert(
            "RGB"
        ).save(class_folder / f"{index:04d}.jpg", quality=JPEG_QUALITY)
    (folder / "dataset.toml").write_text(SETTINGS, encoding="utf-8")


def folder() -> Path:
    """The set's folder, made on first use in about a second. Raises CacheFolderError without a usable cache."""
    return make_once(NAME, VERSION, build)


SET = BuiltinSet(
    folder,
    {"train": 1442, "val": 355},
    10,
    "10, from dataset.toml; labels from folder names, as numbers",
    Augmentation(flip_probability=0.0, crop_area_min=0.35),
)
