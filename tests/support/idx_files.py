"""Small files in MNIST's format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def idx(values: Bytes) -> bytes:
    """An IDX file that holds the array."""
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


def pictures(count: int, side: int = 28, seed: int = 0) -> Bytes:
    """Images [count, side, side], each one a different smooth hill, as strokes are smooth: JPEG keeps it."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    centres = generator.uniform(0.2 * side, 0.8 * side, (count, 2, 1, 1))
    distances = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2
    hills: Bytes = np.round(255 * np.exp(-distances / (2 * (side / 6) ** 2))).astype(np.uint8)
    return hills


TRAIN_LABELS = np.array([3, 0, 1, 3, 0, 1, 4, 3, 0, 1, 4, 3], np.uint8)  # 2 is missing
VAL_LABELS = np.array([1, 0, 3, 4, 1], np.uint8)


def contents() -> dict[str, bytes]:
    """The four files of a set with the labels above."""
    return {
        "train-images-idx3-ubyte": idx(pictures(len(TRAIN_LABELS), seed=1)),
        "train-labels-idx1-ubyte": idx(TRAIN_LABELS),
        "t10k-images-idx3-ubyte": idx(pictures(len(VAL_LABELS), seed=2)),
        "t10k-labels-idx1-ubyte": idx(VAL_LABELS),
    }


def write_set(folder: Path, **changes: bytes) -> Path:
    """Write the four files into a new folder; changes are by the name's first two words, as train_images."""
    folder.mkdir(parents=True)
    for name, content in contents().items():
        (folder / name).write_bytes(changes.pop("_".join(name.split("-")[:2]), content))
    assert not changes
    return folder


def pack(path: Path) -> None:
    """Replace the file by the same one packed."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
