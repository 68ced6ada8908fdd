"""Fixtures for the tests of every package."""

from __future__ import annotations

# By their own names or below tests, whichever way pytest imported this file.
pytest_plugins = [f"{__package__ or ''}.{name}".lstrip(".") for name in ("nvml_standin", "small_disk")]
