"""Where a data set's images and labels may lie, and what is passed over there (cases A6, A7, C2, C3, C6 and C9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.class_folders import IMAGE_EXTENSIONS, NO_CLASSES
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.imagenet.numbering import kit_number_of_label, known_validation_labels, wnids
from pipelines.imagenet.validation import KAGGLE_FILE, KIT_FILE
from pipelines.layout import Lists
from pipelines.list_findings import label_notes, repeat_notes
from pipelines.storage import Storage
from pipelines.verification import Verification

TRAIN, VAL, BOTH = ("train",), ("val",), ("train", "val")
NUMBERS = (1, 2, 3, 49_900)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")


def flat_val(folder: Path) -> None:
    fill(folder, *(f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in NUMBERS))


def expected() -> tuple[int, ...]:
    return tuple(known_validation_labels()[number] for number in NUMBERS)


def kaggle(folder: Path) -> None:
    rows = [
        f"ILSVRC2012_val_{number:08d},{wnids()[label]} 1 2 3 4 {wnids()[label]} 5 6 7 8"
        for number, label in known_validation_labels().items()
    ]
    (folder / KAGGLE_FILE).write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")


def kit(folder: Path) -> None:
    """The kit's file with the numbers of the images that are known, and another one for all others."""
    known = known_validation_labels()
    numbers = [kit_number_of_label()[known.get(number, 7)] for number in range(1, 50_001)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / KIT_FILE).write_text("".join(f"{number}\n" for number in numbers))


def refusal(folder: Path, splits: tuple[str, ...] = BOTH, outputs: int | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(folder, splits=splits, outputs=outputs)
    return caught.value


@pytest.mark.parametrize("above", ["", "ILSVRC/Data/CLS-LOC", "Data"])
@pytest.mark.parametrize("source", ["kaggle", "kit", "kit unpacked"])
def test_a_flat_val_has_the_labels_of_kaggle_or_the_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str, source: str
) -> None:
    """Case C2: in the folder or up to three above, also for a relative path."""
    data = tmp_path / above
    flat_val(data)
    fill(data, *(f"train/{wnid}/1.JPEG" for wnid in ("n01440764", "n15075141")))
    {
        "kaggle": lambda: kaggle(tmp_path),
        "kit": lambda: kit(tmp_path),
        "kit unpacked": lambda: kit(tmp_path / "ILSVRC2012_devkit_t12" / "data"),
    }[source]()
    monkeypatch.chdir(data)
    for folder in (data, Path()):
        dataset = open_dataset(folder, splits=BOTH)
        assert dataset.splits["val"].labels == expected()
        assert (*dataset.train.labels, dataset.num_classes) == (0, 999, 1000)
        assert any("4 of 50,000 images in one folder" in note for note in dataset.notes)
    assert open_dataset(data, outputs=1000, splits=VAL).splits["val"].labels == expected()


def test_a_flat_val_beside_a_training_list(tmp_path: Path) -> None:
    """Case C2."""
    flat_val(tmp_path)
    kaggle(tmp_path)
    (tmp_path / "train_list.txt").write_text("a.jpg 0\nb.jpg 5\n")
    dataset = open_dataset(tmp_path, splits=BOTH)
    assert (dataset.num_classes, *dataset.splits["val"].labels) == (1000, *expected())
    with pytest.raises(DataError, match="ImageNet's, 0 to 999, but there are 10 classes") as caught:
        open_dataset(tmp_path, 10, splits=BOTH)
    assert "--classes 1000" in caught.value.cure
    assert open_dataset(tmp_path, 1000, splits=BOTH).splits["val"].labels == expected()


def test_a_flat_val_without_labels(tmp_path: Path) -> None:
    """Case C2: throughput needs none, an accuracy does, and pixels can be verified without."""
    flat_val(tmp_path)
    fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    assert list(open_dataset(tmp_path, splits=TRAIN).splits) == ["train"]
    assert KAGGLE_FILE in refusal(tmp_path).message
    assert "val_list.txt" in refusal(tmp_path, VAL, 2).cure
    seen = open_dataset(tmp_path)
    assert list(seen.splits) == ["train"]
    assert any("val is left out" in note for note in seen.notes)
    checked = open_dataset(tmp_path, with_labels=False)
    assert len(checked.splits["val"]) == len(NUMBERS)
    assert any("the labels of val are not checked" in note for note in checked.notes)
    (tmp_path / "val_list.txt").write_text("val/ILSVRC2012_val_00000001.JPEG 1\n")
    assert open_dataset(tmp_path, splits=BOTH).splits["val"].labels == (1,)


def test_images_that_the_labels_do_not_name_are_refused(tmp_path: Path) -> None:
    """Case C2: another flat folder beside Kaggle's table, and tables of something else."""
    fill(tmp_path, "train/n01440764/1.JPEG", "val/cat.jpg")
    kaggle(tmp_path)
    assert "'cat.jpg'" in refusal(tmp_path).message
    (tmp_path / "val" / "cat.jpg").unlink()
    flat_val(tmp_path)
    (tmp_path / KAGGLE_FILE).write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n")
    assert "another class than ILSVRC2012" in refusal(tmp_path).message
    (tmp_path / KAGGLE_FILE).write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,cat 1 2 3 4\n")
    assert "line 2" in refusal(tmp_path).message
    (tmp_path / KAGGLE_FILE).unlink()
    (tmp_path / KIT_FILE).write_text("490\n361\n")
    assert "has 2 lines" in refusal(tmp_path).message
    (tmp_path / KIT_FILE).write_text("490\n1001\n")
    assert "line 2" in refusal(tmp_path).message


@pytest.mark.parametrize("broken", ["val_list.txt", "val"])
def test_throughput_does_not_open_the_validation_images(tmp_path: Path, broken: str) -> None:
    """Case C2: whatever is wrong with them."""
    fill(tmp_path, "train/a/1.jpg")
    (tmp_path / broken).write_bytes(b"\xff no list")
    assert list(open_dataset(tmp_path, splits=TRAIN).splits) == ["train"]


@pytest.mark.parametrize(
    ("listed", "folders", "labels"),
    [
        ("train/cat/1.jpg 0\ntrain/ant/1.jpg 1\n", ("ant", "cat"), (0, 1)),
        ("x/n15075141/1.jpg 999\nx/n01440764/1.jpg 0\n", ("n01440764",), (0,)),
        ("1.jpg 0\n2.jpg 999\n", ("n01440764", "n15075141"), (0, 999)),
        ("1.jpg 0\n2.jpg 10\n", ("0", "2", "10"), (0, 2, 10)),
    ],
)
def test_a_training_list_says_what_the_validation_folders_mean(
    tmp_path: Path, listed: str, folders: tuple[str, ...], labels: tuple[int, ...]
) -> None:
    """Case C2: by the folders that it names, by WordNet IDs, and by numbers; an evaluation has the same labels."""
    (tmp_path / "train_list.txt").write_text(listed)
    fill(tmp_path, *(f"val/{name}/1.jpg" for name in folders))
    dataset = open_dataset(tmp_path, splits=BOTH)
    assert dataset.splits["val"].labels == labels
    found = open_dataset(tmp_path, outputs=dataset.num_classes, splits=VAL)
    assert found.splits == {"val": dataset.splits["val"]}


@pytest.mark.parametrize(
    ("listed", "folders"),
    [("1.jpg 0\n2.jpg 1\n", ("ant", "cat")), ("train/ant/1.jpg 0\ntrain/bee/1.jpg 1\n", ("ant", "cat"))],
)
def test_validation_folders_that_the_training_list_does_not_know(
    tmp_path: Path, listed: str, folders: tuple[str, ...]
) -> None:
    """Case C2: refused where an accuracy is wanted; the cure is a list."""
    (tmp_path / "train_list.txt").write_text(listed)
    fill(tmp_path, *(f"val/{name}/1.jpg" for name in folders))
    assert "val_list.txt" in refusal(tmp_path).cure
    assert "val_list.txt" in refusal(tmp_path, VAL, 2).cure
    assert len(open_dataset(tmp_path, with_labels=False).splits["val"]) == 2
    (tmp_path / "val_list.txt").write_text("val/ant/1.jpg 0\n")
    assert open_dataset(tmp_path, splits=BOTH).splits["val"].labels == (0,)


def test_an_evaluation_needs_only_validation_images(tmp_path: Path) -> None:
    """Case C3: a list alone, class folders alone, and a training set that can't be read."""
    fill(tmp_path / "a", "val/1.jpg")
    (tmp_path / "a" / "val_list.txt").write_text("val/1.jpg 3\n")
    assert open_dataset(tmp_path / "a", outputs=7, splits=VAL).num_classes == 7
    fill(tmp_path / "b", "val/x/1.jpg", "val/y/1.jpg")
    assert open_dataset(tmp_path / "b", outputs=2, splits=VAL).splits["val"].labels == (0, 1)
    (tmp_path / "a" / "train_list.txt").write_text("nonsense\n")
    dataset = open_dataset(tmp_path / "a", outputs=7, splits=VAL)
    assert list(dataset.splits) == ["val"]
    with pytest.raises(KeyError):
        _ = dataset.train
    assert "outside 0..2" in refusal(tmp_path / "a", VAL, 3).message
    assert "train_list.txt" in refusal(tmp_path / "b").message


def test_lists_and_images_may_be_elsewhere(tmp_path: Path) -> None:
    """Case C6."""
    fill(tmp_path / "images", "a/1.jpg", "b/1.jpg")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "t.csv").write_text(f"{tmp_path}/images/a/1.jpg,0\nb/1.jpg,1\n")
    (lists / "v.txt").write_text("b/1.jpg 1\n")
    where = Lists(str(lists / "t.csv"), str(lists / "v.txt"), str(tmp_path / "images"))
    for data in (lists, tmp_path / "images"):
        dataset = open_dataset(data, splits=BOTH, lists=where)
        assert dataset.train.paths == ("a/1.jpg", "b/1.jpg")
        assert dataset.train.root == tmp_path / "images"
    assert open_dataset(tmp_path / "images", lists=Lists(train_list=str(lists / "t.csv"))).train.labels == (0, 1)
    for wrong, message in (
        (Lists(train_list=str(lists / "no.txt")), "no such list"),
        (Lists(val_list=str(lists / "v.txt"), image_root=str(tmp_path / "no")), "no such folder"),
    ):
        with pytest.raises(DataError, match=message):
            open_dataset(lists, lists=wrong)
    with pytest.raises(DataError, match="built-in set"):
        open_dataset("digits", lists=where)


@pytest.mark.parametrize(
    "name", [*sorted(NO_CLASSES), "System Volume Information", "$RECYCLE.BIN", ".ipynb_checkpoints"]
)
def test_folders_that_are_no_classes_are_passed_over(tmp_path: Path, name: str) -> None:
    """Case C9: among class folders, and in one, with a note."""
    fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"train/{name}/x.jpg", f"train/b/{name}/y.jpg", "val/a/1.jpg")
    (tmp_path / "val" / name).mkdir()
    dataset = open_dataset(tmp_path, splits=BOTH)
    assert dataset.train.paths == ("train/a/1.jpg", "train/b/1.jpg")
    assert dataset.classes.count == 2
    assert [note for note in dataset.notes if note.startswith("passed over")] == [
        f"passed over in train: 2 folders (2 {name!r})",
        f"passed over in val: 1 folder (1 {name!r})",
    ]


def test_folders_that_are_no_classes_do_not_hide_a_flat_val(tmp_path: Path) -> None:
    """Case C9: beside the images of val/."""
    flat_val(tmp_path)
    kaggle(tmp_path)
    fill(tmp_path, "val/@eaDir/1.jpg")
    dataset = open_dataset(tmp_path, outputs=1000, splits=VAL)
    assert len(dataset.splits["val"]) == len(NUMBERS)
    assert "passed over in val: 1 folder (1 '@eaDir')" in dataset.notes


def test_what_is_no_image_is_counted_and_named(tmp_path: Path) -> None:
    """Case A6: by its ending, in each split."""
    fill(tmp_path, "train/a/1.jpg", "train/a/2.GIF", "train/a/notes.txt", "train/a/more.txt", "train/a/.DS_Store")
    fill(
        tmp_path, "train/a/README", "train/b/1.jpg", "train/b/sub/2.jpg", "train/list.csv", "val/a/1.jpg", "val/a/x.xml"
    )
    notes = open_dataset(tmp_path, splits=BOTH).notes
    assert notes == (
        "passed over in train: 6 files (2 .txt, 1 .csv, 1 .gif, 1 hidden, 1 without an ending), 1 folder (1 'sub')",
        "passed over in val: 1 file (1 .xml)",
    )


def test_images_of_every_ending_are_decoded(tmp_path: Path) -> None:
    """Case A6: DALI reads what is listed, in each of its formats."""
    pixels = np.full((20, 24, 3), (200, 90, 30), np.uint8)
    formats = {".jpg": "JPEG", ".jpe": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".bmp": "BMP",
               ".webp": "WEBP", ".jp2": "JPEG2000", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM",
               ".pbm": "PPM", ".pnm": "PPM"}  # fmt: skip
    assert set(formats) == set(IMAGE_EXTENSIONS)
    for ending, name in formats.items():
        image = Image.fromarray(pixels).convert({".pgm": "L", ".pbm": "1"}.get(ending, "RGB"))
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "train" / "a" / f"1{ending.upper()}", name)
    images = open_dataset(tmp_path, splits=TRAIN).train
    assert len(images) == len(IMAGE_EXTENSIONS)
    assert [finding for checked in Verification(Storage(images), 1) for finding in checked.findings] == []


def found(folder: Path, count: int | None = None) -> list[str]:
    dataset: Dataset = open_dataset(folder, count, splits=BOTH)
    return [*label_notes(dataset), *repeat_notes(dataset)]


def test_classes_that_only_one_split_has_are_named(tmp_path: Path) -> None:
    """Case A7: in lists and in folders, gaps included."""
    (tmp_path / "train_list.txt").write_text("a.jpg 0\nb.jpg 2\nc.jpg 3\n")
    (tmp_path / "val_list.txt").write_text("d.jpg 0\ne.jpg 4\n")
    assert found(tmp_path) == [
        "train: 2 of the model's 5 classes have no image: 1, 4",
        "val: 2 of training's 3 classes have no image: 2, 3",
        "val: 1 class is in no training image, so it can't be learnt: 4",
    ]
    fill(tmp_path / "f", "train/a/1.jpg", "train/b/1.jpg", "val/b/1.jpg")
    assert found(tmp_path / "f") == ["val: 1 of training's 2 classes has no image: 0"]
    assert found(tmp_path / "f", 30)[0].endswith("2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...")


def test_images_in_both_splits_or_twice_are_counted(tmp_path: Path) -> None:
    """Case A7: however their paths are written."""
    (tmp_path / "train_list.txt").write_text("a.jpg 0\nb.jpg 1\n./b.jpg 1\nx//c.jpg 0\n")
    (tmp_path / "val_list.txt").write_text("x/c.jpg 0\nd.jpg 1\nx/../a.jpg 0\n")
    leak, twice = found(tmp_path)
    assert leak.startswith("2 validation images are also in the training list")
    assert twice.startswith("train: 1 image is a repetition")
    (tmp_path / "val_list.txt").write_text("d.jpg 1\ne.jpg 0\n")
    (tmp_path / "train_list.txt").write_text("a.jpg 0\nb.jpg 1\n")
    assert found(tmp_path) == []
