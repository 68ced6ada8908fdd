"""Fixtures for the tests of every package."""

pytest_plugins = ["tests.support.nvml_standin", "tests.support.small_disk"]
