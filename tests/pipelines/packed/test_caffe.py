"""Caffe's databases: DALI's own reader reads the same from them, and their images train like files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

from pipelines.dataset import open_dataset
from pipelines.errors import DataError
from pipelines.file_checks import check_files
from pipelines.packed.caffe import LMDB
from pipelines.packed.members import ShardError
from pipelines.packed.shards import find_shards
from pipelines.verification import Verification
from tests.support.bad_files import encoded, picture
from tests.support.packed import listed
from tests.support.storage import unpaused

# A value that lies within a page of keys, some in pages of their own, and one of a label that takes two bytes.
CONTENTS = [b"small", *(encoded(picture(seed), quality=90) for seed in range(5)), b"x" * 5000]
LABELS = [0, 3, 1, 300, 2, 1, 0]


def number(value: int) -> bytes:
    """A number of variable length."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def datum(content: bytes, label: int, *, is_encoded: bool = True) -> bytes:
    """As Caffe writes it, field by field: channels, height, width, data, label, encoded."""
    sides = b"\x08\x03\x10\x05\x18\x05"
    return sides + b"\x22" + number(len(content)) + content + b"\x28" + number(label) + b"\x38" + bytes([is_encoded])


def write(folder: Path, contents: Sequence[bytes] = CONTENTS, labels: Sequence[int] = LABELS) -> Path:
    """A database, of whose pages some were written twice: what lies in the file is not in the keys' order."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment:
        for place in [*range(1, len(contents), 2), *range(0, len(contents), 2), 1]:
            with environment.begin(write=True) as transaction:
                key = f"{place:08d}_n0144/{place}.JPEG".encode()
                transaction.put(key, datum(contents[place], labels[place]))
    return folder


def test_the_images_lie_where_the_list_says(tmp_path: Path) -> None:
    write(tmp_path / "train")
    images = listed(tmp_path)
    assert images.labels == LABELS
    assert images.paths[1] == "train/data.mdb/00000001_n0144/1.JPEG"
    assert [images.content(index) for index in range(len(images))] == CONTENTS
    assert images.extents is not None
    assert images.extents.format == "lmdb"


def test_dali_reads_the_same(tmp_path: Path) -> None:
    write(tmp_path / "train")

    @pipeline_def(batch_size=len(CONTENTS), num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        readers: Any = fn.readers
        return tuple(readers.caffe(path=str(tmp_path / "train"), dont_use_mmap=True))

    pipeline = graph()
    pipeline.build()
    contents, labels = pipeline.run()
    images = listed(tmp_path)
    assert [np.array(contents.at(n)).tobytes() for n in range(len(CONTENTS))] == [
        images.content(n) for n in range(len(CONTENTS))
    ]
    assert np.array(labels.as_tensor()).ravel().tolist() == list(images.labels)


def test_databases_of_caffe_s_usual_names_are_a_data_set(tmp_path: Path) -> None:
    for name in ("ilsvrc12_train_lmdb", "ilsvrc12_val_lmdb"):
        write(tmp_path / name, CONTENTS[1:6], [0, 1, 2, 0, 1])
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "val"]
    assert dataset.num_classes == 3
    assert dataset.splits["val"].paths[0] == "ilsvrc12_val_lmdb/data.mdb/00000000_n0144/0.JPEG"
    assert check_files(dataset.train).faults == {}


def test_a_bad_image_is_named_by_its_key(tmp_path: Path) -> None:
    write(tmp_path / "train", [CONTENTS[1], CONTENTS[2][:400], b"", CONTENTS[3]], [0, 1, 1, 0])
    images = listed(tmp_path)
    found = [finding for checked in Verification(unpaused(images), 1) for finding in checked.findings]
    assert [(images.paths[one.index], one.kind) for one in found] == [
        ("train/data.mdb/00000001_n0144/1.JPEG", "undecodable"), ("train/data.mdb/00000002_n0144/2.JPEG", "empty"),
    ]  # fmt: skip


def test_images_that_are_stored_as_pixels_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"a", datum(bytes(75), 0, is_encoded=False))
    with pytest.raises(ShardError, match="the images are stored as pixels, such as that of 'a'"):
        list(LMDB.scan(folder / "data.mdb"))


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/data.mdb").write_bytes(b"\x7f" * 20_000)
    with pytest.raises(ShardError, match="LMDB can't read it"):
        list(LMDB.scan(tmp_path / "train/data.mdb"))


def test_without_the_package_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert caught.value.message.endswith("'train/data.mdb': the package lmdb, which reads it, is not installed")
    assert caught.value.cure == "pip install lmdb"
    assert find_shards(tmp_path, "val") is None
