"""The fused operator against OpenCV itself: sampled places, levels, formats, and where its machine code is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types

from harness import ROOT
from pipelines.dali_graphs import evaluation_graph, training_graph
from pipelines.errors import LoaderError
from pipelines.fused import finishing
from pipelines.fused.fit import NOT_INSTALLED, obstacle
from pipelines.fused.operator import NORMAL, prepared
from pipelines.graph_settings import read_settings
from pipelines.settings import FUSED_RESIZE, PipelineSettings
from tests.support.dali import CUSTOM, EXTERNAL_SOURCE_CHECKPOINT, no_feed
from tests.support.opencv import Pixels

SETTINGS = PipelineSettings(1, image_size=224, decode_threads=2, resize=FUSED_RESIZE)
LARGEST = 1500


def pictures(count: int) -> list[Pixels]:
    """Noise and smooth pictures, of sides that are drawn evenly on a logarithmic scale, and some of a pixel's width."""
    drawn = np.random.default_rng(1)
    sides = np.exp(drawn.uniform(0, np.log(LARGEST), (count, 2))).astype(int)
    sides[:8] = [(1, 1), (1, 9), (9, 1), (1, LARGEST), (LARGEST, 1), (2, 2), (224, 224), (223, 225)]
    noise = [drawn.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in sides]
    return [cv2.blur(one, (5, 5)).reshape(one.shape) if index % 2 else one for index, one in enumerate(noise)]


def fused(
    images: list[Pixels],
    mirrors: NDArray[np.int32] | int = 0,
    cover: tuple[int, int] | None = None,
    settings: PipelineSettings = SETTINGS,
) -> NDArray[Any]:
    """What the operator makes of them, as it is returned."""

    @pipeline_def(batch_size=len(images), num_threads=2, device_id=None)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        encoded = fn.external_source(source=lambda: images, batch=True, dtype=types.UINT8, ndim=3)
        mirror: Any = mirrors
        if not isinstance(mirror, int):
            mirror = fn.external_source(source=lambda: mirrors, batch=True, dtype=types.INT32, ndim=0)
        return prepared(encoded, settings, mirror, cover)

    pipeline = graph()
    pipeline.build()
    (made,) = pipeline.run()
    return np.array(made.as_array())


def levels(made: NDArray[Any]) -> NDArray[np.float64]:
    """Grey levels [images, size, size, 3] of what was made in channels first."""
    return np.asarray((made.transpose(0, 2, 3, 1).astype(np.float64) - NORMAL[1]) / NORMAL[0])


def of_opencv(picture: Pixels, height: int, width: int) -> Pixels:
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8).reshape(height, width, 3)


def test_training_crops_are_within_a_level_of_opencv_s() -> None:
    """Measured, 200 crops: 1 level at most, 0.06 in the mean."""
    images = pictures(200)
    mirrors = np.random.default_rng(2).integers(0, 2, len(images)).astype(np.int32)
    assert {0, 1} == set(mirrors.tolist())
    theirs = [of_opencv(one, 224, 224)[:, :: -1 if mirror else 1] for one, mirror in zip(images, mirrors, strict=True)]
    differences = np.abs(levels(fused(images, mirrors)) - np.array(theirs, np.float64))
    assert differences.max() < 1.001
    assert differences.mean() < 0.07
    # As many levels are too high as too low.
    assert abs((levels(fused(images, mirrors)) - np.array(theirs, np.float64)).mean()) < 0.01


@pytest.mark.parametrize("size", [32, 224, 288])
def test_evaluation_is_within_a_level_of_opencv_s_resized_centre(size: int) -> None:
    """Measured: 1 level at most, 0.06 in the mean; sides and places are PaddleClas's."""
    short = round(size * 256 / 224)
    images = [one for one in pictures(120) if max(one.shape[:2]) <= 40 * min(one.shape[:2])]
    assert len(images) > 60
    theirs = []
    for one in images:
        share = short / min(one.shape[:2])
        whole = of_opencv(one, round(one.shape[0] * share), round(one.shape[1] * share))
        top, left = ((side - size) // 2 for side in whole.shape[:2])
        theirs.append(whole[top : top + size, left : left + size])
    made = fused(images, 0, (short, short), replace(SETTINGS, image_size=size))
    differences = np.abs(levels(made) - np.array(theirs, np.float64))
    assert differences.max() < 1.001
    assert differences.mean() < 0.07


def test_a_long_image_s_middle_is_resized_alone() -> None:
    """As a whole it would be 256 x 768,000 pixels, of which the crop has 224."""
    strip = np.random.default_rng(3).integers(0, 256, (2, 6000, 3), dtype=np.uint8)
    middle = np.ascontiguousarray(strip[:, 2900:3100])
    made, part = fused([strip, middle], 0, (256, 256))
    assert np.array_equal(made, part)


def test_layouts_and_number_formats_hold_the_same_values() -> None:
    images, mirrors = pictures(12), np.array([0, 1] * 6, np.int32)
    first = fused(images, mirrors)
    assert first.shape == (12, 3, 224, 224)
    for dtype, layout in product(("float32", "float16"), ("nchw", "nhwc")):
        made = fused(images, mirrors, None, replace(SETTINGS, dtype=dtype, layout=layout))
        wanted = first if layout == "nchw" else first.transpose(0, 2, 3, 1)
        assert made.dtype == np.dtype(dtype)
        assert np.array_equal(made, wanted.astype(dtype))


def test_bits_of_float16_are_numpy_s() -> None:
    """Both ways of rounding, ties among them, down to numbers that float16 has no name for."""
    exact = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    exact = exact[np.isfinite(exact)]
    values = np.concatenate([exact, np.nextafter(exact, np.float32(9)), (exact[1:] + exact[:-1]) / 2]).astype(
        np.float32
    )
    values = values[np.abs(values) < 65_520]

    made = np.empty(len(values), np.uint16)
    finishing.write_halves(values, made)
    assert np.array_equal(made, values.astype(np.float16).view(np.uint16))


@pytest.mark.filterwarnings(f"ignore:{EXTERNAL_SOURCE_CHECKPOINT}")
@pytest.mark.parametrize("trains", [True, False])
def test_the_operator_is_read_back_from_the_graph(trains: bool) -> None:
    graph = training_graph(no_feed, CUSTOM, SETTINGS, seed=1) if trains else evaluation_graph(no_feed, SETTINGS)
    graph.build()
    found = read_settings(graph)
    assert (found["resize"], found["antialias"]) == (FUSED_RESIZE, False)
    assert found["preprocessing"] == ("paddleclas" if trains else None)


def test_a_numba_that_can_t_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipelines.fused.operator", None)
    monkeypatch.delattr("pipelines.fused.operator", raising=False)
    with pytest.raises(LoaderError, match="numba, which resizes images, can't be loaded") as caught:
        evaluation_graph(no_feed, SETTINGS)
    assert (caught.value.cure, caught.value.exit_code) == ("Use --resize dali.", 3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"decoder": "mixed"}, "images are decoded on GPUs"),
        ({"preprocessing": "dali"}, "--preprocessing dali smooths images"),
        ({"auto_augment": True}, "AutoAugment comes between"),
    ],
)
def test_what_the_operator_can_t_do_is_said(changes: dict[str, Any], why: str) -> None:
    assert obstacle(replace(SETTINGS, **changes)).startswith(why)
    assert bool(obstacle(replace(SETTINGS, **changes))) == bool(why)


def test_a_machine_without_numba_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.fused.fit.find_spec", lambda _: None)
    assert obstacle(SETTINGS) == NOT_INSTALLED


SMALL = """
from numba import types
from numba.core import ccallback
from pipelines.fused.stored_code import address

def nothing(_):
    pass

def count():
    calls = []
    original = ccallback.CFunc._compile_uncached
    ccallback.CFunc._compile_uncached = lambda self: calls.append(1) or original(self)
    assert address(types.void(types.int32), nothing)
    print(len(calls))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A module with a small function, which stands for the operator's, and no machine code beside it."""
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path


def compilations(folder: Path, **environment: str) -> int:
    """The number of functions that a new process compiles."""
    asked = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", "import small; small.count()"],
        cwd=folder,
        env=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "__pycache__").glob("*.nb[ci]"))


def test_machine_code_is_compiled_once_for_a_processor(folder: Path) -> None:
    assert compilations(folder) == 1
    assert compilations(folder) == 0
    assert compilations(folder, NUMBA_CPU_NAME="generic") == 1
    assert compilations(folder) == 0


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_stored_machine_code_that_is_damaged_is_replaced(folder: Path, suffix: str) -> None:
    compilations(folder)
    (damaged,) = [file for file in stored(folder) if file.suffix == suffix]
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert compilations(folder) == 1
    assert compilations(folder) == 0


def test_machine_code_that_can_t_be_stored_is_compiled_all_the_same(folder: Path) -> None:
    """Neither beside the module nor in the home folder."""
    nowhere = folder / "__pycache__"
    nowhere.touch()
    for _ in range(2):
        assert compilations(folder, HOME=str(nowhere), XDG_CACHE_HOME=str(nowhere / "below")) == 1
