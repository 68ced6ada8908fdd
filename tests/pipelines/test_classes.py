"""Which classes folders and lists have, and which label each class folder has (cases A1, A2, A3 and A5)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipelines.classes import Classes, classes_of_folders, wanted_classes
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.imagenet.conversion import converted_list
from pipelines.imagenet.numbering import (
    kit_number_of_label,
    known_validation_labels,
    label_of_kit_number,
    label_of_wnid,
    wnids,
)

# Imagenette: ten of ImageNet's classes, and their labels among the 1000.
IMAGENETTE = {
    "n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497, "n03394916": 566,
    "n03417042": 569, "n03425413": 571, "n03445777": 574, "n03888257": 701,
}  # fmt: skip
# Some validation images with their labels by sorted WordNet IDs and in the development kit.
VALIDATION = {
    1: (65, 490), 2: (970, 361), 3: (230, 171), 4: (809, 822), 5: (516, 297), 6: (57, 482), 7: (334, 13), 8: (415, 704),
    9: (674, 599), 10: (332, 164),
}  # fmt: skip


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").write_bytes(b"1")


def write_list(file: Path, rows: Iterable[tuple[str, int]]) -> Path:
    file.write_text("".join(f"{path} {label}\n" for path, label in rows))
    return file


def validation(offset: int = 0, *, kit: bool = True) -> list[tuple[str, int]]:
    return [(f"val/ILSVRC2012_val_{n:08d}.JPEG", pair[kit] + offset) for n, pair in VALIDATION.items()]


def refusal(data: Path, num_classes: int | None = None, outputs: int | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        evaluated(data, num_classes, outputs)
    return caught.value


def evaluated(data: Path, num_classes: int | None = None, outputs: int | None = None) -> Dataset:
    """The set of a run of epochs; with outputs that of an evaluation of weights."""
    return open_dataset(data, num_classes, outputs=outputs, splits=("train", "val") if outputs is None else ("val",))


def of(names: Iterable[str], count: int | None = None, outputs: int | None = None, **beside: bool) -> Classes:
    wanted = wanted_classes(count, None, outputs)
    return classes_of_folders(tuple(names), "it", wanted, evaluated=outputs is not None, **beside)


def test_the_table_of_imagenet_is_the_published_one() -> None:
    """Cases A2 and A3: counts, order and known positions; the kit's numbers are 1 to 1000."""
    assert len(set(wnids())) == 1000
    assert list(wnids()) == sorted(wnids())
    assert (wnids()[0], wnids()[999]) == ("n01440764", "n15075141")
    assert sorted(kit_number_of_label()) == list(range(1, 1001))
    assert {name: label_of_wnid()[name] for name in IMAGENETTE} == IMAGENETTE
    assert wnids()[label_of_kit_number()[1]] == "n02119789"
    assert kit_number_of_label()[0] == 449
    known = known_validation_labels()
    assert {n: (known[n], kit_number_of_label()[known[n]]) for n in VALIDATION} == VALIDATION
    assert len(known) > 500
    assert set(known.values()) <= set(range(1000))


@pytest.mark.parametrize(
    ("names", "count", "labels", "classes", "how"),
    [
        (range(12), None, {"2": 2, "10": 10, "11": 11}, 12, "12, from folder names, as numbers"),
        (range(12), 20, {"2": 2, "10": 10}, 20, "20, from --classes; labels from folder names, as numbers"),
        (range(1, 13), None, {"1": 0, "2": 1, "12": 11}, 12, "12, from folder names, sorted as numbers"),
        (range(1, 13), 13, {"1": 1, "12": 12}, 13, "13, from --classes; labels from folder names, as numbers"),
        ((0, 5, 10), None, {"0": 0, "5": 1, "10": 2}, 3, "3, from folder names, sorted as numbers"),
        ((0, 5, 10), 11, {"0": 0, "5": 5, "10": 10}, 11, "11, from --classes; labels from folder names, as numbers"),
        (("007", "8", "10"), None, {"007": 0, "8": 1, "10": 2}, 3, "3, from folder names, sorted as numbers"),
        (("10", "2", "b"), None, {"10": 0, "2": 1, "b": 2}, 3, "3, from folder names"),
        (("-1", "0", "1"), None, {"-1": 0, "0": 1, "1": 2}, 3, "3, from folder names"),
        (("2²", "3"), None, {"2²": 0, "3": 1}, 2, "2, from folder names"),
    ],
)
def test_folders_of_numbers_are_their_own_labels_or_sorted_as_numbers(
    names: Iterable[object], count: int | None, labels: dict[str, int], classes: int, how: str
) -> None:
    """Case A1: by their values, never as text."""
    found = of(map(str, names), count)
    assert {name: found.labels[name] for name in labels} == labels
    assert (found.count, found.origin) == (classes, how)


def test_a_note_says_which_label_each_end_of_the_numbers_has() -> None:
    """Case A1: and its cure makes each number its own label."""
    (note,) = of(map(str, range(1, 13))).notes
    assert "label 0 is folder '1', label 11 is folder '12'" in note
    assert "--classes 13" in note
    assert of(map(str, range(1, 13)), 13).labels["12"] == 12
    assert of(map(str, range(12))).notes == ()
    assert of(("0", "5"), 6).notes == ("4 of the model's 6 classes have no folder in it",)


@pytest.mark.parametrize("names", [("7", "007"), ("0", "1", "01")])
def test_two_folders_of_one_number_are_refused(names: tuple[str, ...]) -> None:
    """Case A1."""
    with pytest.raises(DataError, match="two class folders of the same number"):
        of(names)


@pytest.mark.parametrize(
    ("names", "first"), [(range(12), "10"), (("2", "10"), "10"), (range(1, 11), "10"), (range(10), None)]
)
def test_weights_from_elsewhere_may_expect_folders_sorted_as_text(names: Iterable[object], first: str | None) -> None:
    """Case A1: a note where the two orders differ."""
    note = of(map(str, names)).pretrained_note()
    assert (note == "") if first is None else (f"folder '{first}' is class" in note)
    assert of(("a", "b")).pretrained_note() == ""


def test_folders_of_numbers_beside_a_list(tmp_path: Path) -> None:
    """Case A1: train/0 to train/11 beside val_list.txt, whose labels are the folders' numbers."""
    fill(tmp_path / "train", *map(str, range(12)))
    write_list(tmp_path / "val_list.txt", [(f"val/{n}.jpg", n) for n in range(12)])
    dataset = evaluated(tmp_path)
    assert dict(zip(dataset.train.paths, dataset.train.labels, strict=True))["train/10/1.jpg"] == 10
    assert dataset.classes.origin == "12, from folder names, as numbers"
    # A list that was made from folders sorted as text contradicts them.
    text = sorted(map(str, range(12)))
    write_list(tmp_path / "val_list.txt", [(f"val/{name}/1.jpg", text.index(name)) for name in text])
    error = refusal(tmp_path)
    assert "contradict the folders" in error.message
    assert "'val/10/1.jpg' has label 2; folder '10' is 10" in error.message
    write_list(tmp_path / "train_list.txt", [(f"train/{name}/1.jpg", text.index(name)) for name in text])
    assert evaluated(tmp_path).num_classes == 12
    assert any("as if the numbers were sorted as text" in note for note in evaluated(tmp_path).notes)


@pytest.mark.parametrize(("labels", "right"), [(range(1, 13), 13), (range(1, 12), 13), ((5, 7), 13)])
def test_folders_from_1_beside_a_list_of_these_numbers(tmp_path: Path, labels: Iterable[int], right: int) -> None:
    """Case A1: what could be off by one is refused, and the cure makes it right."""
    fill(tmp_path / "train", *map(str, range(1, 13)))
    write_list(tmp_path / "val_list.txt", [(f"val/{n}.jpg", n) for n in labels])
    error = refusal(tmp_path)
    assert f"--classes {right}" in error.cure
    dataset = evaluated(tmp_path, right)
    assert set(dataset.splits["val"].labels) == set(labels)
    assert dataset.classes.labels["12"] == 12


def test_folders_from_1_beside_a_list_that_counts_from_0(tmp_path: Path) -> None:
    """Case A1: label 0 can only be that of the first folder."""
    fill(tmp_path / "train", *map(str, range(1, 13)))
    write_list(tmp_path / "val_list.txt", [(f"val/{n}.jpg", n) for n in range(12)])
    assert evaluated(tmp_path).classes.labels["12"] == 11


def test_a_validation_folder_has_the_training_folders_labels(tmp_path: Path) -> None:
    """Case A1: also where only it is read."""
    fill(tmp_path / "train", *map(str, range(1, 13)))
    fill(tmp_path / "val", "2", "12")
    assert evaluated(tmp_path).splits["val"].labels == (1, 11)
    assert evaluated(tmp_path, outputs=12).splits["val"].labels == (1, 11)


@pytest.mark.parametrize(
    ("names", "outputs"), [(("1", "2", "3"), 12), (("1", "3", "12"), 12), (("2", "5"), 4), (("a", "b"), 4)]
)
def test_folders_whose_labels_only_the_training_knew_are_refused(
    tmp_path: Path, names: tuple[str, ...], outputs: int
) -> None:
    """Cases A1 and A3: without the training's folders; both cures lead to the labels that are meant."""
    fill(tmp_path / "val", *names)
    error = refusal(tmp_path, outputs=outputs)
    assert "--classes" not in error.cure
    assert "val_list.txt" in error.cure
    # --classes doesn't help either.
    assert "val_list.txt" in refusal(tmp_path, outputs, outputs).cure
    missing = [str(n) if names[0] != "a" else f"c{n}" for n in range(20) if str(n) not in names]
    fill(tmp_path / "train", *names, *missing[: outputs - len(names)])
    trained = sorted((*names, *missing[: outputs - len(names)]), key=lambda name: (len(name), name))
    assert evaluated(tmp_path, outputs=outputs).splits["val"].labels == tuple(trained.index(name) for name in names)
    shutil.rmtree(tmp_path / "train")
    write_list(tmp_path / "val_list.txt", [(f"val/{names[0]}/1.jpg", 3)])
    assert evaluated(tmp_path, outputs=outputs).splits["val"].labels == (3,)


@pytest.mark.parametrize("count", [None, 10])
def test_wordnet_ids_are_sorted_unless_imagenet_is_meant(tmp_path: Path, count: int | None) -> None:
    """Case A3: ten classes of their own, with a note on weights of 1000."""
    fill(tmp_path / "train", *IMAGENETTE)
    fill(tmp_path / "val", *IMAGENETTE)
    dataset = evaluated(tmp_path, count)
    assert dataset.train.labels == tuple(range(10))
    assert any("--classes 1000" in note for note in dataset.notes)
    assert evaluated(tmp_path, 1000).train.labels == tuple(IMAGENETTE.values())


def test_imagenette_is_evaluated_on_imagenet_s_labels(tmp_path: Path) -> None:
    """Case A3: by the number of the weights' outputs, with or without --classes, and without a training set."""
    fill(tmp_path / "val", *IMAGENETTE)
    for count in (None, 1000):
        dataset = evaluated(tmp_path, count, outputs=1000)
        assert dataset.splits["val"].labels == tuple(IMAGENETTE.values())
        assert "as ImageNet's classes" in dataset.classes.origin
    assert evaluated(tmp_path, outputs=10).splits["val"].labels == tuple(range(10))
    assert "val_list.txt" in refusal(tmp_path, outputs=100).cure


def test_wordnet_ids_that_are_not_imagenet_s_are_not_mapped(tmp_path: Path) -> None:
    """Case A3: a class of the larger ImageNet has no output among the 1000."""
    fill(tmp_path / "val", "n00000001", "n01440764")
    assert "val_list.txt" in refusal(tmp_path, outputs=1000).cure
    assert evaluated(tmp_path, outputs=2).splits["val"].labels == (0, 1)


def test_a_list_of_wordnet_ids_must_have_imagenet_s_labels_for_its_1000_classes(tmp_path: Path) -> None:
    """Case A3: labels 0 to 9 beside weights of 1000 outputs, and the cure."""
    rows = [(f"val/{name}/1.jpg", label) for label, name in enumerate(IMAGENETTE)]
    file = write_list(tmp_path / "val_list.txt", rows)
    error = refusal(tmp_path, outputs=1000)
    assert "'n02102040' has label 1 there, and is 217 of ImageNet's" in error.message
    assert "import-labels" in error.cure
    paths, labels = converted_list(file)
    assert labels == tuple(IMAGENETTE.values())
    write_list(file, zip(paths, labels, strict=True))
    assert evaluated(tmp_path, outputs=1000).splits["val"].labels == tuple(IMAGENETTE.values())
    assert evaluated(tmp_path, outputs=1000).classes.imagenet


def test_wordnet_folders_beside_imagenet_s_list_have_its_labels(tmp_path: Path) -> None:
    """Cases A2 and A3: train/n01440764 beside a list of ImageNet's validation images."""
    fill(tmp_path / "train", *IMAGENETTE)
    write_list(tmp_path / "val_list.txt", validation(kit=False))
    dataset = evaluated(tmp_path)
    assert (dataset.num_classes, *dataset.train.labels) == (1000, *IMAGENETTE.values())
    error = refusal(tmp_path, 10)
    assert "--classes 1000" in error.cure
    assert evaluated(tmp_path, 1000).train.labels == tuple(IMAGENETTE.values())


@pytest.mark.parametrize("names", [[f"class {n}" for n in range(1000)], [str(n) for n in range(1, 1001)]])
def test_other_folders_beside_imagenet_s_list_are_refused(tmp_path: Path, names: list[str]) -> None:
    """Case A2: nobody knows which of ImageNet's classes they mean; numbers from 1 may be the kit's."""
    fill(tmp_path / "train", *names)
    write_list(tmp_path / "val_list.txt", validation(kit=False))
    assert "train_list.txt" in refusal(tmp_path).cure or "val_list.txt" in refusal(tmp_path).cure


@pytest.mark.parametrize("offset", [0, -1])
@pytest.mark.parametrize("outputs", [None, 1000])
@pytest.mark.parametrize("count", [None, 1000, 1001])
def test_the_development_kit_s_numbers_are_recognised_and_converted(
    tmp_path: Path, offset: int, outputs: int | None, count: int | None
) -> None:
    """Case A2: 1 to 1000 in the kit's order, or minus 1, whatever --classes says."""
    if (count, outputs) == (1001, 1000):
        count = None
    write_list(tmp_path / "train_list.txt", [("train/a.jpg", 0), ("train/b.jpg", 999)])
    file = write_list(tmp_path / "val_list.txt", validation(offset))
    error = refusal(tmp_path, count, outputs)
    assert "development kit" in error.message
    assert f"'val/ILSVRC2012_val_00000001.JPEG' the label {490 + offset}, where 65 is right" in error.message
    assert f"import-labels {file}" in error.cure
    paths, labels = converted_list(file)
    assert labels == tuple(pair[0] for pair in VALIDATION.values())
    write_list(file, zip(paths, labels, strict=True))
    assert evaluated(tmp_path, count, outputs).splits["val"].labels == labels


def test_labels_of_imagenet_that_count_from_1_are_recognised(tmp_path: Path) -> None:
    """Case A2: the right order, but from 1."""
    file = write_list(tmp_path / "val_list.txt", validation(1, kit=False))
    assert "counted from 1" in refusal(tmp_path, outputs=1000).message
    assert converted_list(file)[1][0] == 65


def test_running_numbers_are_not_taken_for_labels(tmp_path: Path) -> None:
    """Case A2: the list in ImageSets/CLS-LOC has the number of each image, which no conversion can mend."""
    rows = [(f"ILSVRC2012_val_{n:08d}", n) for n in range(51, 80)]
    file = write_list(tmp_path / "val_list.txt", rows)
    error = refusal(tmp_path, outputs=1000)
    assert "the numbers of the images" in error.message
    assert "LOC_val_solution.csv" in error.cure
    with pytest.raises(DataError, match=r"contradict|known for"):
        converted_list(file)


def test_labels_of_one_s_own_for_imagenet_s_images_are_taken(tmp_path: Path) -> None:
    """Case A2: two classes, animals and things, are no numbering of ImageNet's."""
    write_list(tmp_path / "val_list.txt", [(path, label % 2) for path, label in validation()])
    assert evaluated(tmp_path, outputs=2).splits["val"].labels[:2] == (0, 1)


@pytest.mark.parametrize(("highest", "count"), [(9, 10), (101, 102), (999, 1000)])
def test_lists_decide_the_number_of_classes(tmp_path: Path, highest: int, count: int) -> None:
    """Case A5: over both lists, with a note and the cure."""
    write_list(tmp_path / "train_list.txt", [("a.jpg", 0), ("b.jpg", 1)])
    write_list(tmp_path / "val_list.txt", [("c.jpg", highest)])
    dataset = evaluated(tmp_path)
    assert (dataset.num_classes, dataset.classes.origin) == (count, f"{count:,}, from the largest label in the lists")
    assert any("--classes" in note for note in dataset.notes) == (count != 1000)
    assert evaluated(tmp_path, 1200).num_classes == 1200
    (tmp_path / "dataset.toml").write_text("num_classes = 1100")
    assert evaluated(tmp_path).classes.origin == "1,100, from dataset.toml"
    assert evaluated(tmp_path, 1200).classes.origin == "1,200, from --classes"


def test_labels_that_count_from_1_are_explained(tmp_path: Path) -> None:
    """Cases A2 and A5: with a note where they fit, and a refusal without a cure that leads wrong where they don't."""
    write_list(tmp_path / "train_list.txt", [(f"{n}.jpg", n) for n in range(1, 11)])
    write_list(tmp_path / "val_list.txt", [("v.jpg", 3)])
    dataset = evaluated(tmp_path)
    assert dataset.num_classes == 11
    assert any("probably count from 1" in note for note in dataset.notes)
    error = refusal(tmp_path, 10)
    assert "probably count from 1" in error.cure
    assert "--classes" not in error.cure
    write_list(tmp_path / "train_list.txt", [(f"{n}.jpg", n - 1) for n in range(1, 11)])
    assert evaluated(tmp_path, 10).num_classes == 10


def test_lists_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """Case A1: the same class folder, another label."""
    write_list(tmp_path / "train_list.txt", [("train/ant/1.jpg", 0), ("train/bee/1.jpg", 1)])
    write_list(tmp_path / "val_list.txt", [("val/ant/2.jpg", 1), ("val/bee/2.jpg", 0)])
    assert "'ant': 0 in train_list.txt, 1 in val_list.txt" in refusal(tmp_path).message
    write_list(tmp_path / "val_list.txt", [("val/ant/2.jpg", 0), ("val/bee/2.jpg", 1)])
    assert evaluated(tmp_path).splits["val"].labels == (0, 1)


@pytest.mark.parametrize(
    ("asked", "settings", "cure"), [(10, None, "Omit --classes"), (None, 10, "that were trained"), (10, 10, "Omit")]
)
def test_an_evaluation_has_as_many_classes_as_the_weights_have_outputs(
    asked: int | None, settings: int | None, cure: str
) -> None:
    """Case A3."""
    with pytest.raises(DataError, match="1,000 outputs") as caught:
        wanted_classes(asked, settings, 1000)
    assert cure in caught.value.cure
    found = wanted_classes(None, None, 1000)
    assert found is not None
    assert found.count == 1000
