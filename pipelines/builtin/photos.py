"""The built-in set `photos`: JPEGs as heavy as ImageNet's, so that throughput can be measured without ImageNet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.builtin.cache import make_once
from pipelines.builtin.declared import BuiltinSet

NAME = "photos"
VERSION = 1

# Two batches of the published 512, and at 116 MB small enough for any page cache: the set measures decoding, not disks.
TRAIN_IMAGES = 1024
VAL_IMAGES = 128
SEED = 20260224

# The model keeps the reference's 1000 outputs, whose last layer is part of its cost.
NUM_CLASSES = 1000

# What ImageNet's training set is like, and what this set reproduces:
# - about 114.7 KB a file: ILSVRC2012_img_train.tar has 147,897,477,120 bytes, that is 115,440 for each of 1,281,167
#   images, of which about 770 are tar headers and padding;
# - about 469x387 pixels in the mean, mostly what Flickr served: 500 pixels on the long side at 4:3 or 3:2. The shares
#   are a rough estimate, not counted;
# - "the vast majority" at quality 96 without chroma subsampling ("Compression in the ImageNet Dataset", 2021, a survey
#   of all its files). The two source photographs come from Flickr too and are such files themselves.
# Together that is about 5 bits per pixel, reached without added noise.
COMMON_SHAPES = {(500, 375): 0.44, (375, 500): 0.12, (500, 333): 0.14, (333, 500): 0.05}
# All others are drawn uniformly, the short side from 256 pixels (evaluation's short side) and both up to the source's
# 640x427: no image is enlarged, because enlarged images compress better than photographs.
OTHER_LONG_SIDE_PIXELS, OTHER_SHORT_SIDE_PIXELS = (360, 640), (256, 427)
OTHER_PORTRAIT_SHARE = 0.2

JPEG_QUALITY, JPEG_SUBSAMPLING = 96, "4:4:4"
# The rest represents files from other origins, with libjpeg's usual subsampling and a common quality. Its share is
# chosen so that the mean size of a file is ImageNet's.
OTHER_JPEG_SHARE, OTHER_JPEG_QUALITY, OTHER_JPEG_SUBSAMPLING = 0.08, 90, "4:2:0"

SETTINGS = f"""\
name = "{NAME}"
num_classes = {NUM_CLASSES}
"""


@dataclass(frozen=True, slots=True)
class _Crop:
    """One image to write: a window, in pixels, of a source photograph, and how to encode it."""

    photo: int
    portrait: bool
    left: int
    top: int
    width: int
    height: int
    flip: bool
    quality: int
    subsampling: str


def _draw_shape(random: np.random.Generator) -> tuple[int, int]:
    """Width and height in pixels, distributed like ImageNet's."""
    ticket = random.random()
    for shape, share in COMMON_SHAPES.items():
        if ticket < share:
            return shape
        ticket -= share
    long_side = int(random.integers(*OTHER_LONG_SIDE_PIXELS, endpoint=True))
    shortest, longest = OTHER_SHORT_SIDE_PIXELS
    short_side = int(random.integers(shortest, min(long_side, longest), endpoint=True))
    return (short_side, long_side) if random.random() < OTHER_PORTRAIT_SHARE else (long_side, short_side)


def _draw_crop(random: np.random.Generator, photo_size: tuple[int, int]) -> _Crop:
    """A window of a photograph of photo_size (width, height); portrait windows are cut from it turned by 90 degrees."""
    width, height = _draw_shape(random)
    portrait = height > width
    photo_width, photo_height = photo_size[::-1] if portrait else photo_size
    other = random.random() < OTHER_JPEG_SHARE
    return _Crop(
        photo=int(random.integers(2)),
        portrait=portrait,
        left=int(random.integers(photo_width - width + 1)),
        top=int(random.integers(photo_height - height + 1)),
        width=width,
        height=height,
        flip=bool(random.random() < 0.5),
        quality=OTHER_JPEG_QUALITY if other else JPEG_QUALITY,
        subsampling=OTHER_JPEG_SUBSAMPLING if other else JPEG_SUBSAMPLING,
    )


def _draw_new_crop(random: np.random.Generator, photo_size: tuple[int, int], drawn: set[_Crop]) -> _Crop:
    """Draw a crop that is not among those drawn, and add it to them: no image is in the set twice."""
    while (crop := _draw_crop(random, photo_size)) in drawn:
        pass
    drawn.add(crop)
    return crop


def _write(crop: _Crop, photos: list[npt.NDArray[np.uint8]], file: Path) -> None:
    photo = photos[crop.photo]
    if crop.portrait:
        photo = np.rot90(photo)
    window = photo[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    if crop.flip:
        window = window[:, ::-1]
    Image.fromarray(np.ascontiguousarray(window)).save(file, "JPEG", quality=crop.quality, subsampling=crop.subsampling)


def build(folder: Path) -> None:
    """Write the set into folder: train_list.txt, val_list.txt and their JPEGs, the same bytes each time.

    The images are windows of the two photographs that scikit-learn includes (640x427, CC BY). Labels run evenly over
    0..999 and have no meaning: the set is for throughput only, and its val images show what train images show.
    """
    from sklearn.datasets import load_sample_images  # here, because it takes a second and only the first run needs it

    photos: list[npt.NDArray[np.uint8]] = load_sample_images().images
    height, width = photos[0].shape[:2]
    random = np.random.default_rng(SEED)
    drawn: set[_Crop] = set()
    with ThreadPoolExecutor() as pool:
        for split, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES)):
            (folder / split).mkdir()
            names = [f"{split}/{index:04d}.jpg" for index in range(count)]
            # Drawn in order first and then written by all cores, so that the result does not depend on their number.
            crops = [_draw_new_crop(random, (width, height), drawn) for _ in names]
            for _ in pool.map(_write, crops, [photos] * count, [folder / name for name in names]):
                pass  # raises what a thread raised
            lines = [f"{name} {index * NUM_CLASSES // count}\n" for index, name in enumerate(names)]
            (folder / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "dataset.toml").write_text(SETTINGS, encoding="utf-8")


def folder() -> Path:
    """The set's folder, made on first use in a few seconds. Raises CacheFolderError without a usable cache."""
    return make_once(NAME, VERSION, build)


SET = BuiltinSet(folder, {"train": TRAIN_IMAGES, "val": VAL_IMAGES}, NUM_CLASSES, f"{NUM_CLASSES:,}, from dataset.toml")
