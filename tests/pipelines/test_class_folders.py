from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.class_folders import PassedOver, class_names, scan_class_folders
from pipelines.errors import DataError
from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList

HOSTILE_NAMES = [
    "a b.jpg",
    "it's.jpg",
    'say "x".jpg',
    "two\nlines.jpg",
    "=1+1.jpg",
    "é中.jpg",
]


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")


def numbered(folder: Path) -> dict[str, int]:
    return {name: label for label, name in enumerate(class_names(folder))}


def scan(folder: Path) -> tuple[ImageList, PassedOver]:
    return scan_class_folders(folder, folder.parent, numbered(folder), all_filled=True)


def scan_refusal(folder: Path, names: tuple[str, ...] | None = None) -> DataError:
    labels = numbered(folder) if names is None else {name: label for label, name in enumerate(names)}
    with pytest.raises(DataError) as caught:
        scan_class_folders(folder, folder.parent, labels, all_filled=names is None)
    return caught.value


def test_sub_folders_are_the_classes_in_sorted_order(tmp_path: Path) -> None:
    make_files(tmp_path / "train", "cat/2.jpg", "cat/10.jpg", "ant/1.jpg", "bee hive/1.jpg", "README.txt")
    images, _ = scan(tmp_path / "train")
    assert class_names(tmp_path / "train") == ("ant", "bee hive", "cat")
    assert images.root == tmp_path
    assert images.paths == ("train/ant/1.jpg", "train/bee hive/1.jpg", "train/cat/10.jpg", "train/cat/2.jpg")
    assert images.labels == (0, 1, 2, 2)


def test_images_are_told_by_their_extension_in_any_case_and_hidden_ones_are_skipped(tmp_path: Path) -> None:
    make_files(tmp_path / "train", *(f"a/{name}" for name in ("1.JPEG", "2.jpg", "3.Png", "4.bmp", "5.webp", "6.jp2")))
    make_files(tmp_path / "train", "a/notes.txt", "a/jpg", "a/._1.jpg", "a/.jpg", "a/x.jpg.part", ".cache/1.jpg")
    images, _ = scan(tmp_path / "train")
    assert images.paths == tuple(f"train/a/{n}" for n in ("1.JPEG", "2.jpg", "3.Png", "4.bmp", "5.webp", "6.jp2"))


def test_hostile_file_names_are_listed_and_found(tmp_path: Path) -> None:
    make_files(tmp_path / "train" / "=a b", *HOSTILE_NAMES)
    images, _ = scan(tmp_path / "train")
    assert set(images.paths) == {f"train/=a b/{name}" for name in HOSTILE_NAMES}
    check = check_files(images)
    assert (list(check.sizes), check.faults) == ([1] * len(HOSTILE_NAMES), {})


def test_linked_class_folders_count(tmp_path: Path) -> None:
    make_files(tmp_path / "elsewhere", "1.jpg")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "linked").symlink_to(tmp_path / "elsewhere")
    assert scan(tmp_path / "train")[0].paths == ("train/linked/1.jpg",)


def test_the_training_classes_give_the_labels_of_val(tmp_path: Path) -> None:
    make_files(tmp_path / "val", "cat/1.jpg", "cat/2.jpg")
    (tmp_path / "val" / "ant").mkdir()
    images, _ = scan_class_folders(tmp_path / "val", tmp_path, {"ant": 0, "bee": 1, "cat": 2})
    assert images.labels == (2, 2)


def test_a_class_that_training_does_not_know_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "val", "cat/1.jpg", "do\ng/1.jpg")
    error = scan_refusal(tmp_path / "val", ("ant", "cat"))
    assert error.message.splitlines() == [
        f"1 of 2 class folders in '{tmp_path}/val' are not classes of the training set:",
        r"  'do\ng'",
    ]
    assert "2 classes" in error.cure


def test_names_that_differ_only_in_how_accents_are_stored_are_told_apart(tmp_path: Path) -> None:
    """Attack 22: macOS writes an accent as a character of its own, which looks the same."""
    make_files(tmp_path / "val", "a\u0308nt/1.jpg", "cat/1.jpg", "emu/1.jpg")
    error = scan_refusal(tmp_path / "val", ("cat", "\xe4nt"))
    assert error.message.splitlines()[1:] == [
        r"  'a\u0308nt', where training has '\xe4nt': only the accents are stored in another way",
        "  'emu'",
    ]


def test_an_empty_training_class_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "train", "cat/1.jpg", "fish/notes.txt")
    error = scan_refusal(tmp_path / "train")
    assert error.message.splitlines() == [
        f"1 of 2 class folders in '{tmp_path}/train' hold no image:",
        "  'fish'",
    ]
    assert "fill these, or remove them" in error.cure


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "val", "ILSVRC2012_val_00000001.JPEG")
    error = scan_refusal(tmp_path / "val")
    assert error.message == f"the folder '{tmp_path}/val' holds no class folders"
    assert "val_list.txt" in error.cure


def test_class_folders_without_a_single_image_are_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "train", "cat/images/1.jpg", "dog/images/1.jpg")
    error = scan_refusal(tmp_path / "train")
    assert error.message == f"none of the 2 class folders in '{tmp_path}/train' holds an image"
    assert ".jpg, .jpeg, .jpe, .jfif, .png, .bmp" in error.cure


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    error = scan_refusal(tmp_path / "train", ())
    assert error.message == f"the folder '{tmp_path}/train' cannot be read: No such file or directory"
