"""The little of Paddle that the loader uses, made of PyTorch: for GPU machines without Paddle's GPU build.

Only tensors are handed over, through DLPack on PyTorch's current stream; nothing can be trained with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PACKAGE = {
    "paddle/__init__.py": "",
    "paddle/io.py": "def get_worker_info():\n    return None\n",
    "paddle/utils/__init__.py": "",
    "paddle/utils/dlpack.py": "from benchmarks.torch_for_paddle import from_dlpack\n",
}


def write_package(folder: Path) -> Path:
    """Write a package `paddle` that leads here, for the search path. Returns the folder."""
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


class Tensor:
    """A tensor with Paddle's names; `torch` is PyTorch's own."""

    def __init__(self, tensor: Any) -> None:
        self.torch = tensor

    @property
    def shape(self) -> list[int]:
        """The lengths of the sides."""
        return list(self.torch.shape)

    @property
    def dtype(self) -> Any:
        """The type of the numbers, whose name ends in a point and what Paddle calls it."""
        return self.torch.dtype

    def astype(self, name: str) -> Tensor:
        """The same numbers in another type."""
        import torch

        return Tensor(self.torch.to(getattr(torch, name)))

    def numpy(self) -> Any:
        """The numbers, on the host."""
        return self.torch.cpu().numpy()


def from_dlpack(tensor: Any) -> Tensor:
    """A tensor in the same memory, read on PyTorch's current stream."""
    import torch

    return Tensor(torch.from_dlpack(tensor))
