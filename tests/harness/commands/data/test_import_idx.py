from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich import progress as bars

from harness import ROOT
from harness.cli import main, parse
from harness.commands.data import import_idx as command
from harness.plan.options import RunConfig
from pipelines.augmentation import Augmentation
from pipelines.dataset import Dataset, open_dataset
from pipelines.idx_folder import write_folder
from tests.support.idx_files import TRAIN_LABELS, VAL_LABELS, Bytes, idx, pack, pictures, write_set
from tests.support.small_disk import SmallDisk, make_read_only


def imported(tmp_path: Path, *options: str) -> Dataset:
    assert main(["import-idx", str(write_set(tmp_path / "idx")), str(tmp_path / "set"), *options]) == 0
    return open_dataset(tmp_path / "set")


def assert_shows(path: Path, picture: Bytes, size: int) -> None:
    """The file is the picture enlarged, grey, within what JPEG's rounding at quality 95 changes."""
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))
        pixels = np.asarray(image).astype(int)
    np.testing.assert_array_equal(pixels[..., :1], pixels[..., 1:2])
    np.testing.assert_array_equal(pixels[..., :1], pixels[..., 2:])
    wanted = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pixels[..., 0] - wanted).max() <= 8
    assert np.abs(pixels[..., 0] - wanted).mean() < 1


@pytest.mark.parametrize(("options", "size"), [([], 64), (["--image-size", "96"], 96), (["--image-size", "28"], 28)])
def test_images_and_labels_come_out_as_they_went_in(tmp_path: Path, options: list[str], size: int) -> None:
    dataset = imported(tmp_path, *options)
    for images, labels, seed in ((dataset.train, TRAIN_LABELS, 1), (dataset.val, VAL_LABELS, 2)):
        assert images is not None
        assert images.labels == tuple(labels.tolist())
        for path, picture in zip(images.paths, pictures(len(labels), seed=seed), strict=True):
            assert_shows(dataset.root / path, picture, size)


@pytest.mark.parametrize(("side", "trained"), [("28", 32), ("1", 32), ("96", 96)])
def test_the_command_that_is_printed_can_be_run(
    tmp_path: Path, side: str, trained: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case D2: files may be smaller than what the network takes."""
    imported(tmp_path, "--image-size", side)
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(": ")[2])
    assert words[:2] == ["python", "run_bench.py"]
    config = RunConfig(**parse(words[2:])[0])
    assert (config.image_size, config.data) == (trained, str(tmp_path / "set"))


def notes_of(folder: Path, capsys: pytest.CaptureFixture[str], **changes: bytes) -> list[str]:
    """What an import says about the labels and the splits of a set with these files."""
    capsys.readouterr()
    assert main(["import-idx", str(write_set(folder / "idx", **changes)), str(folder / "set")]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]


def test_what_is_odd_about_labels_and_splits_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Attacks 55, 56 and 59."""
    above = {"train_labels": idx(TRAIN_LABELS % 2 + 1), "t10k_labels": idx(VAL_LABELS % 2 + 1)}
    assert notes_of(tmp_path / "letters", capsys, **above) == [
        "train: 1 of the model's 3 classes has no image: 0",
        "the labels run from 1 to 2 and none is 0: the model has an output for each label from 0 on, so that 1 output"
        " will never be right",
    ]
    far = TRAIN_LABELS.copy()
    far[5] = 255
    assert "label 255 alone, of 1 image, makes it 256 classes: the next smaller label is 4" in " ".join(
        notes_of(tmp_path / "far", capsys, train_labels=idx(far))
    )
    held_out = notes_of(tmp_path / "held out", capsys, t10k_labels=idx(np.array([2, 0, 3, 4, 1], np.uint8)))
    assert any(note.startswith("val: 1 class is in no training image, so it can't be learnt: 2") for note in held_out)
    same = notes_of(tmp_path / "same", capsys, t10k_images=idx(pictures(12, seed=1)), t10k_labels=idx(TRAIN_LABELS))
    assert same[-1].startswith("12 of 12 validation images are among the training images, too, to the byte")


def test_files_are_named_by_split_label_and_index(tmp_path: Path) -> None:
    """A label that no image has gets no folder, and the labels above it stay as they are."""
    dataset = imported(tmp_path)
    assert dataset.train.paths[:3] == ("train/3/00.jpg", "train/0/01.jpg", "train/1/02.jpg")
    assert dataset.train.paths[-1] == "train/3/11.jpg"
    assert dataset.val is not None
    assert dataset.val.paths == ("val/1/0.jpg", "val/0/1.jpg", "val/3/2.jpg", "val/4/3.jpg", "val/1/4.jpg")
    assert dataset.num_classes == 5
    found = sorted(str(path.relative_to(dataset.root)) for path in dataset.root.rglob("*") if path.is_file())
    assert found == sorted([*dataset.train.paths, *dataset.val.paths, "dataset.toml", "train_list.txt", "val_list.txt"])


def test_the_set_says_its_name_its_classes_and_how_to_augment(tmp_path: Path) -> None:
    dataset = imported(tmp_path)
    assert (dataset.root / "dataset.toml").read_text() == (
        'name = "set"\nnum_classes = 5\n\n[augmentation]\ncrop_area_min = 0.35\nflip_probability = 0.0\n'
    )
    assert (dataset.name, dataset.builtin) == ("set", False)
    assert dataset.augmentation == Augmentation(flip_probability=0.0, crop_area_min=0.35)


def test_the_augmentation_can_be_another(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "--flip-probability", "0.5", "--crop-area-min", "1e-9")
    assert dataset.augmentation == Augmentation(flip_probability=0.5, crop_area_min=1e-9)


def test_packed_and_unpacked_files_give_the_same_bytes(tmp_path: Path) -> None:
    first = imported(tmp_path)
    for path in list((tmp_path / "idx").iterdir()):
        pack(path)
    assert main(["import-idx", str(tmp_path / "idx"), str(tmp_path / "again"), "--name", "set"]) == 0

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(tmp_path / "again") == content(first.root)


def test_transposed_images_are_set_upright(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "--transpose")
    assert_shows(dataset.root / dataset.train.paths[0], pictures(12, seed=1)[0].T, 64)


@pytest.mark.parametrize(
    "name",
    [
        '"',
        "\\",
        '"\nnum_classes = 1\n"',
        "a\r\n[augmentation]",
        "'''",
        "\x00\x1b[2J\x7f\t",
        "\u2028é漢\U0001f600",
        "# a",
    ],
)
def test_whatever_the_name_it_stays_one(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = imported(tmp_path, "--name", name)
    assert (dataset.name, dataset.num_classes) == (name, 5)
    assert "\x1b" not in capsys.readouterr().out


def test_a_folder_whose_name_is_no_utf_8_gives_one_that_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = os.fsdecode(os.fsencode(tmp_path) + b"/\xff[*]")
    assert main(["import-idx", str(write_set(tmp_path / "idx")), to]) == 0
    assert open_dataset(Path(to)).name == "\ufffd[*]"
    assert r"\udcff" in capsys.readouterr().out


def test_what_was_done_is_told_with_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "idx")
    monkeypatch.chdir(tmp_path)
    assert main(["import-idx", "idx", "digits", "--name", "mine"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("17 images imported in ")
    assert printed[1] == "'mine': 12 for training, 5 for validation, 5 classes, 28 x 28 pixels as 64 x 64"
    # "digits" alone would mean the built-in set.
    assert printed[2] == "note: train: 1 of the model's 5 classes has no image: 2"
    assert printed[3] == "To train on it: python run_bench.py --data ./digits --image-size 64"
    words = shlex.split(printed[3].removeprefix("To train on it: "))[2:]
    assert main([*words, "--device", "cpu", "--dry-run"]) == 0
    assert main(["verify", "./digits", "--results", "out"]) == 0
    verified = capsys.readouterr().out
    assert "train: 12 images of 4 classes\n" in verified
    assert "warning: train: 1 of the model's 5 classes has no image: 2\n" in verified


def test_folders_above_are_made_and_all_may_read(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "set"
    assert main(["import-idx", str(write_set(tmp_path / "idx")), str(target)]) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert [path.name for path in target.parent.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--image-size", "0"], 2, "--image-size is 0; it must be between 1 and 1024 pixels"),
        (["--image-size", "1025"], 2, "--image-size is 1025; it must be between 1 and 1024 pixels"),
        (["--name", " "], 2, "--name is ' '; it must not be empty"),
        (["--name", "\udcff"], 2, r"--name is '\udcff'; it must be valid UTF-8"),
        (["--flip-probability", "1.5"], 2, "flip_probability is 1.5; it must lie between 0 and 1"),
        (["--flip-probability", "nan"], 2, "flip_probability is nan; it must lie between 0 and 1"),
        (["--crop-area-min", "0"], 2, "crop_area_min is 0.0; it must be above 0 and at most 1"),
        (["--image-size", "big"], 2, "argument --image-size: invalid int value: 'big'"),
    ],
)
def test_what_cannot_be_asked_for_is_told_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    assert main(["import-idx", str(write_set(tmp_path / "idx")), str(tmp_path / "set"), *options]) == code
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["idx"]


def test_help_names_the_defaults_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import-idx", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert f"(default: {command.IMAGE_SIZE_PIXELS})" in words
    assert f"(default: {command.FLIP_PROBABILITY:g}, as" in words
    assert f"(default: {command.CROP_AREA_MIN:g}, as" in words


@pytest.mark.parametrize("kind", ["empty folder", "file", "link to nothing"])
def test_what_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    target = tmp_path / "set"
    if kind == "empty folder":
        target.mkdir()
    elif kind == "file":
        target.touch()
    else:
        target.symlink_to("nowhere")
    before = target.lstat()
    assert main(["import-idx", str(write_set(tmp_path / "idx")), str(target)]) == 2
    assert f"error: {str(target)!r} exists already\n  Name a folder that does not exist" in capsys.readouterr().err
    assert target.lstat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["idx", "set"]


def test_what_comes_to_be_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_and_come(*arguments: Any) -> Iterator[int]:
        yield from write_folder(*arguments)
        (tmp_path / "set").mkdir()

    monkeypatch.setattr(command, "write_folder", write_and_come)
    assert main(["import-idx", str(write_set(tmp_path / "idx")), str(tmp_path / "set")]) == 2
    assert list((tmp_path / "set").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["idx", "set"]


def test_a_defect_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_set(tmp_path / "idx", t10k_labels=idx(np.zeros(4, np.uint8)))
    assert main(["import-idx", str(source), str(tmp_path / "set")]) == 4
    assert "5 images, but 4 labels" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["idx"]


def test_a_disk_that_fills_up_is_told_and_freed(
    tmp_path: Path, small_disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(48 * 1024)
    assert main(["import-idx", str(write_set(tmp_path / "idx")), str(disk / "set")]) == 3
    assert capsys.readouterr().err == (
        f"error: can't write {str(disk / 'set')!r}: No space left on device\n"
        "  Free space on the disk, or name a folder on another disk.\n"
    )
    assert list(disk.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_told(
    tmp_path: Path, small_disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(2**20)
    make_read_only(disk)
    source = str(write_set(tmp_path / "idx"))
    assert main(["import-idx", source, str(disk / "set")]) == 3
    assert "Read-only file system" in capsys.readouterr().err
    assert main(["import-idx", source, "/dev/null/set"]) == 3
    assert "can't write '/dev/null/set': " in capsys.readouterr().err


# Ends itself when some chunks of images are written and others are being written.
ENDING = """
import os, signal, sys
from harness.cli import main, parse
from pipelines import idx_folder

number, calls, jpeg = int(sys.argv[1]), [], idx_folder._jpeg

def jpeg_or_end(*arguments):
    calls.append(None)
    if len(calls) == 2000:
        os.kill(os.getpid(), number)
    return jpeg(*arguments)

idx_folder._jpeg = jpeg_or_end
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_import_that_is_ended_leaves_no_half_set(
    tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    many, labels = pictures(5000, side=4), np.zeros(5000, np.uint8)
    source = write_set(tmp_path / "idx", train_images=idx(many), train_labels=idx(labels))
    arguments = ["import-idx", str(source), str(tmp_path / "set")]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDING, str(int(number)), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    left = [path for path in tmp_path.iterdir() if path.name != "idx"]
    assert all(path.name.startswith(".set-import-") for path in left)
    if number == signal.SIGKILL:
        assert ended.returncode == -number
        assert len(left) == 1
    else:
        assert (ended.returncode, ended.stderr) == (75, "error: interrupted\n")
        assert left == []
    assert main(arguments) == 0
    assert len(open_dataset(tmp_path / "set").train) == 5000
    told = "".join(capsys.readouterr().out.split())  # long lines are wrapped
    assert all(f"note:{path}wasleftbyanimportthatwaskilled" in told for path in left)


def test_no_thread_writes_any_more_when_the_half_set_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the interruption comes while a bar is drawn, outside of what writes."""
    many, labels = pictures(5000, side=4), np.zeros(5000, np.uint8)
    source = write_set(tmp_path / "idx", train_images=idx(many), train_labels=idx(labels))
    before, then = threading.active_count(), []

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def count_and_remove(*arguments: Any, **options: Any) -> None:
        then.append(threading.active_count())
        rmtree(*arguments, **options)

    rmtree = shutil.rmtree
    monkeypatch.setattr(bars.Progress, "update", interrupt)
    monkeypatch.setattr(shutil, "rmtree", count_and_remove)
    assert main(["import-idx", str(source), str(tmp_path / "set")]) == 75
    assert then == [before]
    assert [path.name for path in tmp_path.iterdir()] == ["idx"]
