"""Data sets that need no download: each is a plain ImageNet-layout folder, made on first use."""

from __future__ import annotations

from pipelines.builtin import digits, photos
from pipelines.builtin.declared import BuiltinSet

BUILTIN: dict[str, BuiltinSet] = {digits.NAME: digits.SET, photos.NAME: photos.SET}

__all__ = ["BUILTIN"]
