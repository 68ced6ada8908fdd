"""An image list in files that are mapped into memory: opened in no time, and there once for all processes of a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    about: dict[str, Any] = {"version": VERSION, "images": len(images)}
    if (extents := images.extents) is not None:
        files = [(file, *stamp) for file, stamp in zip(extents.files, extents.stamps, strict=True)]
        about["extents"] = {"format": extents.format, "files": files, "divided": sorted(extents.divided)}
    (folder / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")


def load_list(folder: Path, root: Path) -> ImageList:
    """The list in a folder that `save_list` wrote, its columns mapped. Raises DataError if it isn't whole."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["version"] != VERSION:
            raise ValueError(f"its version is {about['version']}, this is {VERSION}")
        names = (*_COLUMNS, *(_OF_EXTENTS if "extents" in about else ()))
        column = {name: _column(folder / f"{name}.npy") for name in names}
        extents = None
        if "extents" in about:
            files = about["extents"]["files"]
            extents = Extents(
                format=str(about["extents"]["format"]),
                files=tuple(str(name) for name, *_ in files),
                stamps=tuple((int(size), int(changed)) for _, size, changed in files),
                numbers=column["numbers"],
                offsets=column["offsets"],
                sizes=column["sizes"],
                divided=frozenset(map(int, about["extents"]["divided"])),
            )
        images = ImageList(root, Texts(column["characters"], column["ends"]), Numbers(column["labels"]), extents)
        if len(images) != about["images"] or (len(images) and images.paths.ends[-1] != len(column["characters"])):
            raise ValueError("its columns belong to different lists")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the list in {shown(folder)} can't be read: {error}", "Remove the folder; it is made again from the data."
        ) from error
    return images


def _column(file: Path) -> npt.NDArray[Any]:
    """The array in a file, mapped unless it is empty: nothing can't be mapped."""
    try:
        # A plain view: those of NumPy's class for mapped files are slow to cut.
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except ValueError:
        array: npt.NDArray[Any] = np.load(file, allow_pickle=False)
        if array.size:
            raise
        return array
