"""The files of images in memory: the same bytes, for other processes too, and gone when nobody reads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT
from pipelines.errors import DataError
from pipelines.image_lists import ImageList
from pipelines.memory_cache import MAX_SHARE, MEMORY, MemoryCache
from pipelines.packed.webdataset import WEBDATASET
from pipelines.storage import Clock, Patience
from pipelines.stored_lists import save_list
from tests.support.packed import packed

NAMES = ("a/0.jpg", "b/1.jpg", "c/2.jpg", "a/3.jpg")


def folder(place: Path) -> ImageList:
    for number, name in enumerate(NAMES):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(bytes([number]) * (1000 * number + 1))
    return ImageList(place, NAMES, (0, 1, 2, 0))


def test_the_same_images_come_from_memory_and_the_files_may_go(tmp_path: Path) -> None:
    images = folder(tmp_path)
    expected = [images.content(index) for index in range(4)]
    advanced: list[int] = []
    cache = MemoryCache({"train": images, "val": images.part([1])}, {}, Patience(), advance=advanced.append)
    for name in NAMES:
        (tmp_path / name).unlink()
    kept = cache.splits["train"]
    assert [kept.content(index) for index in range(4)] == expected
    assert (kept.paths, kept.labels, kept.root) == (images.paths, images.labels, tmp_path)
    assert cache.splits["val"].content(0) == expected[1]
    assert kept.extents is not None
    assert kept.extents.format == MEMORY
    brought = cache.brought
    assert (brought.images, brought.bytes) == (5, 6004 + 1001)
    assert brought.source_bytes_per_second == pytest.approx(brought.bytes / brought.seconds)
    assert sum(advanced) == 5
    cache.close()
    cache.close()


def test_another_process_reads_them_while_this_one_lives(tmp_path: Path) -> None:
    cache = MemoryCache({"train": folder(tmp_path)}, {}, Patience())
    save_list(tmp_path / "list", cache.splits["train"])
    script = (
        "import sys; from pathlib import Path; from pipelines.stored_lists import load_list;"
        "print(len(load_list(Path(sys.argv[1]), Path(sys.argv[2])).content(3)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "list"), str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.stdout == "3001\n", found.stderr
    cache.close()


def test_images_that_are_left_out_are_not_read(tmp_path: Path) -> None:
    images = folder(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    cache = MemoryCache({"train": images}, {"train": frozenset({2})}, Patience())
    assert cache.brought.bytes == 1 + 1001 + 3001
    assert cache.splits["train"].content(3) == bytes([3]) * 3001
    cache.close()


def test_shards_stay_what_is_shuffled_together(tmp_path: Path) -> None:
    images = packed(tmp_path, WEBDATASET, [("a.jpg", 0, b"A")], [("b.jpg", 1, b"BB"), ("c.jpg", 1, b"CCC")])
    cache = MemoryCache({"train": images}, {}, Patience())
    kept = cache.splits["train"].extents
    assert kept is not None
    assert images.extents is not None
    assert kept.numbers.tolist() == images.extents.numbers.tolist() == [0, 1, 1]
    assert kept.format == "webdataset"
    assert [cache.splits["train"].content(index) for index in range(3)] == [b"A", b"BB", b"CCC"]
    cache.close()


def test_files_that_don_t_fit_are_refused_and_their_memory_given_back(tmp_path: Path) -> None:
    images = folder(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(DataError) as caught:
        MemoryCache({"train": images}, {}, Patience(), limit_bytes=int(6000 / MAX_SHARE))
    assert re.fullmatch(
        r"--cache ram: the images' files don't fit in memory, of which 0\.0 GB could be used", caught.value.message
    )
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    MemoryCache({"train": images}, {}, Patience(), limit_bytes=int(6100 / MAX_SHARE)).close()


def test_storage_that_is_away_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    images = folder(tmp_path / "data")
    expected = [images.content(index) for index in range(4)]
    (tmp_path / "data").rename(tmp_path / "away")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            (tmp_path / "away").rename(tmp_path / "data")

    said: list[str] = []
    cache = MemoryCache({"train": images}, {}, Patience(60.0, said.append, clock=Clock(sleep=sleep)))
    assert [cache.splits["train"].content(index) for index in range(4)] == expected
    assert len(pauses) == 2
    assert len(said) == 1
    cache.close()
