"""Small data sets of JPEGs, for tests that train on one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.augmentation import Augmentation
from pipelines.classes import Classes
from pipelines.dataset import Dataset
from pipelines.image_lists import ImageList
from pipelines.imagenet.numbering import wnids

SIZE = (40, 48)  # height and width in pixels


def a_dataset(
    root: Path, count: int, splits: Mapping[str, ImageList], *, name: str = "one", builtin: bool = False
) -> Dataset:
    """A data set of some lists, as if it had been opened."""
    return Dataset(name, root, Classes(count, {}, ""), splits, Augmentation(), builtin)


def imagenet_list(images: int) -> ImageList:
    """A list of this length with ImageNet's folders and their labels, class after class."""
    labels = tuple(index * 1000 // images for index in range(images))
    folders = wnids()
    return ImageList(Path("d"), tuple(f"d/{folders[label]}/{index}.JPEG" for index, label in enumerate(labels)), labels)


def write_noise(folder: Path, train: int, val: int) -> Path:
    """Images in four classes, of noise on a class's own colour."""
    generator = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            label = index % 4
            place = folder / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 128, (*SIZE, 3)) + np.array([30 * label, 90, 120 - 30 * label])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{index}.jpg")
    return folder


def write_colours(folder: Path, train: int = 41, val: int = 13) -> Path:
    """Images of three colours, which a network can tell apart; the classes' folders have a blank in their names."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            colour = index % 3
            pixels = generator.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
            pixels[:, :, colour] += 180
            place = folder / split / f"colour {colour}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{index}.jpg")
    return folder
