"""The temporary folder of a measurement: what its processes read, and what they leave for one another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the parts of a measurement are; Paddle and the engines name the files of a model after its size."""

    path: Path

    @property
    def job(self) -> Path:
        """The orders."""
        return self.path / "orders.json"

    @property
    def weights(self) -> Path:
        """The weights to export, if they aren't random."""
        return self.path / "given.safetensors"

    @property
    def images(self) -> Path:
        """The images of a call, [N, 3, H, W] in single precision."""
        return self.path / "images.npy"

    def logits(self, size: str) -> Path:
        """The logits that the trained network gives for these images, [N, classes]."""
        return self.path / f"{size}.logits.npy"
