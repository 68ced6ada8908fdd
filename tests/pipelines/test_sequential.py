"""Windows of images in shards are read in the files' order before they are used in another one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipelines import image_lists, sequential
from pipelines.image_lists import CUT_SHARD, Extents, ImageList, close_spans, read_contents
from pipelines.packed.recordio import RECORDIO
from pipelines.packed.webdataset import WEBDATASET
from pipelines.sequential import in_sequence, read_in_sequence
from tests.support.packed import packed

COUNT = 40
CONTENTS = [bytes([number]) * (500 + 37 * number) for number in range(COUNT)]


def images(folder: Path) -> ImageList:
    """40 images in 4 shards."""
    shards = [[(f"{n}.jpg", n, CONTENTS[n]) for n in range(begin, begin + 10)] for begin in range(0, COUNT, 10)]
    return packed(folder, WEBDATASET, *shards)


def extents(*places: tuple[int, int, int]) -> Extents:
    numbers, offsets, sizes = (np.array(column) for column in zip(*places, strict=True))
    return Extents("it", ("0", "1", "2"), ((0, 0),) * 3, numbers.astype(np.uint32), offsets, sizes)


def test_spans_are_in_the_files_order_and_end_at_gaps_and_files() -> None:
    where = extents((1, 100, 50), (0, 900, 10), (0, 100, 50), (0, 160, 40), (1, 150, 50), (0, 100, 50), (2, 0, 5))
    found = close_spans(where, np.arange(7), 10)
    assert [(span.number, span.begin, span.end, sorted(span.places.tolist())) for span in found] == [
        (0, 100, 200, [2, 3, 5]), (0, 900, 910, [1]), (1, 100, 200, [0, 4]), (2, 0, 5, [6]),
    ]  # fmt: skip
    assert [(span.begin, span.end) for span in close_spans(where, np.array([2, 3]), 9)] == [(100, 150), (160, 200)]
    assert close_spans(where, np.array([], np.int64), 9) == []


def test_images_in_any_order_and_repeated_come_whole(tmp_path: Path) -> None:
    listed = images(tmp_path)
    indices = np.random.default_rng(0).integers(0, COUNT, 100).tolist()
    found = read_contents(listed, indices)
    assert [content.tobytes() for content in found if not isinstance(content, OSError)] == [
        CONTENTS[index] for index in indices
    ]


def test_neighbours_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, read = images(tmp_path), list[int]()
    extent = image_lists._extent

    def counted(descriptor: int, begin: int, end: int) -> object:
        read.append(end - begin)
        return extent(descriptor, begin, end)

    monkeypatch.setattr(image_lists, "_extent", counted)
    read_contents(listed, range(COUNT))
    assert len(read) == 4
    read.clear()
    read_contents(listed, (0, 39))
    assert read == [len(CONTENTS[0]), len(CONTENTS[39])]


def test_of_a_cut_shard_the_images_before_the_end_can_be_read(tmp_path: Path) -> None:
    listed = images(tmp_path)
    assert listed.extents is not None
    os.truncate(listed.file(15), int(listed.extents.offsets[15]) + 3)
    found = read_contents(listed, range(10, 20))
    assert [str(one.strerror) for one in found if isinstance(one, OSError)] == [CUT_SHARD] * 5
    assert [one.tobytes() for one in found if not isinstance(one, OSError)] == CONTENTS[10:15]
    Path(listed.file(25)).unlink()
    found = read_contents(listed, (5, 25))
    assert isinstance(found[1], FileNotFoundError)
    assert not isinstance(found[0], OSError)


def test_a_record_of_several_parts_is_joined_among_its_neighbours(tmp_path: Path) -> None:
    from pipelines.packed.divided import MAGIC

    contents = [b"0123", b"abcd" + MAGIC + b"efgh", b"4567"]
    listed = packed(tmp_path, RECORDIO, [("", n, content) for n, content in enumerate(contents)])
    found = read_contents(listed, (2, 1, 0))
    assert [one.tobytes() for one in found if not isinstance(one, OSError)] == contents[::-1]


def batches(order: Sequence[int], size: int = 4) -> Iterator[list[int]]:
    for begin in range(0, len(order), size):
        yield list(order[begin : begin + size])


def test_a_window_is_read_before_its_batches_and_the_next_one_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, windows, changed = images(tmp_path), list[list[int]](), threading.Condition()

    def read(of: ImageList, indices: object) -> None:
        assert of is listed
        with changed:
            windows.append(np.asarray(indices).tolist())
            changed.notify_all()

    monkeypatch.setattr(sequential, "read_in_sequence", read)
    order = np.random.default_rng(1).permutation(COUNT).tolist()
    following = in_sequence(listed, batches(order), lambda batch: batch, window=10)
    for number, batch in enumerate(batches(order)):
        assert next(following) == batch
        # Windows end with a batch: 12 images each, and 4 in the last one.
        assert windows[number // 3] == order[12 * (number // 3) : 12 * (number // 3) + 12]
        with changed:
            assert changed.wait_for(lambda: len(windows) >= min(number // 3 + 2, 4), 30)  # noqa: B023
    assert list(following) == []


def test_reading_in_sequence_reads_each_byte_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, asked = images(tmp_path), list[tuple[str, int, int]]()
    preadv = os.preadv

    def recorded(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        asked.append((name, offset, len(buffers[0])))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", recorded)
    monkeypatch.setattr(sequential, "CHUNK_BYTES", 4096)
    read_in_sequence(listed, np.random.default_rng(2).permutation(20))
    assert asked == sorted(asked)
    assert {name for name, *_ in asked} == {"train-000.tar", "train-001.tar"}
    for (name, offset, size), (other, following, _) in pairwise(asked):
        assert other != name or following == offset + size
    assert listed.extents is not None
    first = [size for name, _, size in asked if name == "train-000.tar"]
    begin, end = listed.extents.offsets[0], listed.extents.offsets[9] + listed.extents.sizes[9]
    assert sum(first) == end - begin
    Path(listed.file(0)).unlink()
    read_in_sequence(listed, np.arange(20))  # left to those who use them
