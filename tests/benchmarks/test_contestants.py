"""Every loader that benchmarks compare makes the same kind of batch: checked on images of one colour each.

Whatever is cropped, resized and mirrored of such an image, its colour stays, so that each pixel's value is known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.contestants import CONTESTANTS, Contestant
from pipelines.augmentation import MEAN, STD
from pipelines.dataset import Dataset
from pipelines.image_lists import ImageList
from pipelines.settings import FUSED_RESIZE, PipelineSettings
from tests.support.data_sets import a_dataset

COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (128, 128, 128), (0, 0, 0), (255, 255, 255)]
BATCH_SIZE, SIDE = 3, 16
# Of JPEG's conversion between colours, in grey levels.
TOLERANCE = 4


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """An image of each colour, with the colour's number as its label."""
    for label, colour in enumerate(COLOURS):
        Image.new("RGB", (48, 40), colour).save(tmp_path / f"{label}.jpg", quality=95)
    images = ImageList(tmp_path, tuple(f"{label}.jpg" for label in range(len(COLOURS))), tuple(range(len(COLOURS))))
    return a_dataset(tmp_path, len(COLOURS), {"train": images})


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_contestant_makes_normalised_images_with_their_labels(name: str, dataset: Dataset) -> None:
    contestant = CONTESTANTS[name]
    if obstacle := contestant.obstacle():
        pytest.skip(f"{name} {obstacle}")
    loader = contestant.make(dataset, PipelineSettings(BATCH_SIZE, SIDE, workers=2, resize=FUSED_RESIZE))
    seen = set()
    for _ in range(8):
        batch = next(loader)
        images, labels = batch.images.numpy(), batch.labels.numpy()
        assert (images.shape, images.dtype) == ((BATCH_SIZE, 3, SIDE, SIDE), np.float32)
        assert (labels.shape, labels.dtype, batch.valid_images) == ((BATCH_SIZE,), np.int64, BATCH_SIZE)
        levels = 255 * (images.transpose(0, 2, 3, 1) * np.array(STD) + np.array(MEAN))
        expected = np.array([COLOURS[label] for label in labels]).reshape(BATCH_SIZE, 1, 1, 3)
        assert np.abs(levels - expected).max() <= TOLERANCE
        seen |= set(labels.tolist())
    loader.close()
    assert seen == set(range(len(COLOURS)))


def test_why_a_contestant_cannot_take_part() -> None:
    def fail() -> None:
        raise RuntimeError("libavcodec.so: cannot open\nEnable DEBUG logging")

    def make(*_: object) -> object:
        raise AssertionError("it is not to be made")

    assert Contestant(make, ("no_such_module", "json")).obstacle() == "not installed (no_such_module)"  # type: ignore[arg-type]
    assert Contestant(make, ("json",), fail).obstacle() == "can't be loaded: libavcodec.so: cannot open"  # type: ignore[arg-type]
    assert Contestant(make, ("json",)).obstacle() == ""  # type: ignore[arg-type]
