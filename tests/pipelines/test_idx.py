from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipelines import idx as module
from pipelines.errors import DataError
from pipelines.idx import IdxSet, read_idx, read_idx_folder
from tests.support.idx_files import TRAIN_LABELS, VAL_LABELS, contents, idx, pack, pictures, write_set

NAMES = tuple(contents())


def assert_whole(found: IdxSet) -> None:
    np.testing.assert_array_equal(found.train.images, pictures(12, seed=1))
    np.testing.assert_array_equal(found.train.labels, TRAIN_LABELS)
    np.testing.assert_array_equal(found.val.images, pictures(5, seed=2))
    np.testing.assert_array_equal(found.val.labels, VAL_LABELS)


def test_a_set_is_read_byte_by_byte_and_its_highest_label_decides_the_classes(tmp_path: Path) -> None:
    found = read_idx_folder(write_set(tmp_path / "set"))
    assert_whole(found)
    assert found.num_classes == 5


def test_classes_count_a_label_that_only_validation_has(tmp_path: Path) -> None:
    labels = np.array([1, 0, 3, 61, 1], np.uint8)
    assert read_idx_folder(write_set(tmp_path / "set", t10k_labels=idx(labels))).num_classes == 62


def test_the_last_index_runs_first(tmp_path: Path) -> None:
    """As written out in bytes, and not only as the test's own writer has it."""
    path = tmp_path / "two"
    path.write_bytes(bytes.fromhex("00000803 00000002 00000002 00000003") + bytes(range(12)))
    assert read_idx(path, 3).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    path.write_bytes(bytes.fromhex("00000801 00000003 ff0007"))
    assert read_idx(path, 1).tolist() == [255, 0, 7]


def test_transposed_swaps_rows_and_columns_alone(tmp_path: Path) -> None:
    found = read_idx_folder(write_set(tmp_path / "set"))
    swapped = found.transposed()
    np.testing.assert_array_equal(swapped.train.images, [image.T for image in found.train.images])
    np.testing.assert_array_equal(swapped.val.images, [image.T for image in found.val.images])
    assert_whole(swapped.transposed())


@pytest.mark.parametrize(
    "spelling",
    [
        "{split}-{content}-idx{dimensions}-ubyte",
        "{split}-{content}.idx{dimensions}-ubyte",
        "emnist-letters-{split}-{content}-idx{dimensions}-ubyte",
    ],
)
@pytest.mark.parametrize("packed", [(), NAMES, NAMES[:1], NAMES[3:]], ids=["plain", "packed", "images", "labels"])
@pytest.mark.parametrize("val", ["t10k", "test"])
def test_every_spelling_is_found(tmp_path: Path, spelling: str, packed: tuple[str, ...], val: str) -> None:
    write_set(tmp_path / "set")
    for name in NAMES:
        split, content, *_ = name.split("-")
        split = val if split == "t10k" else split
        spelt = spelling.format(split=split, content=content, dimensions=3 if content == "images" else 1)
        path = (tmp_path / "set" / name).rename(tmp_path / "set" / spelt)
        if name in packed:
            pack(path)
    (tmp_path / "set" / "readme.md").write_text("no part of it")
    assert_whole(read_idx_folder(tmp_path / "set"))


def test_what_is_packed_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    pack(folder / NAMES[0])
    (folder / f"{NAMES[0]}.gz").rename(folder / NAMES[0])
    (folder / NAMES[1]).rename(folder / f"{NAMES[1]}.gz")
    assert_whole(read_idx_folder(folder))


def test_unpacked_goes_before_packed(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    (folder / f"{NAMES[0]}.gz").write_bytes(b"not even gzip")
    assert_whole(read_idx_folder(folder))


def images(count: int, height: int, width: int) -> bytes:
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", count, height, width)


GOOD = contents()
IMAGES = GOOD["train-images-idx3-ubyte"]
LABELS = GOOD["train-labels-idx1-ubyte"]
MAGIC = "00 00 08 03 is expected: IDX, unsigned bytes, 3 dimensions"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train_images", b"", f"begins with nothing; {MAGIC}"),
        ("train_images", IMAGES[:3], f"begins with 00 00 08; {MAGIC}"),
        ("train_images", b"<!DOCTYPE html>", f"begins with 3c 21 44 4f; {MAGIC}"),
        ("train_images", LABELS, f"begins with 00 00 08 01; {MAGIC}"),
        ("train_images", b"\0\0\x0d" + IMAGES[3:], f"begins with 00 00 0d 03; {MAGIC}"),
        ("train_labels", IMAGES, "begins with 00 00 08 03; 00 00 08 01 is expected: IDX, unsigned bytes, 1 dimension"),
        ("train_labels", b"\0\0\x0c\1" + LABELS[4:], "begins with 00 00 0c 01; 00 00 08 01 is expected"),
        ("train_images", IMAGES[:15], "ends in its header, 15 of 16 bytes long"),
        ("train_labels", LABELS[:4], "ends in its header, 4 of 8 bytes long"),
        ("train_images", IMAGES[:-1], "should hold 12 x 28 x 28 values, 9,408 bytes, but holds 9,407"),
        ("train_images", IMAGES + b"\0", "should hold 12 x 28 x 28 values, 9,408 bytes, but holds more"),
        ("train_labels", LABELS[:-1], "should hold 12 values, 12 bytes, but holds 11"),
        ("train_labels", LABELS + b"\0" * 99, "should hold 12 values, 12 bytes, but holds more"),
        ("train_images", images(12, 28, 0), "says that its images are 0 x 28 pixels; at least 1 x 1 is needed"),
        ("train_images", images(12, 0, 28), "says that its images are 28 x 0 pixels; at least 1 x 1 is needed"),
        (
            "train_images",
            images(2**32 - 1, 2**32 - 1, 2**32 - 1),
            "holds 4,294,967,295 x 4,294,967,295 x 4,294,967,295 values,"
            " 79,228,162,458,924,105,385,300,197,375 bytes; at most 1,073,741,824 are read",
        ),
        ("train_images", images(2_000_001, 1, 1), "says that it holds 2,000,001 images; at most 2,000,000 are read"),
        ("train_images", idx(pictures(11)), "11 images, but 12 labels"),
        ("train_labels", idx(np.zeros(13, np.uint8)), "12 images, but 13 labels"),
        ("train_images", images(12, 20, 28) + bytes(12 * 560), "images of 28 x 20 pixels; only square ones are imp"),
        ("train_images", gzip.compress(IMAGES)[:-9], "cannot be unpacked: Compressed file ended before the end"),
        ("train_images", gzip.compress(IMAGES)[:-8] + bytes(8), "cannot be unpacked: CRC check failed"),
        ("train_images", gzip.compress(IMAGES)[:10] + b"\xff" * 99, "cannot be unpacked: Error -3 while decompressing"),
        ("train_images", b"\x1f\x8b\xff" + bytes(99), "cannot be unpacked: Unknown compression method"),
        ("train_images", gzip.compress(IMAGES) + b"garbage", "cannot be unpacked: Not a gzipped file"),
        ("train_images", gzip.compress(IMAGES + b"\0"), "should hold 12 x 28 x 28 values, 9,408 bytes, but holds more"),
        ("train_images", gzip.compress(b""), f"begins with nothing; {MAGIC}"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_every_defect_names_its_file_the_value_and_the_cure(
    tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    folder = write_set(tmp_path / "set", **{file: content})
    with pytest.raises(DataError) as caught:
        read_idx_folder(folder)
    assert message in caught.value.message
    assert f"{file.replace('_', '-')}-idx" in caught.value.message
    assert caught.value.cure


def test_images_that_are_not_square_have_a_cure_of_their_own(tmp_path: Path) -> None:
    """Attack 58: the two files belong together."""
    with pytest.raises(DataError) as caught:
        read_idx_folder(write_set(tmp_path / "set", train_images=images(12, 20, 28) + bytes(12 * 560)))
    assert caught.value.cure.startswith("Write the images as files (PNG or JPEG), which may have any shape")


def test_images_of_both_splits_are_counted(tmp_path: Path) -> None:
    """Attack 59."""
    train = pictures(12, seed=1)
    shared = np.concatenate((train[3:5], pictures(3, seed=2)))
    assert read_idx_folder(write_set(tmp_path / "some", t10k_images=idx(shared))).shared_images() == 2
    assert read_idx_folder(write_set(tmp_path / "none")).shared_images() == 0


def test_a_set_of_no_images_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", train_images=images(0, 28, 28), train_labels=idx(np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match="0 images; at least 1 is needed"):
        read_idx_folder(folder)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of zeros in 64 KiB: refused unread where the header owns to them, and after its 12 images where not."""
    zeros = bytes(2**26)
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    folder = write_set(tmp_path / "set", train_images=gzip.compress(images(2**26, 1, 1) + zeros))
    lying = write_set(tmp_path / "lying", train_images=gzip.compress(IMAGES + zeros))
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"67,108,864 bytes; at most 1,048,576 are read"):
            read_idx_folder(folder)
        with pytest.raises(DataError, match="9,408 bytes, but holds more"):
            read_idx_folder(lying)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_a_promise_takes_no_memory(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", train_images=images(2**20, 32, 32) + bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"1,073,741,824 bytes, but holds 100"):
            read_idx_folder(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_set(tmp_path / "set")
    (folder / name).unlink()
    with pytest.raises(DataError) as caught:
        read_idx_folder(folder)
    assert caught.value.message == f"{str(folder)!r} holds no {name}, packed or not"
    assert name in caught.value.cure


def test_of_two_sets_in_a_folder_none_is_guessed(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    for name, content in contents().items():
        (folder / f"emnist-letters-{name}").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx_folder(folder)
    assert caught.value.message == (
        f"{str(folder)!r} holds 2 files for train-labels-idx1-ubyte, where 1 is expected:"
        " 'emnist-letters-train-labels-idx1-ubyte', 'train-labels-idx1-ubyte'"
    )
    assert caught.value.cure == "Put the four files of one set into a separate folder."


def in_folders(folder: Path, spelling: str = "{}") -> None:
    """Move each file of a set into a folder of its own name, as some archives have them."""
    for name in NAMES:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        inner = folder / name
        inner.mkdir()
        (inner / spelling.format(name)).write_bytes(content)


@pytest.mark.parametrize("beside", ["dots", "packed"])
def test_files_beside_folders_of_the_same_name_are_taken(tmp_path: Path, beside: str) -> None:
    """Case C10: as Kaggle packs MNIST; what is in the folders is not looked at."""
    folder, other = write_set(tmp_path / "set"), write_set(tmp_path / "other")
    in_folders(folder)
    for name in NAMES:
        (folder / name / name).write_bytes(b"something else")
        if beside == "packed":
            (folder / f"{name}.gz").write_bytes(gzip.compress((other / name).read_bytes()))
        else:
            (folder / name.replace("-idx", ".idx")).write_bytes((other / name).read_bytes())
    found, wanted = read_idx_folder(folder), read_idx_folder(other)
    np.testing.assert_array_equal(found.train.images, wanted.train.images)
    np.testing.assert_array_equal(found.val.labels, wanted.val.labels)


@pytest.mark.parametrize("spelling", ["{}", "{}.gz"])
def test_files_in_folders_of_the_same_name_are_found(tmp_path: Path, spelling: str) -> None:
    """Case C10: an archive with a folder for each file."""
    folder, other = write_set(tmp_path / "set"), write_set(tmp_path / "other")
    in_folders(folder, spelling)
    found, wanted = read_idx_folder(folder), read_idx_folder(other)
    np.testing.assert_array_equal(found.train.images, wanted.train.images)
    np.testing.assert_array_equal(found.val.labels, wanted.val.labels)


def test_folders_without_the_files_are_no_set(tmp_path: Path) -> None:
    """Case C10: empty folders, and two of them that could be meant."""
    folder = write_set(tmp_path / "set")
    in_folders(folder)
    name = "train-labels-idx1-ubyte"
    twin = folder / name.replace("-idx", ".idx")
    twin.mkdir()
    (twin / twin.name).write_bytes((folder / name / name).read_bytes())
    with pytest.raises(DataError, match=r"holds 2 files for train-labels.*'train-labels-idx1-ubyte/train-labels-idx1"):
        read_idx_folder(folder)
    (twin / twin.name).unlink()
    assert read_idx_folder(folder).train.labels.size
    (folder / name / name).unlink()
    with pytest.raises(DataError, match="holds no train-labels-idx1-ubyte, packed or not"):
        read_idx_folder(folder)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    (folder / NAMES[1]).unlink()
    os.mkfifo(folder / NAMES[1])  # a read would wait for good
    with pytest.raises(DataError, match="not a file: "):
        read_idx_folder(folder)
    (folder / NAMES[1]).unlink()
    (folder / NAMES[1]).symlink_to("nowhere")
    with pytest.raises(DataError, match="cannot be read: No such file or directory"):
        read_idx_folder(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "no such folder: "),
        ("file", "cannot be opened: Not a directory"),
        ("a\0b", "cannot be opened: "),
        ("x" * 300, "cannot be opened: File name too long"),
    ],
)
def test_a_folder_that_cannot_be_opened_is_told(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError) as caught:
        read_idx_folder(tmp_path / name)
    assert message in caught.value.message
    assert "train-images-idx3-ubyte" in caught.value.cure
