"""The versions of what decodes images, for processes that don't load it."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

DECODER_PACKAGES = {
    "DALI": ("nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    "nvImageCodec": ("nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13"),
    "nvJPEG": ("nvidia-nvjpeg-cu12", "nvidia-nvjpeg-cu13"),
}


def decoder_versions() -> str:
    """The versions of what decodes: DALI, nvImageCodec and nvJPEG, as far as they are installed."""
    found = []
    for title, packages in DECODER_PACKAGES.items():
        for package in packages:
            with suppress(PackageNotFoundError):
                found.append(f"{title} {version(package)}")
                break
    return ", ".join(found)
