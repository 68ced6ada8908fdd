"""Fixtures for the tests of the pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def builtin_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for the built-in sets that all tests share and that is not the user's own."""
    folder = tmp_path_factory.mktemp("builtin-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPLCNET_BENCH_CACHE", str(folder))
        yield folder
