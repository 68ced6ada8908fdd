"""Whole runs that fail, each for another reason, and two that nearly did."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts.checkpoint import newest_checkpoint, read_checkpoint
from harness.artifacts.schema import STEPS
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_colours, write_noise
from tests.support.runs import fork, launch, run
from tests.support.small_disk import SmallDisk

pytestmark = pytest.mark.whole_run

SMALL = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "4")


def test_the_same_seed_gives_the_same_losses(colours: Path, tmp_path: Path) -> None:
    losses = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        made = run(tmp_path, *SMALL, "--gpus", "1", "--data", str(colours), "--epochs", "1", "--seed", seed, name=name)
        assert made.code == 0, made.err
        steps = made.table("steps")
        losses.append(list(steps[steps["phase"] != "checkpoint"]["loss"]))
        assert not np.isnan(losses[-1]).any()
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint_before_it(
    colours: Path, tmp_path: Path
) -> None:
    made = run(
        tmp_path, *SMALL, "--gpus", "2", "--data", str(colours), "--epochs", "40", "--learning-rate", "1e9",
        "--lr-warmup-epochs", "1", "--checkpoint-minutes", "0.00001",
    )  # fmt: skip
    assert made.code == 5
    first = made.err.splitlines()[0]
    # A gradient may be so before the loss is.
    assert re.match(r"error: the (loss is (nan|inf) at step \d+ .* on rank|weights of .* are not finite after)", first)
    assert "learning rate" in first
    assert "--learning-rate" in made.err
    assert not (tmp_path / "summary.csv").exists()
    assert made.record["status"] == "failed"
    saved = newest_checkpoint(made.files.checkpoints)
    assert saved is not None
    assert f"A checkpoint after step {saved[1]['optimizer_steps']} was saved." in made.err
    arrays = read_checkpoint(made.files.checkpoints, saved[0]).arrays
    assert all(np.isfinite(values).all() for name, values in arrays.items() if name.startswith("model/"))


def test_a_broken_image_ends_the_run_and_is_named(colours: Path, tmp_path: Path) -> None:
    whole = next((colours / "train").rglob("*.jpg")).read_bytes()
    (tmp_path / "broken.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "train_list.txt").write_text("broken.jpg 0\n" * 16)
    made = run(
        tmp_path / "results", *SMALL, "--gpus", "2", "--data", str(tmp_path), "--throughput-only",
        "--bad-images", "fail",
    )  # fmt: skip
    assert made.code == 4
    assert re.match(
        r"error: \d of 16 training images can't be used so far, and --bad-images is fail:\n  'broken\.jpg': ", made.err
    ), made.err  # fmt: skip
    assert "--bad-images skip" in made.err
    assert "Traceback" not in made.err


def test_another_launchers_environment_changes_nothing(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paddle's launcher takes these for more than its own command line, so it is the real one here."""
    for name, value in (("NPROC_PER_NODE", "1"), ("NNODES", "2"), ("LOG_DIR", str(tmp_path / "elsewhere"))):
        monkeypatch.setenv(f"PADDLE_{name}", value)
    made = run(
        tmp_path / "results", *SMALL, "--gpus", "2", "--data", str(colours), "--epochs", "1", start=launch
    )  # fmt: skip
    assert made.code == 0, made.err
    assert set(made.train_steps()["images"]) == {8}
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_ends_the_run_with_what_was_saved(tmp_path: Path, small_disk: SmallDisk) -> None:
    data = write_noise(tmp_path / "data", 40, 8)
    # A checkpoint of this model has 1.9 MiB.
    disk = small_disk(3 * 1024 * 1024)
    made = run(disk, *SMALL, "--gpus", "1", "--data", str(data), "--epochs", "4", "--checkpoint-minutes", "60")
    assert made.code == 3, made.err
    assert "No space left on device" in made.err
    saved = newest_checkpoint(made.files.checkpoints)
    assert saved is not None
    assert saved[1]["progress"]["epoch"] == 2
    assert f"A checkpoint after step {saved[1]['optimizer_steps']} was saved." in made.err
    assert sorted(path.name for path in made.files.checkpoints.iterdir()) == [
        ".lock", "000001.json", "000001.safetensors"
    ]  # fmt: skip
    steps = made.files.table(STEPS.name)
    assert steps.read_bytes().endswith(b"\n")
    assert read_table(steps, STEPS)["step_seconds"].notna().all()


# Address space stands for a device's memory: 24 such images take 5.3 GiB of it, 12 take 4.1, libraries included.
TIGHT_BYTES = 19 * 2**28
TOO_LARGE = ("--device", "cpu", "--model", "x0_25", "--image-size", "768", "--batch-size", "24", "--gpus", "1",
             "--compute-threads", "1", "--decode-threads", "1", "--epochs", "1")  # fmt: skip
start_tight = partial(fork, address_bytes=TIGHT_BYTES)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 training and 4 validation images."""
    return write_colours(tmp_path_factory.mktemp("data"), 25, 4)


def test_a_batch_that_does_not_fit_is_reported(few: Path, tmp_path: Path) -> None:
    made = run(tmp_path, *TOO_LARGE, "--data", str(few), start=start_tight)
    assert made.code == 5
    assert made.err.startswith("error: 24 images per device do not fit into the memory of rank 0: ")
    assert "Use --batch-size 12 or less, or --auto-batch" in made.err
    assert not (tmp_path / "summary.csv").exists()


@pytest.mark.slow
def test_auto_batch_halves_until_it_fits(few: Path, tmp_path: Path) -> None:
    made = run(tmp_path, *TOO_LARGE, "--data", str(few), "--auto-batch", "--warmup", "1", start=start_tight)
    assert made.code == 0, made.err
    batch = made.record["plan"]["pipeline"]["batch_size"]
    assert batch in (12, 6, 3)
    assert made.record["config"]["batch_size"] == 24  # what was asked for
    assert made.record["plan"]["training"]["learning_rate"] == pytest.approx(0.1 / 256 * batch)
    assert set(made.train_steps()["images"]) == {batch}
    warnings = [text for text in made.record["warnings"] if text.startswith("--auto-batch: ")]
    assert warnings[0].startswith("--auto-batch: 24 images per device did not fit into memory, trying 12")
    assert "--auto-batch: 24 images per device" in made.out
