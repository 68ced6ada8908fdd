from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali.auto_aug.auto_augment import get_reduced_image_net_policy

from pipelines.auto_augment import POLICY
from pipelines.dali_graphs import training_graph
from pipelines.image_lists import ImageList
from pipelines.settings import PipelineSettings
from tests.support.dali import (
    CPU,
    FLIPPED,
    GPU,
    WHOLE,
    coordinates,
    denormalised,
    evaluation,
    feed,
    noise,
    run,
    training,
    write_images,
)

PLAIN = PipelineSettings(batch_size=32, image_size=32, decode_threads=2)
AUGMENTED = dataclasses.replace(PLAIN, auto_augment=True)

# The paper's policy for ImageNet, as PaddleClas has it: operation, probability and level, twice. An equalize of
# probability 0 is left out, as are levels that mean nothing.
PUBLISHED = """
posterize 0.4 8 rotate 0.6 9        solarize 0.6 5 auto_contrast 0.6    equalize 0.8 equalize 0.6
posterize 0.6 7 posterize 0.6 6     equalize 0.4 solarize 0.2 4         equalize 0.4 rotate 0.8 8
solarize 0.6 3 equalize 0.6         posterize 0.8 5 equalize 1.0        rotate 0.2 3 solarize 0.6 8
equalize 0.6 posterize 0.4 6        rotate 0.8 8 color 0.4 0            rotate 0.4 9 equalize 0.6
equalize 0.8                        invert 0.6 equalize 1.0             color 0.6 4 contrast 1.0 8
rotate 0.8 8 color 1.0 2            color 0.8 8 solarize 0.8 7          sharpness 0.4 7 invert 0.6
shear_x 0.6 5 equalize 1.0          color 0.4 0 equalize 0.6            equalize 0.4 solarize 0.2 4
solarize 0.6 5 auto_contrast 0.6    invert 0.6 equalize 1.0             color 0.6 4 contrast 1.0 8
equalize 0.8 equalize 0.6
"""


def test_the_policy_has_the_published_sub_policies() -> None:
    assert POLICY == "reduced_image_net"
    policy = get_reduced_image_net_policy()
    found = [
        " ".join(
            f"{augmentation.name} {probability}" + ("" if level is None else f" {level}")
            for augmentation, probability, level in sub_policy
        )
        for sub_policy in policy.sub_policies
    ]
    assert found == re.split(r"\s{2,}|\n", PUBLISHED.strip())


def batches(tmp_path: Path, settings: PipelineSettings, count: int = 1) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Of the same picture, which is whole and never flipped, 32 times; labels are what the list says."""
    images = write_images(tmp_path, noise(1, 32, 32))
    images = ImageList(tmp_path, images.paths, (7,))
    return run(training_graph(feed(images, [0] * 32), WHOLE, settings, seed=2), count)


@pytest.mark.slow
def test_pixels_change_and_nothing_else(tmp_path: Path) -> None:
    ((plain, labels),) = batches(tmp_path, PLAIN)
    ((augmented, same_labels),) = batches(tmp_path, AUGMENTED)
    np.testing.assert_array_equal(labels, same_labels)
    assert (augmented.shape, augmented.dtype) == (plain.shape, plain.dtype)
    pixels = denormalised(augmented)
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-3)
    assert pixels.min() > -1e-3
    assert pixels.max() < 255.001
    # With these probabilities one image in seven stays as it is.
    changed = np.abs(augmented - plain).max(axis=(1, 2, 3)) > 0.01
    assert 16 <= changed.sum() < 32


def test_each_image_and_each_batch_has_its_own_augmentations(tmp_path: Path) -> None:
    first, second = (images for images, _ in batches(tmp_path, AUGMENTED, 2))
    assert len({image.tobytes() for image in first}) > 10
    assert any(not np.array_equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize(("dtype", "layout"), [("float16", "nchw"), ("float32", "nhwc")])
def test_every_type_and_layout_is_the_same_image(tmp_path: Path, dtype: str, layout: str) -> None:
    ((images, _),) = batches(tmp_path, AUGMENTED)
    ((others, _),) = batches(tmp_path, dataclasses.replace(AUGMENTED, dtype=dtype, layout=layout))
    if layout == "nhwc":
        others = others.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(others, images, rtol=0 if dtype == "float32" else 2**-11, atol=1e-6)


def test_the_flip_comes_before(tmp_path: Path) -> None:
    """What is rotated is the flipped image, so it is that of an image flipped in its file."""
    picture = coordinates(32, 32, 7)
    flipped_in_file = write_images(tmp_path, [picture, np.ascontiguousarray(picture[:, ::-1])])
    ((flipped, _),) = run(training_graph(feed(flipped_in_file, [0] * 32), FLIPPED, AUGMENTED, seed=2))
    ((as_it_is, _),) = run(training_graph(feed(flipped_in_file, [1] * 32), WHOLE, AUGMENTED, seed=2))
    np.testing.assert_array_equal(flipped, as_it_is)
    assert len({image.tobytes() for image in flipped}) > 10


@pytest.mark.parametrize("settings", [CPU, GPU])
def test_evaluation_is_without(settings: PipelineSettings) -> None:
    assert evaluation(dataclasses.replace(settings, auto_augment=True)) == evaluation(settings)


@pytest.mark.parametrize(("settings", "device"), [(CPU, "cpu"), (GPU, "gpu")])
def test_pixels_stay_on_the_device(settings: PipelineSettings, device: str) -> None:
    graph = training(dataclasses.replace(settings, auto_augment=True))
    names = ("Flip", "Rotate", "WarpAffine", "Saturation", "experimental__Equalize", "CropMirrorNormalize")
    found = {operator.name: operator for operator in graph.operators}
    assert {found[name].device for name in names} == {device}
    assert found["Flip"].inputs == ("Resize[0]",)
    assert found["Flip"].tensor_arguments == {"horizontal": "random__CoinFlip[0]"}
    assert found["CropMirrorNormalize"].arguments["mirror"] == 0


def test_dali_s_word_on_its_own_names_is_not_passed_on() -> None:
    """Its policy calls deprecated operators, and its warning ignores filters."""
    with warnings.catch_warnings(record=True) as told:
        training(dataclasses.replace(CPU, auto_augment=True))
    assert [str(warning.message) for warning in told] == []
