"""What a list of many images takes: bytes in columns, and no object for each image, from its file to an order."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.launch.rank_files import LISTS, leave_lists, lists_left
from harness.plan.plan import facts_of
from pipelines import class_folders
from pipelines.columns import Texts
from pipelines.dataset import Dataset, open_dataset
from pipelines.file_checks import check_files
from pipelines.folder_names import FolderNames
from pipelines.list_findings import label_notes, repeat_notes
from pipelines.sampling import BEGINNING, ContinuousOrder, TrainingOrder

IMAGES, CLASSES = 200_000, 500
# A Python text of such a path takes 80 bytes, and its place in a tuple 8.
PATH_BYTES = len("n01440764/n01440764_123456.JPEG")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a list, whose images aren't there."""
    folder = tmp_path_factory.mktemp("large")
    with (folder / "train_list.txt").open("w") as stream:
        for index in range(IMAGES):
            label = index * 7919 % CLASSES
            stream.write(f"x{label:08}/x{label:08}_{index:06}.JPEG {label}\n")
    return folder


def bytes_of(work: Callable[[], object]) -> tuple[int, int]:
    """What is allocated when the work is done, its result included, and the most while it was done."""
    tracemalloc.start()
    result = work()
    now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del result
    return now, most


def test_an_open_list_is_its_columns(data: Path) -> None:
    now, most = bytes_of(lambda: open_dataset(data))
    assert now < IMAGES * (PATH_BYTES + 8 + 4 + 8)  # the file has a label and a line feed beyond the path
    assert most < 3 * now + 40_000_000  # a block of lines at work


def test_class_folders_are_columns_folder_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:04}" for number in range(100)]
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
    monkeypatch.setattr(class_folders, "_images", lambda folder, _: [f"{folder.name}_{at}.jpg" for at in range(2000)])
    labels = {name: label for label, name in enumerate(names)}
    now, most = bytes_of(lambda: class_folders.scan_class_folders(tmp_path / "train", tmp_path, labels))
    images, _ = class_folders.scan_class_folders(tmp_path / "train", tmp_path, labels)
    assert (images.paths[2001], images.labels[2001]) == ("train/0001/0001_1.jpg", 1)
    assert now < images.paths.characters.nbytes + len(images) * (8 + 4) + 100_000
    assert most < 3 * now


def test_what_is_asked_of_a_list_makes_no_object_for_each_image(data: Path) -> None:
    dataset = open_dataset(data)
    for work in (label_notes, repeat_notes, lambda one: facts_of(one, str(data))):
        now, most = bytes_of(lambda work=work: work(dataset))  # type: ignore[misc]
        assert now < 100_000
        assert most < IMAGES * 8 * 3 + 20_000_000  # hashes, and a chunk of entries at work


def test_what_is_known_of_files_is_columns(data: Path) -> None:
    images = open_dataset(data).train.part(range(2000))
    now, _ = bytes_of(lambda: check_files(images).sizes)
    assert now < 2000 * 8 + 10_000


def test_ranks_map_the_lists(data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data)
    leave_lists(tmp_path, dataset.splits)
    now, most = bytes_of(lambda: lists_left(tmp_path / LISTS))
    assert most < 200_000
    assert now < 100_000
    assert lists_left(tmp_path / LISTS) == dataset.splits


def test_an_order_takes_four_bytes_for_each_image_that_it_keeps() -> None:
    TrainingOrder(4, 0, 1, 2, seed=0).draw(BEGINNING, frozenset())  # loads what NumPy's random numbers need
    rank = TrainingOrder(IMAGES, 1, 4, 32, seed=0)
    now, most = bytes_of(lambda: rank.draw(BEGINNING, frozenset()))
    assert now < IMAGES + 10_000
    assert most < IMAGES * 5 + 20_000
    alone = ContinuousOrder(IMAGES, 1, 4, 32, seed=0)
    assert bytes_of(lambda: alone.draw(BEGINNING, frozenset()))[1] < IMAGES * 4 + 20_000


def test_a_list_has_the_folders_of_its_paths() -> None:
    paths = [
        "b/x.jpg",
        "x.jpg",
        "a/b/1.jpg",
        "/y.jpg",
        "c//z.jpg",
        "b/c/d/e.jpg",
        "é/1.jpg",
        "\udcff/1.jpg",
        "",
        "/",
        "a/",
    ]
    names = [path.rpartition("/")[0].rpartition("/")[2] for path in paths]
    for repeated in (1, 10_000):  # more than one chunk
        found = FolderNames.of(Texts.of(paths * repeated))
        assert found.names == tuple(dict.fromkeys(names))
        assert [found.names[number] for number in found.numbers] == names * repeated
    assert FolderNames.of(Texts.of(())).names == ()


@pytest.mark.parametrize("images", [1, 2, 17, 4096])
def test_half_of_the_memory_changes_no_order(images: int) -> None:
    """Runs of earlier versions resume with the order that they began with."""
    for epoch in range(3):
        drawn = TrainingOrder(images, 0, 1, images, seed=5)._shard(epoch)
        assert drawn.tolist() == np.random.default_rng([5, epoch]).permutation(images).tolist()
        assert drawn.dtype == np.int32


def test_the_notes_of_a_list_with_repeats_are_those_of_its_rows(tmp_path: Path) -> None:
    """A list that names each image three times, once with another label, in any order."""
    rows = [(f"{label}/{index % 50}.jpg", label) for index in range(150) for label in (0, 1, 2)]
    rows += [("1/7.jpg", 2)]
    (tmp_path / "train_list.txt").write_text("".join(f"{path} {label}\n" for path, label in rows))
    (tmp_path / "val_list.txt").write_text("2/49.jpg 2\n2/50.jpg 1\n2/49.jpg 2\n")
    dataset: Dataset = open_dataset(tmp_path)
    assert [str(note) for note in repeat_notes(dataset)] == [
        "2 validation images are also in the training list: remove them from one of the lists",
        "train: 1 image is listed with two labels: keep the right one"
        " ('1/7.jpg': label 2 here, 1 as image 23 of its list)",
        "train: 300 images are repetitions in their list: they count as often as they are listed",
        "val: 1 image is a repetition in its list: it counts as often as it is listed",
    ]
