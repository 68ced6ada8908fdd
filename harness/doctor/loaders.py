"""Checks of what prepares images: our own operators for CPUs, and the OpenCV that --loader opencv needs."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness import ROOT
from harness.doctor.check import FAIL, MAKE_INSTALL, OK, WARN, Context, Finding, skip
from harness.doctor.pipeline import judge_pixels, write_sample
from harness.machine.host import available_cores

SIDE_PIXELS = 64
# Ours rounds as OpenCV does, DALI's otherwise.
MAX_LEVELS_APART = 2.0
OPENCV = "opencv-python-headless"
WITHOUT_OURS = "make install, or run with --resize dali"


def fused(_: Context) -> Finding:
    """The fused operators compile, resize as DALI's do, and the compiled code can be kept."""
    if importlib.util.find_spec("numba") is None:
        return Finding(
            WARN,
            "numba is not installed",
            "numba, which compiles the fused operators",
            "images are resized on CPUs by DALI's own operators, which takes longer (docs/performance.md)",
            MAKE_INSTALL,
        )
    try:
        import numba
        from numba.core.caching import FunctionCache

        from pipelines.fused import finishing
    except ImportError as error:
        return Finding(FAIL, "numba can't be loaded", "numba loads", str(error), WITHOUT_OURS)
    try:
        folder = str(FunctionCache(finishing.run_float32).cache_path).removeprefix(f"{ROOT}/")
    except (OSError, RuntimeError) as error:
        return judge_fused(*_compiled(), not_kept=str(error))
    # What is kept already would not show whether it compiles, and no file may stay.
    numba.config.CACHE_DIR = tempfile.mkdtemp()
    return judge_fused(*_compiled(), folder)


def judge_fused(apart: float, seconds: float, folder: str = "", *, not_kept: str = "") -> Finding:
    """Returns the finding for operators that compile in some seconds and whose pixels differ by some grey levels.

    folder is where their code is kept, not_kept why it can't be.
    """
    expected = f"at most {MAX_LEVELS_APART:g} grey levels from DALI's operators, code that is kept"
    # NaN, too.
    if not apart <= MAX_LEVELS_APART:
        return Finding(
            FAIL, f"{apart:.1f} grey levels", expected, "the fused operators' pixels are wrong", WITHOUT_OURS
        )
    found = f"compiled in {seconds:.1f} s, {apart:.1f} grey levels from DALI's at most"
    if not_kept:
        reason = (
            f"every rank compiles the operators at each start, as no folder for their code can be written: {not_kept}"
        )
        return Finding(WARN, f"{found}, not kept", expected, reason, "export NUMBA_CACHE_DIR=/path/to/folder")
    return Finding(OK, f"{found}, kept in {folder}", expected)


def _compiled() -> tuple[float, float]:
    """Returns how far pixels by the fused operators and by DALI's are apart at most, and the seconds of the first."""
    from dataclasses import replace

    from pipelines.augmentation import STD, Augmentation
    from pipelines.bad_image_probe import file_name
    from pipelines.dali_graphs import evaluation_graph, training_graph
    from pipelines.settings import DALI_RESIZE, FUSED_RESIZE, PipelineSettings

    names = [file_name(str(file)) for file in write_sample(Path(tempfile.mkdtemp()))]
    labels = np.zeros((len(names), 1), np.int64)
    settings = PipelineSettings(len(names), SIDE_PIXELS, decode_threads=available_cores(), resize=FUSED_RESIZE)

    def first_batch(pipeline: Any) -> Any:
        pipeline.build()
        images, _ = pipeline.run()
        return np.array(images.as_tensor())

    began = time.monotonic()
    ours = first_batch(evaluation_graph(lambda: (names, labels), settings))
    seconds = time.monotonic() - began
    others = first_batch(evaluation_graph(lambda: (names, labels), replace(settings, resize=DALI_RESIZE)))
    levels = np.abs(ours - others) * 255 * np.array(STD, np.float32).reshape(3, 1, 1)
    # Crops are random, so that of these only the range is known.
    cropped = first_batch(training_graph(lambda: (names, labels), Augmentation(), settings, 0))
    sound = cropped.shape == ours.shape and np.abs(cropped).max() < 1 / min(STD)
    return float(levels.max()) if sound else float("nan"), seconds


def opencv(_: Context) -> Finding:
    """OpenCV, which only --loader opencv needs, decodes JPEGs to the pixels that Pillow has."""
    if importlib.util.find_spec("cv2") is None:
        return skip(f"only --loader opencv needs it, and it isn't installed; pip install {OPENCV} does that")
    try:
        import cv2
    except ImportError as error:
        reason = f"a run with --loader opencv would fail: {error}"
        return Finding(
            WARN, "OpenCV can't be loaded", "OpenCV loads", reason, f"pip install --force-reinstall {OPENCV}"
        )
    from PIL import Image

    files = write_sample(Path(tempfile.mkdtemp()))
    found = [cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for file in files]
    expected = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return judge_pixels([file.name for file in files], found, expected, decoder="OpenCV")
