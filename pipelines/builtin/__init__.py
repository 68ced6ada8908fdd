"""Data sets that need no download: each is a plain ImageNet-layout folder, made on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.builtin import digits, photos

# Name -> makes the set's folder if need be and returns it. Raises DataError if it cannot be made.
BUILTIN: dict[str, Callable[[], Path]] = {digits.NAME: digits.folder, photos.NAME: photos.folder}

__all__ = ["BUILTIN"]
