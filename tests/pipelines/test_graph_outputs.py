"""What DALI's graphs make of pictures."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from harness import ROOT
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import file_name
from pipelines.dali_graphs import decoding_graph, evaluation_graph, training_graph
from pipelines.dataset import open_dataset
from pipelines.image_lists import ImageList
from pipelines.settings import DALI_RESIZE, FUSED_RESIZE, PipelineSettings
from tests.support.dali import (
    CUSTOM,
    FLIPPED,
    WHOLE,
    coordinates,
    denormalised,
    feed,
    noise,
    plain,
    run,
    write_images,
)

Settings = Callable[..., PipelineSettings]


@pytest.fixture(params=[FUSED_RESIZE, DALI_RESIZE])
def settings_of(request: pytest.FixtureRequest) -> Settings:
    """Settings with each of the ways to resize."""
    return partial(PipelineSettings, resize=request.param)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("layout", "shape"), [("nchw", (3, 3, 32, 32)), ("nhwc", (3, 32, 32, 3))])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_shapes_and_types_of_a_batch(
    tmp_path: Path,
    dtype: str,
    layout: str,
    shape: tuple[int, ...],
    mode: str,
    settings_of: Settings,
) -> None:
    pictures = write_images(tmp_path, noise(4, 40, 52), "jpg")
    pictures = ImageList(tmp_path, pictures.paths, (7, 900, 21_840, 3))

    def batch(settings: PipelineSettings) -> tuple[NDArray[Any], NDArray[Any]]:
        if mode == "training":
            return run(training_graph(feed(pictures, (2, 0, 1)), Augmentation(), settings, seed=1))[0]
        return run(evaluation_graph(feed(pictures, (2, 0, 1)), settings))[0]

    images, labels = batch(settings_of(batch_size=3, image_size=32, dtype=dtype, layout=layout))
    assert images.shape == shape
    assert images.dtype == dtype
    assert labels.shape == (3,)
    assert labels.dtype == np.int64
    assert labels.tolist() == [21_840, 7, 900]

    plain_images, plain_labels = batch(settings_of(batch_size=3, image_size=32))
    if layout == "nhwc":
        plain_images = plain_images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(labels, plain_labels)
    # float16 has 11 bits of mantissa.
    np.testing.assert_allclose(images, plain_images, rtol=0 if dtype == "float32" else 2**-11, atol=1e-6)


# JPEG rounds the colour in YCbCr, which is off by 2 levels at most.
@pytest.mark.parametrize(("suffix", "levels"), [("png", 0.001), ("jpg", 2.0)])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_plain_image_has_the_recipe_s_values(
    tmp_path: Path, suffix: str, levels: float, mode: str, settings_of: Settings
) -> None:
    pictures = write_images(tmp_path, [plain((255, 128, 0))], suffix)
    settings = settings_of(batch_size=1, image_size=32)
    graph = (
        training_graph(feed(pictures, [0]), Augmentation(), settings, seed=1)
        if mode == "training"
        else evaluation_graph(feed(pictures, [0]), settings)
    )
    ((images, _),) = run(graph)
    # (255 - 123.675) / 58.395, (128 - 116.28) / 57.12, (0 - 103.53) / 57.375
    for channel, value in enumerate((2.24891, 0.20518, -1.80444)):
        np.testing.assert_allclose(images[0, channel], value, rtol=0, atol=levels / 57 + 1e-5)


@pytest.mark.parametrize("portrait", [False, True])
def test_evaluation_takes_the_centre_of_an_image_256_224ths_its_size(
    tmp_path: Path, portrait: bool, settings_of: Settings
) -> None:
    """At 56 pixels the short side is 64, so that 128 x 256 pixels halve and the crop is what 112 x 112 of them became.

    Halving without smoothing averages two pixels, so a frame of two is one pixel of pure red.
    """
    picture = plain((0, 0, 0), 128, 256)
    picture[8:120, 72:184] = (255, 0, 0)
    picture[10:118, 74:182] = (0, 255, 255)
    picture[12, 76] = picture[12, 77] = picture[13, 76] = picture[13, 77] = (0, 0, 255)
    expected = plain((255, 0, 0), 56, 56)
    expected[1:55, 1:55] = (0, 255, 255)
    expected[2, 2] = (0, 0, 255)
    if portrait:
        picture = np.ascontiguousarray(picture.transpose(1, 0, 2))
    pictures = write_images(tmp_path, [picture])
    ((images, _),) = run(evaluation_graph(feed(pictures, [0]), settings_of(batch_size=1, image_size=56)))
    np.testing.assert_allclose(denormalised(images)[0], expected, rtol=0, atol=0.001)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_the_files_come_as_they_are_fed(tmp_path: Path, mode: str, settings_of: Settings) -> None:
    colours: list[tuple[int, int, int]] = [(40 * index, 10, 200) for index in range(6)]
    pictures = write_images(tmp_path, [plain(colour) for colour in colours])
    settings = settings_of(batch_size=2, image_size=8, decode_threads=2)
    files = feed(pictures, (4, 0), (0, 5), (2, 2))
    graph = (
        training_graph(files, Augmentation(), settings, seed=1)
        if mode == "training"
        else evaluation_graph(files, settings)
    )
    for (images, labels), expected in zip(run(graph, 7), itertools.cycle([(4, 0), (0, 5), (2, 2)]), strict=False):
        assert tuple(labels) == expected
        np.testing.assert_allclose(denormalised(images)[:, 4, 4], [colours[index] for index in expected], atol=0.001)


def test_whole_images_come_from_the_graph_that_only_decodes(tmp_path: Path) -> None:
    pictures = [*noise(1, 24, 32), *noise(1, 40, 16)]
    files = write_images(tmp_path, pictures)
    names = [file_name(f"{tmp_path}/{path}") for path in files.paths]
    pipeline = decoding_graph(lambda: names, PipelineSettings(batch_size=2, image_size=1, decode_threads=2))
    pipeline.build()
    for _ in range(3):
        (decoded,) = pipeline.run()
        for index, picture in enumerate(pictures):
            np.testing.assert_array_equal(np.array(decoded.at(index)), picture)


def turned_by_exif(folder: Path, orientation: int) -> tuple[ImageList, Image.Image]:
    """A JPEG of 48 x 24 pixels as a camera writes it, and the picture as it is to be seen."""
    colours = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], dtype=np.uint8)
    picture = Image.fromarray(colours.repeat(12, axis=0).repeat(24, axis=1))
    exif = Image.Exif()
    exif[0x112] = orientation
    picture.save(folder / "turned.jpg", quality=95, subsampling=0, exif=exif)
    with Image.open(folder / "turned.jpg") as image:
        seen = ImageOps.exif_transpose(image).convert("RGB")
    return ImageList(folder, ("turned.jpg",), (0,)), seen


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_an_image_that_its_camera_turned_is_turned_back(
    tmp_path: Path, mode: str, orientation: int, settings_of: Settings
) -> None:
    files, seen = turned_by_exif(tmp_path, orientation)
    assert seen.size == ((48, 24) if orientation < 5 else (24, 48))
    settings = settings_of(batch_size=1, image_size=24)
    aspect = seen.width / seen.height
    whole_image = dataclasses.replace(WHOLE, aspect_min=aspect, aspect_max=aspect)
    graph = (
        training_graph(feed(files, [0]), whole_image, settings, seed=1)
        if mode == "training"
        else evaluation_graph(feed(files, [0]), settings)
    )
    ((images, _),) = run(graph)
    whole = seen.resize((24, 24)) if mode == "training" else ImageOps.fit(seen, (24, 24))
    corners = np.array(whole, np.float64)[[3, 3, 20, 20], [3, 20, 3, 20]]
    np.testing.assert_allclose(denormalised(images)[0][[3, 3, 20, 20], [3, 20, 3, 20]], corners, atol=12)


FORMATS: dict[str, dict[str, Any]] = {"jpg": {"quality": 90}, "png": {}, "webp": {"quality": 90}, "tiff": {}}


def oriented_images(folder: Path) -> ImageList:
    """Noise of 40 x 24 pixels in each format, with each of the orientations that EXIF knows."""
    names = []
    for suffix, options in FORMATS.items():
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x112] = orientation
            names.append(f"{orientation}.{suffix}")
            Image.fromarray(noise(9, 24, 40)[orientation]).save(folder / names[-1], exif=exif, **options)
    return ImageList(folder, tuple(names), tuple(range(len(names))))


@pytest.mark.parametrize(
    ("preprocessing", "resize"), [("paddleclas", DALI_RESIZE), ("paddleclas", FUSED_RESIZE), ("dali", DALI_RESIZE)]
)
def test_whole_images_that_are_cropped_have_the_pixels_of_decoded_regions(
    tmp_path: Path, preprocessing: str, resize: str
) -> None:
    """To the bit, for photos and for every orientation and format that decoders turn."""
    oriented, photos = oriented_images(tmp_path), open_dataset("photos").train
    for images, count in ((oriented, len(oriented)), (photos, 64)):
        made = []
        for region in (True, False):
            settings = PipelineSettings(
                count, 48, decode_region=region, decode_threads=2, preprocessing=preprocessing, resize=resize
            )
            batches = feed(images, range(count))
            made.append(
                [
                    *run(training_graph(batches, CUSTOM, settings, seed=5), 3),
                    *run(evaluation_graph(feed(images, range(count)), settings)),
                ]
            )
        for (cropped, _), (whole, _) in zip(*made, strict=True):
            np.testing.assert_array_equal(whole, cropped)


def test_training_resizes_the_crop_by_bilinear_interpolation_without_smoothing(
    tmp_path: Path, settings_of: Settings
) -> None:
    """A quarter of the pixels in each direction: every result is the mean of the middle 2 x 2 of its 4 x 4."""
    (picture,) = noise(1)
    pictures = write_images(tmp_path, [picture])
    ((images, _),) = run(training_graph(feed(pictures, [0]), WHOLE, settings_of(batch_size=1, image_size=16), seed=1))
    middles = picture.reshape(16, 4, 16, 4, 3)[:, 1:3, :, 1:3].mean(axis=(1, 3))
    np.testing.assert_allclose(denormalised(images)[0], middles, rtol=0, atol=0.51)


def test_flipping_always_mirrors_flipping_never(tmp_path: Path, settings_of: Settings) -> None:
    pictures = write_images(tmp_path, noise(4), "jpg")
    settings = settings_of(batch_size=4, image_size=32)
    files = ((3, 1, 0, 2), (0, 0, 1, 3))
    never = run(training_graph(feed(pictures, *files), WHOLE, settings, seed=1), 3)
    always = run(training_graph(feed(pictures, *files), FLIPPED, settings, seed=1), 3)
    for (images, labels), (mirrored, mirrored_labels) in zip(never, always, strict=True):
        np.testing.assert_array_equal(labels, mirrored_labels)
        np.testing.assert_array_equal(images, mirrored[:, :, :, ::-1])
        assert np.abs(images - mirrored).max() > 1


def test_each_image_is_flipped_by_its_own_toss(tmp_path: Path, settings_of: Settings) -> None:
    pictures = write_images(tmp_path, [coordinates(16, 16, 10)])
    augmentation = dataclasses.replace(WHOLE, flip_probability=0.25)
    settings = settings_of(batch_size=50, image_size=16)
    flipped = [
        bool(image[8, 0, 0] > image[8, 15, 0])
        for images, _ in run(training_graph(feed(pictures, [0] * 50), augmentation, settings, seed=3), 8)
        for image in denormalised(images)
    ]
    # Of 400 tosses 100 are expected, with a standard deviation of 8.7.
    assert 65 <= sum(flipped) <= 135
    assert len({tuple(flipped[start : start + 50]) for start in range(0, 400, 50)}) == 8


@pytest.mark.parametrize(
    ("area", "aspect", "width", "height"),
    [(0.25, 1.0, 32, 32), (0.5, 2.0, 64, 32), (0.5, 0.5, 32, 64), (1.0, 1.0, 64, 64)],
)
def test_crops_have_the_area_and_the_width_over_height_asked_for(
    tmp_path: Path,
    area: float,
    aspect: float,
    width: int,
    height: int,
    settings_of: Settings,
) -> None:
    pictures = write_images(tmp_path, [coordinates(64, 64, 4)])
    augmentation = Augmentation(area, area, aspect, aspect, flip_probability=0.0)
    settings = settings_of(batch_size=16, image_size=32)
    ((images, _),) = run(training_graph(feed(pictures, [0] * 16), augmentation, settings, seed=1))
    pixels = denormalised(images)
    # Between pixels 1 and 30 of the result lie 29 / 32 of the crop, and each pixel of the source is 4 levels.
    widths = (pixels[:, 16, 30, 0] - pixels[:, 16, 1, 0]) / 4 / 29 * 32
    heights = (pixels[:, 30, 16, 1] - pixels[:, 1, 16, 1]) / 4 / 29 * 32
    np.testing.assert_allclose(widths, width, atol=0.5)
    np.testing.assert_allclose(heights, height, atol=0.5)
    corners = {(round(left), round(top)) for left, top in pixels[:, 0, 0, :2]}
    assert (len(corners) == 1) is (area == 1.0)


def test_crops_vary_between_the_limits(tmp_path: Path, settings_of: Settings) -> None:
    pictures = write_images(tmp_path, [coordinates(64, 64, 4)])
    settings = settings_of(batch_size=200, image_size=32)
    augmentation = Augmentation(flip_probability=0.0)
    ((images, _),) = run(training_graph(feed(pictures, [0] * 200), augmentation, settings, seed=1))
    pixels = denormalised(images)
    widths = (pixels[:, 16, 30, 0] - pixels[:, 16, 1, 0]) / 4 / 29 * 32
    heights = (pixels[:, 30, 16, 1] - pixels[:, 1, 16, 1]) / 4 / 29 * 32
    areas, aspects = widths * heights / 64**2, widths / heights
    # Crops are whole pixels, which is up to 4 % of the smallest.
    assert 0.075 <= areas.min() < 0.12
    assert 0.8 < areas.max() <= 1.01
    assert 0.70 <= aspects.min() < 0.80
    assert 1.25 < aspects.max() <= 1.42


def test_a_seed_decides_the_pixels(tmp_path: Path, settings_of: Settings) -> None:
    pictures = write_images(tmp_path, noise(8), "jpg")

    def training_bytes(seed: int, threads: int, prefetch: int = 2) -> list[bytes]:
        settings = settings_of(batch_size=3, image_size=16, decode_threads=threads, prefetch=prefetch)
        files = feed(pictures, (0, 1, 2), (5, 6, 7), (2, 3, 4))
        return [images.tobytes() for images, _ in run(training_graph(files, Augmentation(), settings, seed), 8)]

    assert training_bytes(1, threads=2) == training_bytes(1, threads=2)
    assert training_bytes(1, threads=1) == training_bytes(1, threads=3) == training_bytes(1, threads=2, prefetch=5)
    assert not set(training_bytes(1, threads=2)) & set(training_bytes(2, threads=2))


SURVIVES = """
import sys
import numpy as np
from pipelines.augmentation import Augmentation
from pipelines.dataset import open_dataset
from pipelines.bad_image_probe import file_name
from pipelines.dali_graphs import training_graph
from pipelines.settings import PipelineSettings

images = open_dataset("digits").train
paths = [str(images.root / path) for path in images.paths]
for place in (17, 55, 200):
    paths[place] = sys.argv[1]
failed = 0
for _ in range(6):
    batches = iter(range(10**6))

    def feed():
        start = 32 * next(batches)
        names = [file_name(paths[(start + entry) % len(paths)]) for entry in range(32)]
        return names, np.zeros((32, 1), dtype=np.int64)

    settings = PipelineSettings(32, 32, decode_threads=2, decode_region=sys.argv[2] == "region")
    pipeline = training_graph(feed, Augmentation(), settings, 0)
    pipeline.build()
    for _ in range(12):
        try:
            pipeline.run()
        except RuntimeError:
            failed += 1
print(failed)
"""


@pytest.mark.slow
def test_batches_that_fail_one_after_another_do_not_end_the_process(tmp_path: Path) -> None:
    """Decoders that see such files end DALI 2.4 in a segmentation fault here, most times within six pipelines."""
    text = tmp_path / "text.jpg"
    text.write_text("hello" * 50)
    for decoded in ("region", "whole"):
        done = subprocess.run(
            [sys.executable, "-c", SURVIVES, str(text), decoded],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "18\n"), done.stderr[-500:]
