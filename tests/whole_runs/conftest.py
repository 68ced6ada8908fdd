"""Fixtures for whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.data_sets import write_colours


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """41 training and 13 validation images of three colours."""
    return write_colours(tmp_path_factory.mktemp("data") / "colours")
