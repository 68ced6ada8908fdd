"""What `verify` says about files of several names, and about images that DALI would misread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.artifacts.shared_schema import BAD_FILES
from harness.artifacts.tables import read_table
from harness.cli import main
from tests.support.tiff_files import CIELAB, tiff


def write(folder: Path, *names: str) -> None:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index * 20, 90, 10)).save(folder / name)


def verified(folder: Path, results: Path) -> tuple[int, list[tuple[str, str, str]]]:
    """The exit code, and path, kind and reason of each row of the table."""
    code = main(["verify", str(folder), "--results", str(results)])
    rows = read_table(results / f"verify-{folder.name}.csv", BAD_FILES)
    return code, [(str(row["path"]), str(row["kind"]), str(row["reason"])) for _, row in rows.iterrows()]


def test_a_val_that_is_a_link_to_train_can_not_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Attack 25."""
    write(tmp_path / "data", "train/ant/1.png", "train/bee/2.png")
    (tmp_path / "data" / "val").symlink_to("train")
    code, rows = verified(tmp_path / "data", tmp_path / "out")
    assert code == 4
    assert rows == [
        (f"val/{name}", "leak", f"the same file as image {place} of the training list, 'train/{name}'")
        for place, name in ((1, "ant/1.png"), (2, "bee/2.png"))
    ]
    assert "2 validation images are also in the training list" in capsys.readouterr().err


def test_links_to_other_classes_have_two_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Attacks 13, 23 and 24: a folder, an image, and a line of a list."""
    write(tmp_path / "data", "train/cat/1.png", "train/dog/2.png", "val/cat/3.png")
    (tmp_path / "data/val/dog").symlink_to("cat")
    (tmp_path / "data/train/dog/4.png").hardlink_to(tmp_path / "data/train/cat/1.png")
    code, rows = verified(tmp_path / "data", tmp_path / "out")
    assert code == 4
    assert rows == [
        ("train/dog/4.png", "two_labels", "label 1 here, 0 as image 1 of its list, 'train/cat/1.png'"),
        ("val/dog/3.png", "two_labels", "label 1 here, 0 as image 1 of its list, 'val/cat/3.png'"),
    ]
    assert "2 images are listed with two labels: keep the right one of each" in capsys.readouterr().err
    write(tmp_path / "listed", "1.png", "2.png")
    (tmp_path / "listed/train_list.txt").write_text("1.png 0\n2.png 1\n1.png 1\n")
    assert verified(tmp_path / "listed", tmp_path / "out") == (
        4, [("1.png", "two_labels", "label 1 here, 0 as image 1 of its list")],
    )  # fmt: skip


def test_images_that_would_be_misread_are_named_whatever_their_names(tmp_path: Path) -> None:
    """Attacks 45 and 46: a run looks at names alone."""
    write(tmp_path / "data", "1.png", "2.png")
    lab = tiff(np.full((4, 4, 3), 100, dtype=np.int64), CIELAB)
    (tmp_path / "data/3.tif").write_bytes(lab)
    (tmp_path / "data/4.jpg").write_bytes(lab)
    (tmp_path / "data/5.ppm").write_bytes(b"P6 2 2 100\n" + bytes(12))
    (tmp_path / "data/train_list.txt").write_text("1.png 0\n2.png 0\n3.tif 0\n4.jpg 0\n5.ppm 0\n")
    in_lab, maximum = "a TIFF in CIELAB", "a PNM with a maximum of 100"
    code, rows = verified(tmp_path / "data", tmp_path / "out")
    assert code == 4
    assert rows == [
        (name, "misread", f"{reason}, so that DALI would read wrong pixels")
        for name, reason in (("3.tif", in_lab), ("4.jpg", in_lab), ("5.ppm", maximum))
    ]
