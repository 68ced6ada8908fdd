"""Data sets that need no download: each is a plain ImageNet-layout folder, made on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.builtin import digits, photos

# Name -> function that makes the set's folder if necessary and returns it; it raises DataError if that fails.
BUILTIN: dict[str, Callable[[], Path]] = {digits.NAME: digits.folder, photos.NAME: photos.folder}

__all__ = ["BUILTIN"]
