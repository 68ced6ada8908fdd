"""Fixtures for the tests of every package."""

from __future__ import annotations

# By its own name or as tests.nvml_standin, whichever way pytest imported this file.
pytest_plugins = [f"{__package__ or ''}.nvml_standin".lstrip(".")]
