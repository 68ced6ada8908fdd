"""Whole runs on images that are no squares, as PaddleClas's PULC recipes have them, and on large ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from harness.analysis.latency.stored import read_latency
from harness.analysis.latency.table import LATENCY
from harness.artifacts.record import RunFiles
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.tables import read_table
from models.flops import macs
from tests.support.runs import fork, launch, run

pytestmark = pytest.mark.whole_run

SMALL = ("--device", "cpu", "--gpus", "1", "--model", "x0_25", "--batch-size", "4", "--compute-threads", "1")
PULC = ("--image-size", "80X160", "--preprocessing", "whole", "--strides", "height", "--flip-probability", "0")


def test_a_training_as_pulc_s_recipes_ends_with_its_tables(colours: Path, tmp_path: Path) -> None:
    """Then its weights are evaluated on images of another size, and its networks are timed."""
    made = run(tmp_path, *SMALL, *PULC, "--data", str(colours), "--epochs", "2")
    assert made.code == 0, made.err
    record = made.record
    assert (record["config"]["image_size"], record["plan"]["pipeline"]["image_size"]) == ("80x160", "80x160")
    assert record["plan"]["training"]["strides"] == "height"
    said = {"image_size": "80x160", "preprocessing": "whole", "strides": "height", "resize": "fused",
            "antialias": False, "decode_region": False}  # fmt: skip
    assert {name: record["effective_settings"][name] for name in said} == said
    (row,) = read_table(tmp_path / "summary.csv", SUMMARY).to_dict("records")
    assert row["crop_size"] == record["summary"]["crop_size"] == "80x160"
    assert row["fps"] > 0
    assert 0 <= row["top1"] <= 1
    (table,) = tmp_path.glob("table-cpux1-*.csv")
    with table.open() as stream:
        (line,) = csv.DictReader(stream)
    assert line["Crop Size"] == "80x160"
    assert "height alone halved" in line["Method"]
    assert "whole images" in line["Method"]
    assert "80x160, of whole images, flipped with probability 0" in " ".join(made.out.split())
    assert made.files.page.exists()

    weights = str(tmp_path / "weights.safetensors")
    assert fork("export", "it", weights, "--results", str(tmp_path)).end().code == 0
    evaluation = run(
        tmp_path, *SMALL, "--eval-only", "--pretrained", weights, "--data", str(colours), "--image-size", "96x64",
        name="evaluation",
    )  # fmt: skip
    assert evaluation.code == 0, evaluation.err
    assert evaluation.record["plan"]["training"]["strides"] == "both"
    assert "one evaluation, 96x64" in evaluation.out
    rows = read_table(tmp_path / "summary.csv", SUMMARY)
    assert rows["crop_size"].tolist() == ["80x160", "96x64"]

    timed = fork(
        "latency", "--weights", "it", "--image-size", "80x160", "--seconds", "0.2", "--rounds", "2", "--name", "timed",
        "--results", str(tmp_path),
    ).end()  # fmt: skip
    assert (timed.code, timed.err) == (0, "")
    # The strides are those of the run.
    assert "1 image of 80x160 px in a call, stages that halve the height alone" in " ".join(timed.out.split())
    job, found = read_latency(tmp_path / "timed.json").job, read_table(tmp_path / "timed.latency.csv", LATENCY)
    assert (job.image_size, job.strides) == ("80x160", "height")
    assert found["image_size"].tolist() == ["80x160"]
    assert found["macs"].tolist() == [macs("x0_25", "80x160", job.num_classes, "height")]
    assert found["logits_error"].max() < 1e-4


@pytest.mark.parametrize("loader", ["dali", "opencv"])
def test_a_large_image_that_is_no_square_is_trained_on(colours: Path, tmp_path: Path, loader: str) -> None:
    """Through Paddle's launcher for the OpenCV loader, whose workers a forked rank can't have."""
    made = run(
        tmp_path, *SMALL, "--batch-size", "1", "--image-size", "512x2048", "--data", str(colours), "--loader", loader,
        "--throughput-only", "--max-seconds", "4", "--phases", "end_to_end",
        start=launch if loader == "opencv" else fork,
    )  # fmt: skip
    assert made.code == 0, made.err
    assert made.record["effective_settings"]["image_size"] == "512x2048"
    assert made.record["summary"]["crop_size"] == "512x2048"


def test_a_square_is_written_as_before(colours: Path, tmp_path: Path) -> None:
    """As a number in the record, and as one in the table, whatever was typed."""
    made = run(tmp_path, *SMALL, "--image-size", "32x32", "--data", str(colours), "--epochs", "1")
    assert made.code == 0, made.err
    stored = json.loads(RunFiles(tmp_path, "it").record.read_text())
    assert (stored["config"]["image_size"], stored["plan"]["pipeline"]["image_size"]) == (32, 32)
    assert (stored["effective_settings"]["image_size"], stored["summary"]["crop_size"]) == (32, 32)
    with (tmp_path / "summary.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["crop_size"] == "32"
