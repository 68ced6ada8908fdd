"""An evaluation's list beside training folders, whose images it doesn't read: attack 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.layout import Lists

NAMES = ("ant", "bee", "cat", "dog")


def data(folder: Path, labels: dict[str, int], trained: tuple[str, ...] = NAMES) -> Path:
    """Empty training folders, and a list with this label for each folder of val/."""
    for name in trained:
        (folder / "train" / name).mkdir(parents=True)
    (folder / "val_list.txt").write_text("".join(f"val/{name}/1.jpg {label}\n" for name, label in labels.items()))
    return folder


def evaluated(folder: Path, outputs: int = 4, lists: Lists | None = None) -> Dataset:
    return open_dataset(folder, outputs=outputs, splits=("val",), lists=lists or Lists())


PERMUTED = {"ant": 1, "bee": 2, "cat": 3, "dog": 0}


def test_a_list_that_contradicts_the_training_folders_is_refused(tmp_path: Path) -> None:
    data(tmp_path, PERMUTED)
    with pytest.raises(DataError) as caught:
        evaluated(tmp_path)
    assert caught.value.message == (
        f"4 labels of {str(tmp_path / 'val_list.txt')!r} contradict the folders that the images lie in, as"
        f" {str(tmp_path / 'train')!r} numbers them:\n"
        "  val_list.txt:1: 'val/ant/1.jpg' has label 1; folder 'ant' is 0\n"
        "  val_list.txt:2: 'val/bee/1.jpg' has label 2; folder 'bee' is 1\n"
        "  val_list.txt:3: 'val/cat/1.jpg' has label 3; folder 'cat' is 2\n"
        "  val_list.txt:4: 'val/dog/1.jpg' has label 0; folder 'dog' is 3"
    )
    # Both ways of the cure lead on.
    (tmp_path / "train_list.txt").write_text("".join(f"train/{name}/1.jpg {PERMUTED[name]}\n" for name in NAMES))
    assert evaluated(tmp_path).splits["val"].labels == (1, 2, 3, 0)
    (tmp_path / "train_list.txt").unlink()
    (tmp_path / "val_list.txt").write_text("val/ant/1.jpg 0\nval/dog/2.jpg 3\n")
    assert evaluated(tmp_path).splits["val"].labels == (0, 3)


def test_a_list_elsewhere_is_checked_too(tmp_path: Path) -> None:
    data(tmp_path, PERMUTED)
    (tmp_path / "val_list.txt").rename(tmp_path / "mine.txt")
    with pytest.raises(DataError, match="contradict the folders"):
        evaluated(tmp_path, lists=Lists(val_list=str(tmp_path / "mine.txt")))


def test_numbers_and_wordnet_ids_count_as_in_a_training(tmp_path: Path) -> None:
    data(tmp_path / "numbers", {"10": 2, "2": 10}, tuple(map(str, range(11))))
    with pytest.raises(DataError, match=r"'val/10/1\.jpg' has label 2; folder '10' is 10"):
        evaluated(tmp_path / "numbers", 11)
    data(tmp_path / "wnids", {"n02102040": 0, "n01440764": 1}, ("n01440764", "n02102040"))
    with pytest.raises(DataError, match="folder 'n02102040' is 1"):
        evaluated(tmp_path / "wnids", 2)


@pytest.mark.parametrize("trained", [NAMES[:3], (*NAMES, "emu"), ("1", "01", "2", "3"), ()])
def test_folders_that_are_not_the_weights_classes_say_nothing(tmp_path: Path, trained: tuple[str, ...]) -> None:
    """The weights may be from elsewhere; an evaluation needs no training images."""
    data(tmp_path, PERMUTED, trained)
    assert evaluated(tmp_path).splits["val"].labels == (1, 2, 3, 0)


def test_images_that_lie_in_no_class_folder_say_nothing(tmp_path: Path) -> None:
    data(tmp_path, {})
    (tmp_path / "val_list.txt").write_text("val/1.jpg 3\nval/2.jpg 1\n")
    assert evaluated(tmp_path).splits["val"].labels == (3, 1)
