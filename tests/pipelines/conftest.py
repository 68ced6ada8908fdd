"""Fixtures for the tests of the pipelines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.image_lists import ImageList
from tests.support.dali import noise, write_images


@pytest.fixture(scope="session")
def builtin_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for the built-in sets that all tests share, of all processes, and that is not the user's own."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "builtin-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPLCNET_BENCH_CACHE", str(folder))
        yield folder


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    """Eight small JPEGs."""
    return write_images(tmp_path, noise(8, 24, 32), "jpg")
