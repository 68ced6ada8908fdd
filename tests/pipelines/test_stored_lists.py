"""Lists in files come back as they were, mapped rather than read; files that don't belong together are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.image_lists import Extents, ImageList
from pipelines.stored_lists import ABOUT, load_list, save_list

PATHS = ("a/b.jpg", "é中.jpg", "\udcff\udcfe.jpg", "x\ny.jpg")
LABELS = (7, 0, 21_840, 7)


def stored(folder: Path, images: ImageList) -> Path:
    save_list(folder / "stored", images)
    return folder / "stored"


def test_a_list_comes_back(tmp_path: Path) -> None:
    images = ImageList(Path("/data"), PATHS, LABELS)
    loaded = load_list(stored(tmp_path, images), Path("/data"))
    assert loaded == images
    assert (list(loaded.paths), list(loaded.labels)) == (list(PATHS), list(LABELS))
    assert loaded.part((2, 0)) == images.part((2, 0))
    for array in (loaded.paths.characters, loaded.paths.ends, loaded.labels.array):
        assert (array.flags.owndata, array.flags.writeable) == (False, False)


def test_a_list_without_images_comes_back(tmp_path: Path) -> None:
    assert len(load_list(stored(tmp_path, ImageList(Path(), (), ())), Path())) == 0


def test_where_images_lie_in_larger_files_comes_back(tmp_path: Path) -> None:
    numbers = np.array((1, 0, 0, 1), np.uint32)
    offsets, sizes = np.array((0, 9, 3, 5)), np.array((5, 6, 6, 7))
    files = ("0.tar", "\udcff.tar")
    images = ImageList(
        Path("/data"),
        PATHS,
        LABELS,
        Extents("webdataset", files, ((5, 7), (9, 8)), numbers, offsets, sizes, frozenset({3})),
    )
    extents = load_list(stored(tmp_path, images), Path("/data")).extents
    assert extents is not None
    assert (extents.format, extents.files, extents.stamps) == ("webdataset", files, ((5, 7), (9, 8)))
    assert extents.divided == {3}
    assert extents.numbers.tolist() == [1, 0, 0, 1]
    assert extents.offsets.tolist() == [0, 9, 3, 5]
    assert extents.sizes.tolist() == [5, 6, 6, 7]
    part = load_list(tmp_path / "stored", Path("/data")).part((3, 1)).extents
    assert part is not None
    assert part.offsets.tolist() == [5, 9]
    assert part.divided == {0}


def test_a_list_that_is_stored_again_replaces_the_one_before(tmp_path: Path) -> None:
    stored(tmp_path, ImageList(Path(), PATHS, LABELS))
    assert list(load_list(stored(tmp_path, ImageList(Path(), ("z.jpg",), (5,))), Path()).paths) == ["z.jpg"]


def damage(folder: Path, way: str) -> None:
    """Change a stored list's files in a way."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if way == "another version":
        (folder / ABOUT).write_text(json.dumps({**about, "version": 0}), encoding="utf-8")
    elif way == "another list's labels":
        np.save(folder / "labels.npy", np.arange(3))
    elif way == "another list's names":
        np.save(folder / "characters.npy", np.zeros(3, np.uint8))
    elif way == "all of another list but the description":
        save_list(folder.parent / "other", ImageList(Path(), ("z.jpg",), (5,)))
        for name in ("characters.npy", "ends.npy", "labels.npy"):
            (folder.parent / "other" / name).replace(folder / name)
    elif way == "cut short":
        os.truncate(folder / "ends.npy", 140)
    elif way == "no description":
        (folder / ABOUT).unlink()
    elif way == "an empty description":
        (folder / ABOUT).write_text("")
    else:
        (folder / ABOUT).write_text("[1]")


@pytest.mark.parametrize(
    "way",
    [
        "another version", "another list's labels", "another list's names", "all of another list but the description",
        "cut short", "no description", "an empty description", "another description",
    ],
)  # fmt: skip
def test_files_that_are_not_whole_are_refused(tmp_path: Path, way: str) -> None:
    folder = stored(tmp_path, ImageList(Path(), PATHS, LABELS))
    damage(folder, way)
    with pytest.raises(DataError, match=f"the list in '{folder}' can't be read: ") as caught:
        load_list(folder, Path())
    assert caught.value.cure == "Remove the folder; it is made again from the data."
