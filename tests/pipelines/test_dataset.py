from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipelines.augmentation import Augmentation
from pipelines.classes import Classes
from pipelines.dataset import Dataset, fingerprint, is_imagenet, open_dataset
from pipelines.errors import DataError
from pipelines.image_lists import ImageList
from pipelines.imagenet.numbering import known_validation_labels
from tests.support.data_sets import a_dataset, imagenet_list


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder with both lists."""
    (tmp_path / "train_list.txt").write_text("train/a.jpg 0\ntrain/b.jpg 999\n")
    (tmp_path / "val_list.txt").write_text("val/c.jpg 3\n")
    return tmp_path


@pytest.fixture
def foldered(tmp_path: Path) -> Path:
    """A folder with three classes and no lists."""
    make_files(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "train/cat/1.jpg", "val/cat/2.jpg", "val/ant/2.jpg")
    return tmp_path


def refusal(data: str | Path, num_classes: int | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(data, num_classes)
    return caught.value


def test_lists_have_as_many_classes_as_their_labels_need(listed: Path) -> None:
    dataset = open_dataset(str(listed))
    assert dataset == Dataset(
        name=listed.name,
        root=listed,
        classes=Classes(1000, {}, "1,000, from the largest label in the lists"),
        splits={
            "train": ImageList(listed, ("train/a.jpg", "train/b.jpg"), (0, 999)),
            "val": ImageList(listed, ("val/c.jpg",), (3,)),
        },
        augmentation=Augmentation(),
        builtin=False,
    )
    assert open_dataset(listed, 1200).num_classes == 1200


def test_lists_go_before_folders(listed: Path) -> None:
    make_files(listed, "train/ant/1.jpg", "val/ant/1.jpg")
    dataset = open_dataset(listed)
    assert len(dataset.train) == 2
    assert dataset.val is not None
    assert dataset.val.paths == ("val/c.jpg",)


def test_labels_of_both_lists_must_fit_the_classes(listed: Path) -> None:
    error = refusal(listed, 10)
    assert "outside 0..9" in error.message
    assert "--classes 1000" in error.cure
    assert open_dataset(listed, 1000).num_classes == 1000
    (listed / "train_list.txt").write_text("train/a.jpg 0\n")
    (listed / "val_list.txt").write_text("val/c.jpg 10\n")
    assert "val_list.txt:1: label 10 of 'val/c.jpg'" in refusal(listed, 10).message


def test_class_folders_are_as_many_classes_as_there_are(foldered: Path) -> None:
    dataset = open_dataset(foldered)
    assert dataset.num_classes == 3
    assert dataset.train.paths == ("train/ant/1.jpg", "train/bee/1.jpg", "train/cat/1.jpg")
    assert dataset.train.labels == (0, 1, 2)
    assert dataset.val == ImageList(foldered, ("val/ant/2.jpg", "val/cat/2.jpg"), (0, 2))
    assert open_dataset(foldered, 1000).num_classes == 1000


def test_fewer_classes_than_folders_are_refused(foldered: Path) -> None:
    error = refusal(foldered, 2)
    assert error.message == f"'{foldered}/train' holds 3 class folders, more than the 2 classes asked for (--classes)"
    assert "--classes 3" in error.cure


def test_val_may_be_missing(foldered: Path) -> None:
    (foldered / "val").rename(foldered / "elsewhere")
    assert open_dataset(foldered).val is None


def test_val_may_come_from_a_list_beside_training_folders(foldered: Path) -> None:
    (foldered / "val_list.txt").write_text("val/x.jpg 1\n")
    dataset = open_dataset(foldered)
    assert dataset.val is not None
    assert dataset.val.labels == (1,)


def test_a_val_class_that_training_does_not_know_is_refused(foldered: Path) -> None:
    make_files(foldered, "val/dog/1.jpg")
    assert "'dog'" in refusal(foldered).message


def test_a_missing_folder_is_named_with_what_else_data_takes(tmp_path: Path) -> None:
    error = refusal(f"{tmp_path}/photo\ns")
    assert error.message == rf"no such folder: '{tmp_path}/photo\ns'"
    assert "--data" in error.cure
    assert "digits, photos" in error.cure


@pytest.mark.parametrize(
    ("name", "reason"),
    [("l" * 256, "File name too long"), ("file/below", "Not a directory"), ("a\0b", "null")],
)
def test_a_folder_that_cannot_be_opened_is_named_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    make_files(tmp_path, "file")
    error = refusal(tmp_path / name)
    assert error.message.startswith(f"the folder '{tmp_path}/{name[0]}")
    assert reason in error.message.split("cannot be opened: ")[1]
    assert "--data" in error.cure


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "images.tar")
    assert refusal(tmp_path / "images.tar").message == f"not a folder: '{tmp_path}/images.tar'"


def test_a_folder_with_neither_lists_nor_train_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.message == f"'{tmp_path}' holds neither train_list.txt nor a folder train nor shards"
    assert "ImageNet's layout" in error.cure


def test_no_classes_are_refused(listed: Path) -> None:
    error = refusal(listed, 0)
    assert error.message == "0 classes asked for; at least 1 is needed"
    assert "--classes" in error.cure


def test_dataset_toml_names_the_set_and_its_augmentation(foldered: Path) -> None:
    (foldered / "dataset.toml").write_text(
        'name = "insects"\nnum_classes = 5\n[augmentation]\nflip_probability = 0\ncrop_area_min = 0.35\n'
    )
    dataset = open_dataset(foldered)
    assert dataset.name == "insects"
    assert dataset.num_classes == 5
    assert dataset.augmentation == Augmentation(flip_probability=0.0, crop_area_min=0.35)
    assert open_dataset(foldered, 4).num_classes == 4


def test_dataset_toml_gives_the_classes_of_lists_too(listed: Path) -> None:
    (listed / "dataset.toml").write_text("num_classes = 1001")
    assert open_dataset(listed).num_classes == 1001
    assert open_dataset(listed).name == listed.name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("clases = 5", ["has unknown keys: 'clases'", "name, num_classes, first_label, augmentation"]),
        ("[augmentation]\nflip = 0.0", ["[augmentation] has unknown keys: 'flip'", "aspect_max, flip_probability"]),
        ("[augmentation]\nflip_probability = 2", ["[augmentation]: flip_probability is 2", "between 0 and 1"]),
        ('[augmentation]\ncrop_area_min = "small"', ["crop_area_min is 'small'; it must be a number"]),
        ("[augmentation]\ncrop_area_min = true", ["crop_area_min is True; it must be a number"]),
        ("augmentation = 3", ["augmentation is 3; it must be a table", "[augmentation]"]),
        ("name = 3", ["name is 3; it must be a text"]),
        ('name = " "', ["name is ' '; it must be a text"]),
        ("num_classes = 0", ["num_classes is 0; it must be a whole number of at least 1"]),
        ("num_classes = 2.5", ["num_classes is 2.5"]),
        ("num_classes = true", ["num_classes is True"]),
        ("num_classes =", ["is not TOML", "toml.io"]),
    ],
)
def test_what_dataset_toml_must_not_say(foldered: Path, text: str, parts: list[str]) -> None:
    (foldered / "dataset.toml").write_text(text)
    error = refusal(foldered)
    assert f"'{foldered}/dataset.toml'" in error.message
    for part in parts:
        assert part in f"{error.message}\n{error.cure}"


@pytest.mark.parametrize("text", ['name = "insects"', "\n[augmentation]\nflip_probability = 0\n"])
def test_a_byte_order_mark_in_dataset_toml_is_passed_over(foldered: Path, text: str) -> None:
    """Case C8: some editors put one in front."""
    (foldered / "dataset.toml").write_text(text, encoding="utf-8")
    plain = open_dataset(foldered)
    (foldered / "dataset.toml").write_text(text, encoding="utf-8-sig")
    assert open_dataset(foldered) == plain
    assert plain != open_dataset(foldered.parent / foldered.name, 4)


def test_dataset_toml_that_cannot_be_read_is_refused(foldered: Path) -> None:
    (foldered / "dataset.toml").write_bytes(b'name = "\xff"')
    assert "is not TOML" in refusal(foldered).message
    (foldered / "dataset.toml").unlink()
    (foldered / "dataset.toml").mkdir()
    assert "cannot be read: Is a directory" in refusal(foldered).message


@pytest.mark.usefixtures("builtin_cache")
def test_a_folder_does_not_shadow_a_built_in_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path, "digits/train/ant/1.jpg")
    builtin, folder = open_dataset("digits"), open_dataset("./digits")
    assert (builtin.builtin, builtin.num_classes, builtin.name) == (True, 10, "digits")
    assert (folder.builtin, folder.num_classes, folder.name) == (False, 1, "digits")
    assert open_dataset(Path("digits")) == folder


def test_the_working_directory_has_a_name(foldered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(foldered)
    assert open_dataset(".").name == foldered.name


@pytest.mark.usefixtures("builtin_cache")
def test_a_built_in_set_takes_no_fewer_classes_than_it_has() -> None:
    assert "--classes 10" in refusal("digits", 9).cure


def test_the_fingerprint_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """Records of runs that are resumed and compared have it."""
    splits = {
        "train": ImageList(tmp_path, (*(f"{index}.jpg" for index in range(20_000)), "\udcff.jpg"), range(20_001)),
        "val": ImageList(tmp_path, ("é.jpg", "b.jpg"), (3, 0)),
    }
    expected = hashlib.sha256()
    for split, images in splits.items():
        expected.update(f"\0\0{split}\0{len(images)}\0".encode())
        expected.update("\0".join(images.paths).encode(errors="surrogateescape"))
        expected.update(",".join(map(str, images.labels)).encode())
    assert fingerprint(a_dataset(tmp_path, 20_001, splits)) == expected.hexdigest()


def of_length(images: int) -> ImageList:
    return ImageList(Path(), ("x.jpg",) * images, (0,) * images)


def test_only_the_exact_counts_are_imagenet(tmp_path: Path) -> None:
    both = {"train": imagenet_list(1_281_167), "val": imagenet_list(50_000)}
    assert is_imagenet(a_dataset(tmp_path, 1000, both))
    assert is_imagenet(a_dataset(tmp_path, 1000, {"train": both["train"]}))
    assert not is_imagenet(a_dataset(tmp_path, 1000, {**both, "train": imagenet_list(1_281_166)}))
    assert not is_imagenet(a_dataset(tmp_path, 1000, {**both, "val": imagenet_list(49_999)}))
    assert not is_imagenet(a_dataset(tmp_path, 1001, both))


def test_names_that_are_not_imagenet_s_are_not_imagenet(tmp_path: Path) -> None:
    """Whatever the counts: names that say nothing, other WordNet IDs, labels that are not theirs."""
    train, val = imagenet_list(1_281_167), imagenet_list(50_000)
    numbered = tuple(f"val/ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 50_001))
    known = known_validation_labels()
    labels = tuple(known.get(number, 0) for number in range(1, 50_001))
    assert is_imagenet(a_dataset(tmp_path, 1000, {"train": train, "val": ImageList(tmp_path, numbered, labels)}))
    others = (
        {"train": of_length(1_281_167)},
        {"train": ImageList(tmp_path, (path.replace("/n", "/n9") for path in train.paths), train.labels)},
        {"train": ImageList(tmp_path, train.paths, train.labels[::-1])},
        {"train": train, "val": ImageList(tmp_path, val.paths, (0, *val.labels[:-1]))},
        {"train": train, "val": ImageList(tmp_path, numbered, tuple(label ^ 1 for label in labels))},
    )
    assert [is_imagenet(a_dataset(tmp_path, 1000, splits)) for splits in others] == [False] * len(others)


def test_a_dataset_that_no_model_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train holds 0 images"):
        a_dataset(tmp_path, 10, {"train": of_length(0)})
    with pytest.raises(ValueError, match=r"val has labels 0\.\.10; 10 classes allow 0\.\.9"):
        a_dataset(tmp_path, 10, {"train": of_length(1), "val": ImageList(tmp_path, ("a", "b"), (0, 10))})
