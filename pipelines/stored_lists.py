"""An image list in files that are mapped into memory: opened in no time, and there once for all processes of a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.columns import Numbers, Texts
from pipelines.errors import DataError
from pipelines.image_lists import Extents, ImageList, shown

# The version of these files. A folder of another version is refused.
VERSION = 1
ABOUT = "list.json"
_COLUMNS = ("characters", "ends", "labels")
_OF_EXTENTS = ("numbers", "offsets", "sizes")


def save_list(folder: Path, images: ImageList) -> None:
    """Write a list to a folder, which is made: an array of NumPy's for each column, and last of all list.json.

    The root is not part of it. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "characters": images.paths.characters,
        "ends": images.paths.ends,
        "labels": images.labels.array,
    }
    if images.extents is not None:
        columns |= {name: getattr(images.extents, name) for name in _OF_EXTENTS}
    for name, values in columns.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
    files = None if images.extents is None else images.extents.files
    about = {"version": VERSION, "images": len(images), "files": files}
    (folder / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")


def load_list(folder: Path, root: Path) -> ImageList:
    """The list in a folder that `save_list` wrote, its columns mapped. Raises DataError if it isn't whole."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["version"] != VERSION:
            raise ValueError(f"its version is {about['version']}, this is {VERSION}")
        names = (*_COLUMNS, *(_OF_EXTENTS if about["files"] is not None else ()))
        # Plain views: those of NumPy's class for mapped files are slow to cut.
        column = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in names
        }
        extents = None
        if about["files"] is not None:
            extents = Extents(tuple(map(str, about["files"])), *(column[name] for name in _OF_EXTENTS))
        images = ImageList(root, Texts(column["characters"], column["ends"]), Numbers(column["labels"]), extents)
        if len(images) != about["images"] or (len(images) and images.paths.ends[-1] != len(column["characters"])):
            raise ValueError("its columns belong to different lists")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the list in {shown(folder)} can't be read: {error}", "Remove the folder; it is made again from the data."
        ) from error
    return images
