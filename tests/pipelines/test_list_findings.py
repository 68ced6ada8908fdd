"""Images that are listed several times, by their paths and by their files, and what a run says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.classes import Classes
from pipelines.dataset import Dataset, open_dataset
from pipelines.file_checks import FileCheck, check_files
from pipelines.image_lists import ImageList
from pipelines.list_findings import Finding, find_repeats, label_notes, link_notes, repeat_notes
from tests.support.data_sets import a_dataset

BOTH = ("train", "val")


def lists(train: Sequence[tuple[str, int]], val: Sequence[tuple[str, int]] = ()) -> Dataset:
    """A data set of these paths and labels."""
    splits = {
        split: ImageList(Path("/data"), tuple(path for path, _ in rows), tuple(label for _, label in rows))
        for split, rows in (("train", train), ("val", val))
        if rows
    }
    return a_dataset(Path("/data"), 1000, splits)


def checked(dataset: Dataset) -> dict[str, FileCheck]:
    return {split: check_files(images) for split, images in dataset.splits.items()}


def classes(folder: Path, *paths: str) -> Path:
    """Files of different content."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    return folder


def test_images_named_twice_and_in_both_splits() -> None:
    dataset = lists(
        [("a.jpg", 0), ("b.jpg", 1), ("x/../a.jpg", 0), ("b.jpg", 2), ("c//d.jpg", 3)],
        [("e.jpg", 0), ("c/d.jpg", 3), ("a.jpg", 1), ("./a.jpg", 1)],
    )
    assert find_repeats(dataset, checked(dataset)) == {
        "train": {
            2: [Finding(2, "twice", "also image 1 of its list")],
            3: [Finding(3, "two_labels", "label 2 here, 1 as image 2 of its list")],
        },
        "val": {
            1: [Finding(1, "leak", "also image 5 of the training list")],
            2: [
                Finding(2, "leak", "also image 1 of the training list"),
                Finding(2, "two_labels", "label 1 here, 0 as image 1 of the training list"),
            ],
            3: [
                Finding(3, "twice", "also image 3 of its list"),
                Finding(3, "leak", "also image 1 of the training list"),
                Finding(3, "two_labels", "label 1 here, 0 as image 1 of the training list"),
            ],
        },
    }


def test_an_image_with_two_labels_is_noted_as_that() -> None:
    """Attack 13: how many, and an example."""
    dataset = lists([("a.jpg", 0), ("b.jpg", 1), ("b.jpg", 1), ("./a.jpg", 3), ("b.jpg", 2)])
    assert repeat_notes(dataset) == [
        "train: 2 images are listed with two labels: keep the right one of each"
        " ('./a.jpg': label 3 here, 0 as image 1 of its list)",
        "train: 1 image is a repetition in its list: it counts as often as it is listed",
    ]


def test_a_val_that_is_a_link_to_train_is_a_leak(tmp_path: Path) -> None:
    """Attack 25."""
    classes(tmp_path, "train/ant/1.jpg", "train/bee/2.jpg", "train/bee/3.jpg")
    (tmp_path / "val").symlink_to("train")
    dataset = open_dataset(tmp_path, splits=BOTH)
    assert repeat_notes(dataset) == []
    assert link_notes(dataset, checked(dataset)) == [
        "3 validation images are also in the training list: remove them from one of the lists"
        " ('val/ant/1.jpg': the same file as image 1 of the training list, 'train/ant/1.jpg')"
    ]
    found = find_repeats(dataset, checked(dataset))
    assert found["train"] == {}
    assert [finding.kind for index in range(3) for finding in found["val"][index]] == ["leak"] * 3


def test_a_class_folder_that_is_a_link_to_another_has_images_of_two_labels(tmp_path: Path) -> None:
    """Attack 23."""
    classes(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "val/cat/4.jpg")
    (tmp_path / "val" / "dog").symlink_to("cat")
    dataset = open_dataset(tmp_path, splits=BOTH)
    assert link_notes(dataset, checked(dataset)) == [
        "val: 2 images are listed with two labels: keep the right one of each"
        " ('val/dog/3.jpg': label 1 here, 0 as image 1 of its list, 'val/cat/3.jpg')"
    ]


def test_images_that_are_links_to_others_are_known_by_their_files(tmp_path: Path) -> None:
    """Attack 24: hard links and symbolic ones, of another class, the same one and the other split. Copies aren't."""
    classes(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/a/5.jpg", "val/b/6.jpg")
    (tmp_path / "train/a/3.jpg").hardlink_to(tmp_path / "train/a/1.jpg")
    (tmp_path / "train/b/4.jpg").symlink_to("../a/1.jpg")
    (tmp_path / "val/b/7.jpg").hardlink_to(tmp_path / "train/b/2.jpg")
    (tmp_path / "val/b/8.jpg").symlink_to("gone.jpg")
    (tmp_path / "val/b/9.jpg").symlink_to("gone.jpg")
    (tmp_path / "val/b/copy.jpg").write_bytes((tmp_path / "train/b/2.jpg").read_bytes())
    dataset = open_dataset(tmp_path, splits=BOTH)
    first, second = "image 1 of its list, 'train/a/1.jpg'", "image 3 of the training list, 'train/b/2.jpg'"
    assert find_repeats(dataset, checked(dataset)) == {
        "train": {
            1: [Finding(1, "twice", f"the same file as {first}")],
            3: [Finding(3, "two_labels", f"label 1 here, 0 as {first}")],
        },
        "val": {2: [Finding(2, "leak", f"the same file as {second}")]},
    }


def test_an_image_is_not_counted_twice_by_its_path_and_by_its_file(tmp_path: Path) -> None:
    classes(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "train_list.txt").write_text("1.jpg 0\n2.jpg 1\n./1.jpg 0\n")
    dataset = open_dataset(tmp_path)
    assert len(repeat_notes(dataset)) == 1
    assert link_notes(dataset, checked(dataset)) == []
    assert [len(found) for found in find_repeats(dataset, checked(dataset))["train"].values()] == [1]


def test_file_systems_without_inodes_have_no_links() -> None:
    """All files have the inode 0 there."""
    dataset = lists([("a.jpg", 0), ("b.jpg", 1)])
    check = checked(dataset)["train"]
    check.files[:] = (7, 0)
    assert find_repeats(dataset, {"train": check}) == {"train": {}}


def test_an_evaluation_notes_classes_without_an_image(tmp_path: Path) -> None:
    """Attack 30: as a training does."""
    classes(tmp_path, "val/ant/1.jpg", "val/bee/2.jpg")
    (tmp_path / "val/cat").mkdir()
    dataset = open_dataset(tmp_path, outputs=3, splits=("val",))
    assert label_notes(dataset) == ["val: 1 of the model's 3 classes has no image: 2"]
    (tmp_path / "val_list.txt").write_text("val/ant/1.jpg 0\nval/bee/2.jpg 2\n")
    dataset = open_dataset(tmp_path, outputs=4, splits=("val",))
    assert label_notes(dataset) == ["val: 2 of the model's 4 classes have no image: 1, 3"]


def test_classes_without_a_folder_are_noted_once(tmp_path: Path) -> None:
    """An evaluation of some classes: how many there are is a note of `pipelines.classes`."""
    classes(tmp_path, "val/0/1.jpg", "val/1/2.jpg")
    dataset = open_dataset(tmp_path, outputs=9, splits=("val",))
    assert [*dataset.notes, *label_notes(dataset)] == [
        f"7 of the model's 9 classes have no folder in {str(tmp_path / 'val')!r}"
    ]
    (tmp_path / "val/2").mkdir()
    dataset = open_dataset(tmp_path, outputs=9, splits=("val",))
    assert label_notes(dataset) == ["val: 1 of the folders' 3 classes has no image: 2"]


def test_a_rare_label_far_above_the_others_is_noted() -> None:
    """Attack 56."""
    usual = [(f"{index}.jpg", index % 10) for index in range(200)]
    dataset = replace(lists([*usual, ("x.jpg", 255)]), classes=Classes(256, {}, ""))
    assert label_notes(dataset)[-1] == (
        "label 255 alone, of 1 image, makes it 256 classes: the next smaller label is 9. If it is an error, correct it"
    )
    # Not where it has as many images as others, or where something else decides the number of classes.
    many = [(f"x{index}.jpg", 255) for index in range(20)]
    for images, count in (([*usual, *many], 256), ([*usual, ("x.jpg", 255)], 1000), ([*usual, ("x.jpg", 12)], 13)):
        notes = label_notes(replace(lists(images), classes=Classes(count, {}, "")))
        assert not [note for note in notes if note.startswith("label ")]
