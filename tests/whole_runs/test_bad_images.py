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
    made = run(tmp_path, *OPTIONS, "--gpus", "2", "--data", str(broken), "--epochs", "2", "--lr-warmup-epochs", "1")
    assert made.code == 0, made.err
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
    assert read_table(tmp_path / "summary.csv", SUMMARY)["bad_images"].tolist() == [5]


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (("--bad-images", "fail"), "1 of 66 listed files cannot be used:\n  'train/0/zero.jpg': 0 bytes"),
        (("--max-bad-images", "1"), "1 of 32 listed files cannot be used:\n  'val/3/=cut.jpg': 0 bytes"),
        (("--max-bad-images", "3"), "more than 3 images can't be used, 4 so far; the last ones:"),
    ],
)
def test_too_many_bad_images_end_the_run(broken: Path, tmp_path: Path, options: tuple[str, ...], reported: str) -> None:
    """The third number shows only to the rank that decodes them."""
    made = run(tmp_path, *OPTIONS, "--gpus", "1", "--data", str(broken), "--epochs", "4", *options)
    assert made.code == 4, made.err
    assert made.err.startswith(f"error: {reported}")
    assert not (tmp_path / "summary.csv").exists()


def test_throughput_is_measured_around_bad_images(broken: Path, tmp_path: Path) -> None:
    made = run(
        tmp_path, *OPTIONS, "--gpus", "1", "--data", str(broken), "--throughput-only", "--max-seconds", "3"
    )  # fmt: skip
    assert made.code == 0, made.err
    assert sorted(bad_images(made).index) == ["train/0/zero.jpg", "train/1/text.jpg", "train/2/2.jpg"]
