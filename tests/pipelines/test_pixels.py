"""The graphs' pixels against those of OpenCV and PaddleClas, in grey levels of 0 to 255 before they are normalised.

The reference is numpy (opencv.py) on what Pillow decodes. OpenCV itself is no dependency of the project; compared once
with opencv-python-headless 5.0.0 on the first 32 photos of val:

- cv2.imdecode and Pillow decode the same pixels (difference 0);
- cv2.resize, whose weights have 11 bits, differs from the reference by 0.11 levels in the mean of an image (0.12 in the
  worst) and by 1 at most, resized to the evaluation's short side as well as from a region to 224 x 224;
- OpenCV from file to centre crop differs from the evaluation graph, over the 16 photos below, by 0.115 levels in the
  mean, 0.122 in the mean of the worst image, and 1 at most: that is OpenCV's 11 bits. With DALI's preprocessing it is
  2.03, 4.08 and 72.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import types
from PIL import Image

from pipelines import dali_graphs as graphs
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import file_name
from pipelines.dali_graphs import decoding_graph, evaluation_graph, training_graph
from pipelines.dataset import open_dataset
from pipelines.image_lists import ImageList
from pipelines.settings import PipelineSettings
from tests.support.dali import WHOLE, denormalised, feed, run, write_images
from tests.support.opencv import Pixels, evaluated, resized

# 16 photos of val, of several shapes, among them some with 4:2:0 chroma (see test_the_photos_are_of_both_kinds).
FIRST, COUNT = 24, 16

Photos = tuple[ImageList, list[Pixels]]


@pytest.fixture(scope="module")
def photos(builtin_cache: Path) -> Photos:
    """The files, and what Pillow decodes."""
    val = open_dataset("photos").val
    assert val is not None
    chosen = ImageList(val.root, val.paths[FIRST : FIRST + COUNT], val.labels[FIRST : FIRST + COUNT])
    pictures = []
    for path in chosen.paths:
        with Image.open(chosen.root / path) as image:
            pictures.append(np.array(image.convert("RGB")))
    return chosen, pictures


def differences(ours: Any, theirs: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each image's mean and greatest difference."""
    pairs = [np.abs(np.asarray(a, np.float64) - b) for a, b in zip(ours, theirs, strict=True)]
    return np.array([pair.mean() for pair in pairs]), np.array([pair.max() for pair in pairs])


def settings(count: int, preprocessing: str = "paddleclas") -> PipelineSettings:
    return PipelineSettings(count, image_size=224, decode_threads=2, preprocessing=preprocessing)


def evaluation(files: ImageList, preprocessing: str = "paddleclas") -> NDArray[np.float64]:
    count = len(files)
    ((images, _),) = run(evaluation_graph(feed(files, range(count)), settings(count, preprocessing)))
    return denormalised(images)


def test_the_photos_are_of_both_kinds(photos: Photos) -> None:
    files, pictures = photos
    subsampled = 0
    for path in files.paths:
        with Image.open(files.root / path) as image:
            subsampled += image.layer[0][1:3] == (2, 2)
    assert 1 <= subsampled < COUNT
    assert len({picture.shape for picture in pictures}) >= 4
    assert any((round(256 / min(p.shape[:2]) * max(p.shape[:2])) - 224) % 2 for p in pictures)


def test_the_cpu_decoder_s_pixels_are_libjpeg_s(photos: Photos) -> None:
    """So nothing of what follows is due to decoding."""
    files, pictures = photos
    names = [file_name(f"{files.root}/{path}") for path in files.paths]
    pipeline = decoding_graph(lambda: names, settings(COUNT))
    pipeline.build()
    (decoded,) = pipeline.run()
    _, most = differences([np.array(decoded.at(index)) for index in range(COUNT)], pictures)
    assert most.max() == 0


def test_evaluation_has_paddleclas_s_pixels(photos: Photos) -> None:
    """Measured: 0.0001 levels in the mean, 0.0004 in the mean of the worst image, 1 at most (what rounds otherwise).

    With DALI's own rounding of the crop's place and its subpixel_scale the mean is 7.3, over 32 photos.
    """
    files, pictures = photos
    means, most = differences(evaluation(files), map(evaluated, pictures))
    assert means.max() < 0.01
    assert most.max() < 1.001


def test_smoothing_is_told_from_none_in_evaluation(photos: Photos) -> None:
    """Measured: 2.0 levels in the mean, from 0.95 to 4.1 in an image's, and at least 35 somewhere in each."""
    files, pictures = photos
    means, most = differences(evaluation(files, "dali"), map(evaluated, pictures))
    assert means.min() > 0.5
    assert most.min() > 20


# Height and width: even and odd, as large as the crop, small, large, and of 1 to 67.
SHAPES = [
    *((375, 500), (500, 333), (333, 500), (341, 257), (256, 341), (224, 224), (255, 255), (300, 301), (100, 400)),
    *((32, 1023), (768, 1025), (30, 2001), (613, 389), (67, 61), (231, 787)),
]


def enlarged(picture: Pixels, shape: tuple[int, int]) -> Pixels:
    return np.array(Image.fromarray(picture).resize(shape[::-1], Image.Resampling.BICUBIC))


def test_evaluation_rounds_sides_and_places_as_paddleclas_does(tmp_path: Path, photos: Photos) -> None:
    pictures = [enlarged(photos[1][0], shape) for shape in SHAPES]
    means, most = differences(evaluation(write_images(tmp_path, pictures)), map(evaluated, pictures))
    assert dict(zip(SHAPES, most > 1.001, strict=True)) == dict.fromkeys(SHAPES, False)
    assert means.max() < 0.02


def test_a_side_of_exactly_a_half_is_rounded_up(tmp_path: Path, photos: Photos) -> None:
    """681 pixels become 340.5, which Python rounds to 340 and DALI to 341; of 683 both make 342."""
    pictures = [enlarged(photos[1][0], (512, width)) for width in (681, 683)]
    means, _ = differences(evaluation(write_images(tmp_path, pictures)), map(evaluated, pictures))
    assert means[0] > 0.5
    assert means[1] < 0.02


REGIONS = [
    ((0, 0), (250, 300)),
    ((13, 21), (231, 179)),
    ((3, 0), (97, 224)),
    ((40, 51), (60, 71)),
    ((100, 100), (1, 9)),
]


@pytest.mark.parametrize(("anchor", "shape"), REGIONS)
def test_training_resizes_a_region_as_opencv_does(
    monkeypatch: pytest.MonkeyPatch, photos: Photos, anchor: tuple[int, int], shape: tuple[int, int]
) -> None:
    """Measured: 0.0001 levels in the mean, 0.002 in the mean of the worst image, 1 at most.

    Told from DALI's preprocessing where the region is larger than 224 either way: 0.24 and 2.4 in the worst image's
    mean.
    """
    files, pictures = photos

    def constant(pair: tuple[int, int]) -> Any:
        return types.Constant(np.array(pair, np.float32), device="cpu")

    monkeypatch.setattr(graphs, "draw_crop", lambda *_: (constant(anchor), constant(shape)))
    top, left = anchor
    bottom, right = top + shape[0], left + shape[1]
    expected = [resized(picture[top:bottom, left:right], 224, 224) for picture in pictures]

    def difference(preprocessing: str) -> tuple[float, float]:
        graph = training_graph(feed(files, range(COUNT)), WHOLE, settings(COUNT, preprocessing), seed=1)
        means, most = differences(denormalised(run(graph)[0][0]), expected)
        return float(means.max()), float(most.max())

    mean, most = difference("paddleclas")
    assert mean < 0.01
    assert most < 1.001
    other_mean, _ = difference("dali")
    if max(shape) > 224:
        assert other_mean > 0.1
    else:
        assert other_mean < 0.01


def test_a_whole_photo_in_training_is_opencv_s(photos: Photos) -> None:
    """The region that is drawn itself, flipped: the largest square is the whole of the short side."""
    files, pictures = photos
    square = [index for index, picture in enumerate(pictures) if picture.shape[0] < picture.shape[1]][:1]
    graph = training_graph(
        feed(files, square), Augmentation(1.0, 1.0, 1.0, 1.0, flip_probability=1.0), settings(1), seed=1
    )
    ((images, _),) = run(graph)
    picture = pictures[square[0]]
    side = picture.shape[0]
    closest = min(
        float(np.abs(denormalised(images)[0][:, ::-1] - resized(picture[:, left : left + side], 224, 224)).mean())
        for left in range(picture.shape[1] - side + 1)
    )
    assert closest < 0.01
