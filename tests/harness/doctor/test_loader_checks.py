"""Checks of the fused operators and of OpenCV: ok here, and each finds its fault where the fault is put in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.doctor import loaders
from harness.doctor.check import FAIL, OK, SKIP, WARN, Context, Finding
from harness.doctor.isolation import run_isolated
from tests.support.broken_start import broken, module_that_fails, without_module

LIMIT_SECONDS = 120.0


def run(check: Callable[[Context], Finding], **environment: str) -> Finding:
    return run_isolated(check, Context(), LIMIT_SECONDS, environment={**os.environ, **environment})


@pytest.mark.slow
def test_the_fused_operators_compile_and_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    found = run(loaders.fused, NUMBA_CACHE_DIR=str(folder))
    assert found.status == OK, found
    assert f"kept in {folder}/" in found.found
    # A run would put it there; this only looks.
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_operators_that_cannot_be_kept(tmp_path: Path) -> None:
    code = (
        "import numba.core.caching as c\ndef refuse(*_):\n    raise RuntimeError('no locator available')\n"
        "c.FunctionCache.__init__ = refuse"
    )
    found = run(loaders.fused, PYTHONPATH=broken(tmp_path, code))
    assert found.status == WARN, found
    assert "compiled in" in found.found
    assert "every rank compiles the operators at each start" in found.reason
    assert "no locator available" in found.reason
    assert found.cure == "export NUMBA_CACHE_DIR=/path/to/folder"


def test_without_numba(tmp_path: Path) -> None:
    found = run(loaders.fused, PYTHONPATH=without_module(tmp_path, "numba"))
    assert (found.status, found.found, found.cure) == (WARN, "numba is not installed", "make install")


def test_numba_that_does_not_load(tmp_path: Path) -> None:
    found = run(loaders.fused, PYTHONPATH=module_that_fails(tmp_path, "numba", "Numba needs NumPy 2.3 or less"))
    assert (found.status, found.reason) == (FAIL, "Numba needs NumPy 2.3 or less")
    assert "--resize dali" in found.cure


@pytest.mark.parametrize(("apart", "status"), [(0.0, OK), (2.0, OK), (2.5, FAIL), (float("nan"), FAIL)])
def test_pixels_of_the_fused_operators(apart: float, status: str) -> None:
    assert loaders.judge_fused(apart, 1.0, "folder").status == status
    assert loaders.judge_fused(apart, 1.0, not_kept="full").status == (WARN if status == OK else FAIL)


def test_opencv() -> None:
    pytest.importorskip("cv2")
    assert run(loaders.opencv).status == OK


def test_without_opencv_there_is_a_note(tmp_path: Path) -> None:
    found = run(loaders.opencv, PYTHONPATH=without_module(tmp_path, "cv2"))
    assert found.status == SKIP
    assert "only --loader opencv needs it" in found.reason
    assert "pip install opencv-python-headless" in found.reason


def test_opencv_that_does_not_load(tmp_path: Path) -> None:
    found = run(loaders.opencv, PYTHONPATH=module_that_fails(tmp_path, "cv2", "libGL.so.1: cannot open"))
    assert (found.status, found.found) == (WARN, "OpenCV can't be loaded")
    assert found.reason == "a run with --loader opencv would fail: libGL.so.1: cannot open"


def test_opencv_that_decodes_to_other_pixels(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    code = "import cv2\ncv2.cvtColor = lambda picture, _: picture"
    found = run(loaders.opencv, PYTHONPATH=broken(tmp_path, code))
    assert (found.status, found.reason) == (FAIL, "OpenCV's pixels are wrong")
