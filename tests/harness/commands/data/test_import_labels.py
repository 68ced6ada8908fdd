"""`run_bench.py import-labels`: lists with ImageNet's labels, from the files that these are handed out in (case A2)."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from harness.cli import main
from pipelines.dataset import open_dataset
from pipelines.imagenet.numbering import kit_number_of_label, known_validation_labels, wnids
from pipelines.imagenet.validation import KAGGLE_FILE, KIT_FILE

KNOWN = known_validation_labels()


def kaggle(folder: Path) -> Path:
    rows = [f"ILSVRC2012_val_{number:08d},{wnids()[label]} 1 2 3 4" for number, label in KNOWN.items()]
    (folder / KAGGLE_FILE).write_text("\r\n".join(["ImageId,PredictionString", *rows]), encoding="utf-8-sig")
    return folder / KAGGLE_FILE


def kit(folder: Path) -> Path:
    numbers = [kit_number_of_label()[KNOWN.get(number, 7)] for number in range(1, 50_001)]
    (folder / KIT_FILE).write_text("".join(f"{number}\n" for number in numbers))
    return folder / KIT_FILE


def lines(file: Path) -> dict[str, int]:
    return {path: int(label) for path, label in (line.rsplit(" ", 1) for line in file.read_text().splitlines())}


@pytest.mark.parametrize("source", [kaggle, kit])
@pytest.mark.parametrize(
    ("prefix", "folder"), [((), "val/"), (("--prefix", "images/"), "images/"), (("--prefix", ""), "")]
)
def test_the_files_as_they_are_handed_out_become_lists(
    source: object, prefix: tuple[str, ...], folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case A2: with the names that ImageNet's archive gives the images."""
    assert callable(source)
    file = source(tmp_path)
    assert main(["import-labels", str(file), str(tmp_path / "val_list.txt"), *prefix]) == 0
    found = lines(tmp_path / "val_list.txt")
    assert {found[f"{folder}ILSVRC2012_val_{number:08d}.JPEG"] - label for number, label in KNOWN.items()} == {0}
    printed = capsys.readouterr().out
    assert f"{len(found):,} labels written to" in printed
    assert main(["import-labels", str(file), str(tmp_path / "val_list.txt")]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("offset", [0, -1])
def test_the_cure_of_a_list_in_the_kit_s_numbering_is_followed(
    offset: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case A2: as an evaluation prints it; then the labels are right."""
    path = tmp_path / "val list.txt"
    rows = {f"val/ILSVRC2012_val_{n:08d}.JPEG": kit_number_of_label()[label] + offset for n, label in KNOWN.items()}
    path.write_text("".join(f"{name} {label}\n" for name, label in rows.items()))
    (tmp_path / "train_list.txt").write_text("a.jpg 0\n")
    command = ["--data", str(tmp_path), "--device", "cpu", "--gpus", "1", "--dry-run", "--classes", "1000"]
    assert main([*command, "--val-list", str(path)]) == 4
    (cure,) = [line for line in capsys.readouterr().err.splitlines() if "import-labels" in line]
    words = shlex.split(cure.partition("python run_bench.py ")[2].partition(", and use")[0])
    assert main(words) == 0
    option = shlex.split(cure.partition("the result by ")[2].partition(" or in place")[0])
    assert main([*command, *option]) == 0
    (tmp_path / "val_list.txt").symlink_to(words[2])
    val = open_dataset(tmp_path).val
    assert val is not None
    assert val.labels == tuple(KNOWN.values())


def test_names_of_other_encodings_stay_as_they_are(tmp_path: Path) -> None:
    """Case A2: a list is converted line by line."""
    rows = [(f"caf\xe9/ILSVRC2012_val_{n:08d}.JPEG", kit_number_of_label()[KNOWN[n]]) for n in range(1, 9)]
    (tmp_path / "a.txt").write_bytes("".join(f"{path} {label}\n" for path, label in rows).encode("latin-1"))
    assert main(["import-labels", str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]) == 0
    first = (tmp_path / "b.txt").read_bytes().split(b"\n")[0]
    assert first == b"caf\xe9/ILSVRC2012_val_00000001.JPEG 65"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("cat.jpg 3\n", "no class of ImageNet's is known"),
        ("ILSVRC2012_val_00000001.JPEG 65\nILSVRC2012_val_00000002.JPEG 970\n", "already"),
        (
            "ILSVRC2012_val_00000001.JPEG 490\nILSVRC2012_val_00000002.JPEG 361\nILSVRC2012_val_00000003.JPEG 7\n",
            "1 of 3",
        ),
        ("490\n361\n", "has 2 lines"),
        ("ImageId,PredictionString\nx,y\n", "line 2"),
    ],
)
def test_what_cannot_be_converted_leaves_no_file(
    text: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case A2: it is refused, with what is wrong."""
    (tmp_path / "a.txt").write_text(text)
    assert main(["import-labels", str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]) == 4
    assert part in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_list_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case A2: a folder that isn't there, and a source that isn't."""
    assert main(["import-labels", str(kaggle(tmp_path)), str(tmp_path / "no" / "b.txt")]) == 3
    assert "another file" in capsys.readouterr().err
    assert main(["import-labels", str(tmp_path / "none.csv"), str(tmp_path / "b.txt")]) == 4
    assert "none.csv" in capsys.readouterr().err
