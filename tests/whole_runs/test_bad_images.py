"""Whole runs on data that can't all be used."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_noise
from tests.support.runs import Run, run

pytestmark = pytest.mark.whole_run

OPTIONS = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "8")
EARLY = "1 of 32 validation images and 1 of 66 training images"
BAD = {
    "train/0/zero.jpg": b"", "train/1/text.jpg": b"no image" * 9, "val/2/text.jpg": b"no image" * 9,
    "val/3/=cut.jpg": b"",
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with two bad files in each split, and one image cut off."""
    folder = write_noise(tmp_path_factory.mktemp("broken"), 64, 30)
    for name, content in BAD.items():
        (folder / name).write_bytes(content)
    whole = folder / "train" / "2" / "2.jpg"
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return folder


def bad_images(made: Run) -> pd.DataFrame:
    table: pd.DataFrame = made.table("bad_images").set_index("path")
    return table


def test_bad_images_are_left_out_named_and_counted(broken: Path, tmp_path: Path) -> None:
    """Case A4: the terminal, the table and the summary say so, at the start and at the end."""
    made = run(
        tmp_path, *OPTIONS, "--gpus", "2", "--data", str(broken), "--epochs", "2", "--lr-warmup-epochs", "1",
        "--max-bad-share", "0.1",
    )  # fmt: skip
    assert made.code == 0, made.err
    said = " ".join(made.out.split())
    assert "note: left out: 1 of 32 validation images, 1 of 66 training images; see it.bad_images.csv" in said
    assert "of 30 images (2 left out), after 2 epochs" in said
    assert "left out 2 of 32 validation images, 3 of 66 training images" in said
    assert "were left out, more than 100 images or 1% of a split" in said
    assert not list(tmp_path.glob("table-*"))
    table = bad_images(made)
    assert sorted(table.index) == sorted([*BAD, "train/2/2.jpg"])
    assert table.loc["train/0/zero.jpg", "reason"] == "0 bytes"
    assert table.loc["train/1/text.jpg", "reason"] == "not an image format that DALI decodes"
    assert "damaged or cut off" in str(table.loc["train/2/2.jpg", "reason"])
    # Empty files are seen before the first step, the others by the rank that reads them, in the first epoch.
    early = table["rank"].isna()
    assert sorted(table.index[early]) == ["train/0/zero.jpg", "val/3/=cut.jpg"]
    assert set(table.loc[~early, "epoch"]) == {1}
    epochs = made.table("epochs")
    assert epochs["val_images"].tolist() == [30] * 2
    assert all((epochs["top1"] * 30).round(6).apply(lambda right: abs(right - round(right)) < 0.01))
    # ceil(ceil(66 / 2) / 8) = 5 steps an epoch, each full.
    assert made.train_steps()["images"].tolist() == [16] * 10
    summary = read_table(tmp_path / "summary.csv", SUMMARY).iloc[0]
    assert summary[["val_images", "left_out_train_images", "left_out_val_images"]].tolist() == [30, 3, 2]
    assert made.record["summary"]["left_out_val_images"] == 2


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (("--bad-images", "fail"), f"{EARLY} can't be used, and --bad-images is fail:\n  'train/0/zero.jpg': 0 bytes"),
        ((), f"{EARLY} can't be used, and the limit is --max-bad-share 0.01:"),
        (
            ("--max-bad-images", "1", "--max-bad-share", "1"),
            f"{EARLY} can't be used, and the limit is --max-bad-images 1:",
        ),
        (
            ("--max-bad-images", "3", "--max-bad-share", "1"),
            "can't be used so far, and the limit is --max-bad-images 3:",
        ),
        (
            ("--max-bad-share", "0.04"),
            "3 of 66 training images can't be used so far, and the limit is --max-bad-share 0.04:",
        ),
    ],
)
def test_too_many_bad_images_end_the_run(broken: Path, tmp_path: Path, options: tuple[str, ...], reported: str) -> None:
    """Cases A4 and E7: each split is counted. The last two show only to the rank that decodes the images."""
    made = run(tmp_path, *OPTIONS, "--gpus", "1", "--data", str(broken), "--epochs", "4", *options)
    assert made.code == 4, made.err
    assert made.err.startswith("error: ")
    assert reported in made.err
    assert not (tmp_path / "summary.csv").exists()


def test_throughput_is_measured_around_bad_images(broken: Path, tmp_path: Path) -> None:
    made = run(
        tmp_path, *OPTIONS, "--gpus", "1", "--data", str(broken), "--throughput-only", "--max-seconds", "3",
        "--max-bad-share", "0.05",
    )  # fmt: skip
    assert made.code == 0, made.err
    summary = read_table(tmp_path / "summary.csv", SUMMARY).iloc[0]
    assert summary["left_out_train_images"] == 3
    assert summary[["val_images", "left_out_val_images"]].isna().all()
    (table,) = tmp_path.glob("table-*.csv")
    assert "3 training images left out" in table.read_text(encoding="utf-8")
    assert sorted(bad_images(made).index) == ["train/0/zero.jpg", "train/1/text.jpg", "train/2/2.jpg"]
