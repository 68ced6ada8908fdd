"""Whether the fused operator can be used, found out without loading it."""

from __future__ import annotations

from importlib.util import find_spec

from pipelines.settings import CPU_DECODER, DALI_CROPS, PipelineSettings

NOT_INSTALLED = "numba is not installed"


def obstacle(settings: PipelineSettings) -> str:
    """Why the fused operator can't be used with these settings; empty if it can."""
    if settings.decoder != CPU_DECODER:
        return "images are decoded on GPUs"
    if settings.preprocessing == DALI_CROPS:
        return f"--preprocessing {settings.preprocessing} smooths images, which it doesn't"
    if settings.auto_augment:
        return "AutoAugment comes between resizing and normalising"
    return "" if find_spec("numba") else NOT_INSTALLED
