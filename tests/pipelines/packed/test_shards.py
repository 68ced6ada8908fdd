"""Shards are found by their names, listed once, and listed again when they change."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset import open_dataset
from pipelines.errors import DataError
from pipelines.file_checks import EMPTY_FILE, check_files
from pipelines.image_lists import CUT_SHARD
from pipelines.packed import shards as module
from pipelines.packed.members import WrittenFormat
from pipelines.packed.recordio import RECORDIO
from pipelines.packed.shards import FORMATS, INDEX, find_shards, list_shards
from pipelines.packed.tfrecord import TFRECORD
from pipelines.packed.webdataset import WEBDATASET
from pipelines.storage import Storage
from tests.support.packed import Image, listed, packed, write_shard

A: list[Image] = [("a/0.jpg", 0, b"zero"), ("b/1.jpg", 1, b"one")]
B: list[Image] = [("a/2.jpg", 0, b"two"), ("c/3.tif", 2, b""), ("b/4.jpg", 1, b"four")]
ALL = pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)


@pytest.mark.parametrize(
    ("names", "kind", "found"),
    [
        (("train/b.tar", "train/a.TAR", "train/b.idx", "train/.c.tar"), WEBDATASET, ("train/a.TAR", "train/b.tar")),
        (("train-000.tar", "validation-000.tar", "straining.tar"), WEBDATASET, ("train-000.tar",)),
        (("it_train_1.tfrecord", "it_val_1.tfrecords"), TFRECORD, ("it_train_1.tfrecord",)),
        (("train/train-00001-of-00002", "train/train-00000-of-00002", "train/readme"), TFRECORD,
         ("train/train-00000-of-00002", "train/train-00001-of-00002")),
        (("train.rec", "train.idx", "val.rec"), RECORDIO, ("train.rec",)),
    ],
)  # fmt: skip
def test_shards_are_found(names: tuple[str, ...], kind: WrittenFormat, found: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    shards = find_shards(tmp_path, "train")
    assert shards is not None
    assert (shards.format, shards.files) == (kind, found)


def test_validation_s_shards_have_either_name(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation/validation-00000-of-00001").touch()
    shards = find_shards(tmp_path, "val")
    assert shards is not None
    assert shards.files == ("validation/validation-00000-of-00001",)
    assert find_shards(tmp_path, "train") is None


def test_shards_of_two_formats_are_refused(tmp_path: Path) -> None:
    for name in ("train-1.tar", "train-2.rec"):
        (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        find_shards(tmp_path, "train")
    assert caught.value.message == f"the shards of train in '{tmp_path}' have several formats: recordio, webdataset"


@ALL
def test_images_are_listed_shard_after_shard(kind: WrittenFormat, tmp_path: Path) -> None:
    images = packed(tmp_path, kind, A, B)
    assert images.labels == [0, 1, 0, 2, 1]
    assert [images.content(index) for index in range(5)] == [content for _, _, content in [*A, *B]]
    shard = f"train/train-001{kind.endings[0]}"
    assert images.paths[4] == f"{shard}/{'2' if kind is RECORDIO else 'b/4.jpg'}"
    assert images.file(4) == f"{tmp_path}/{shard}"
    assert images.files() == [f"{tmp_path}/train/train-00{number}{kind.endings[0]}" for number in range(2)]
    part = images.part([4, 1])
    assert [part.content(index) for index in range(2)] == [b"four", b"one"]


def test_the_list_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed(tmp_path, WEBDATASET, A, B)
    # Nothing is scanned again.
    with monkeypatch.context() as patched:
        patched.setattr(module, "_listed", lambda *_: pytest.fail("listed again"))
        again = listed(tmp_path)
    assert (again.paths, again.labels) == (first.paths, first.labels)
    assert again.extents is not None
    assert isinstance(again.extents.offsets.base, np.memmap)
    assert [again.content(index) for index in range(5)] == [b"zero", b"one", b"two", b"", b"four"]
    write_shard(tmp_path / "train/train-001.tar", WEBDATASET, [("a/2.jpg", 0, b"x" * 2000)])
    assert listed(tmp_path).labels == [0, 1, 0]
    (tmp_path / "train/train-000.tar").unlink()
    assert listed(tmp_path).paths == ["train/train-001.tar/a/2.jpg"]


def test_a_list_that_can_t_be_read_is_made_again(tmp_path: Path) -> None:
    packed(tmp_path, WEBDATASET, A)
    (tmp_path / INDEX / "train/labels.npy").write_bytes(b"")
    assert listed(tmp_path).labels == [0, 1]
    (tmp_path / INDEX / "train/list.json").write_text("{}")
    assert listed(tmp_path).labels == [0, 1]


def test_where_the_list_can_t_be_kept_a_note_says_so(tmp_path: Path) -> None:
    packed(tmp_path, WEBDATASET, A)
    shutil.rmtree(tmp_path / INDEX)
    (tmp_path / INDEX).write_text("a file in its place")
    found = find_shards(tmp_path, "train")
    assert found is not None
    images, notes = list_shards(found, 0, with_labels=True)
    assert images.labels == [0, 1]
    assert [str(note) for note in notes] == [
        f"train: the list of the 2 images in 1 shard can't be kept in {tmp_path / INDEX / 'train'}, and is made at each"
        " start"
    ]
    assert listed(tmp_path).labels == [0, 1]


def test_labels_may_count_from_another_number(tmp_path: Path) -> None:
    packed(tmp_path, TFRECORD, [("a.jpg", 1, b"1"), ("b.jpg", 3, b"3")])
    assert listed(tmp_path, first_label=1).labels == [0, 2]
    with pytest.raises(DataError) as caught:
        listed(tmp_path, first_label=2)
    assert caught.value.message == (
        "1 of 2 images of train have a label below 2:\n  'train/train-000.tfrecord/a.jpg': label 1"
    )
    (tmp_path / "dataset.toml").write_text("first_label = 1\n")
    dataset = open_dataset(tmp_path)
    assert dataset.num_classes == 3
    assert dataset.train.labels == [0, 2]


@pytest.mark.parametrize("value", ["-1", "true", "'1'"])
def test_where_labels_begin_must_be_a_whole_number(value: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(f"first_label = {value}\n")
    with pytest.raises(DataError, match=r"first_label is .*; it must be a whole number of at least 0"):
        open_dataset(tmp_path)


def test_images_without_labels_can_be_verified_but_not_trained_on(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for name in ("a.jpg", "b.jpg", "b.cls"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"1"))
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert caught.value.message == "1 of 2 images of train have no label:\n  'train-0.tar/a.jpg'"
    assert open_dataset(tmp_path, with_labels=False).train.labels == [0, 1]


@ALL
def test_damaged_and_empty_shards_are_refused(kind: WrittenFormat, tmp_path: Path) -> None:
    ending = kind.endings[0]
    packed(tmp_path, kind, A, B)
    damaged = tmp_path / f"train/train-001{ending}"
    damaged.write_bytes(b"\x7f" * 3000)
    with pytest.raises(DataError) as caught:
        listed(tmp_path)
    assert caught.value.message.startswith(
        f"1 of 2 shards of train in '{tmp_path}' can't be used:\n  'train/train-001{ending}': "
    )
    for path in (damaged, tmp_path / f"train/train-000{ending}"):
        path.write_bytes(bytes(10_240) if kind is WEBDATASET else b"")
    with pytest.raises(DataError, match=r"2 shards of train in .* hold no image"):
        listed(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_shard_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    packed(tmp_path, WEBDATASET, A)
    shutil.rmtree(tmp_path / INDEX)
    (tmp_path / "train/train-000.tar").chmod(0)
    with pytest.raises(DataError, match=r"'train/train-000\.tar': permission denied"):
        listed(tmp_path)


@ALL
def test_what_is_wrong_with_images_is_known_before_they_are_read(kind: WrittenFormat, tmp_path: Path) -> None:
    packed(tmp_path, kind, A, B)
    # Its columns are mapped from files, and can't be written to.
    images = listed(tmp_path)
    assert check_files(images).faults == Storage(images).inspect().faults == {3: EMPTY_FILE}
    assert check_files(images).sizes == (4, 3, 3, 0, 4)
    second = tmp_path / f"train/train-001{kind.endings[0]}"
    assert images.extents is not None
    os.truncate(second, int(images.extents.offsets[4]) + 2)
    assert check_files(images).faults == {3: EMPTY_FILE, 4: CUT_SHARD}
    with pytest.raises(OSError, match=CUT_SHARD):
        images.content(4)
    second.unlink()
    gone = "the shard: no such file or directory"
    assert Storage(images).inspect().faults == {2: gone, 3: gone, 4: gone}


def test_pixels_that_would_be_misread_are_found_in_shards(tmp_path: Path) -> None:
    images = packed(tmp_path, WEBDATASET, [("a.pgm", 0, b"P5 1 1 100\n\x10"), ("b.pgm", 0, b"P5 1 1 255\n\x10")])
    assert check_files(images).faults == {0: "a PNM with a maximum of 100, so that DALI would read wrong pixels"}


def test_class_folders_beside_shards_are_the_images(tmp_path: Path) -> None:
    packed(tmp_path, WEBDATASET, A)
    (tmp_path / "train/cat").mkdir()
    (tmp_path / "train/cat/1.jpg").write_bytes(b"1")
    assert open_dataset(tmp_path).train.paths == ["train/cat/1.jpg"]


def test_archives_beside_the_images_that_were_unpacked_from_them_are_passed_over(tmp_path: Path) -> None:
    """ImageNet's own tars often stay where they were unpacked; they are no shards, as nothing in them has a label."""
    write_shard(tmp_path / "ILSVRC2012_img_val.tar", WEBDATASET, A)
    (tmp_path / "train/cat").mkdir(parents=True)
    (tmp_path / "train/cat/1.jpg").write_bytes(b"1")
    (tmp_path / "val").mkdir()
    (tmp_path / "val/ILSVRC2012_val_00000001.JPEG").write_bytes(b"1")
    assert find_shards(tmp_path, "val") is None
    assert list(open_dataset(tmp_path, with_labels=False).splits["val"].paths) == ["val/ILSVRC2012_val_00000001.JPEG"]
    # A tar in val/ itself doesn't replace the images there.
    write_shard(tmp_path / "val/val-000.tar", WEBDATASET, A)
    assert list(open_dataset(tmp_path, with_labels=False).splits["val"].paths) == ["val/ILSVRC2012_val_00000001.JPEG"]


def test_a_shard_that_vanishes_is_named(tmp_path: Path) -> None:
    packed(tmp_path, WEBDATASET, A)
    found = find_shards(tmp_path, "train")
    assert found is not None
    (tmp_path / "train/train-000.tar").unlink()
    with pytest.raises(DataError) as caught:
        list_shards(found, 0, with_labels=True)
    assert caught.value.message == (
        f"a shard of train can't be read: {tmp_path}/train/train-000.tar: No such file or directory"
    )


def test_shards_of_one_class_each_are_not_taken_for_class_folders(tmp_path: Path) -> None:
    """Sorted sets have such shards; those of the two splits may have the same names and other classes."""
    for split, labels in (("train", (0, 1, 2)), ("val", (2, 0))):
        for number, label in enumerate(labels):
            write_shard(tmp_path / split / f"{number:03d}.tar", WEBDATASET, [("a.jpg", label, b"1")])
    dataset = open_dataset(tmp_path)
    assert (list(dataset.train.labels), list(dataset.splits["val"].labels)) == ([0, 1, 2], [2, 0])


def test_the_kept_list_can_be_read_by_others(tmp_path: Path) -> None:
    packed(tmp_path, WEBDATASET, A)
    assert (tmp_path / INDEX / "train").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (tmp_path / INDEX).iterdir()] == ["train"]
