"""Weights from a file: a training that begins with them, and an evaluation of them alone, as a user starts both."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import paddle
import pandas as pd
import pytest
from safetensors.numpy import load_file

import models
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import EPOCHS
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.tables import read_table
from models.weights import encode_weights
from tests.support.data_sets import write_noise
from tests.support.runs import fork, launch, wait_for_steps

pytestmark = pytest.mark.whole_run

OPTIONS = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--epochs", "2",
           "--telemetry-interval", "0.1")  # fmt: skip


def bench(folder: Path, *arguments: str) -> tuple[int, str, str]:
    ended = fork(*arguments, "--results", str(folder)).end()
    return ended.code, ended.out, ended.err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 training and 93 validation images of 4 classes."""
    return write_noise(tmp_path_factory.mktemp("data"), 64, 93)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run on two ranks, and its weights in both formats."""
    folder = tmp_path_factory.mktemp("trained")
    code, _, err = bench(folder, *OPTIONS, "--gpus", "2", "--data", str(data), "--run-name", "it")
    assert code == 0, err
    for name in ("it.pdparams", "it.safetensors"):
        code, _, err = bench(folder, "export", "it", str(folder / name))
        assert code == 0, err
    return folder


@pytest.mark.parametrize(("name", "gpus"), [("it.pdparams", "1"), ("it.safetensors", "2")])
def test_exported_weights_have_the_accuracy_of_the_run_they_are_from(
    name: str, gpus: str, data: Path, trained: Path, tmp_path: Path
) -> None:
    """Case C3: the validation images are all that it needs."""
    weights = trained / name
    shutil.copytree(data / "val", tmp_path / ".alone" / "val")
    code, out, err = bench(
        tmp_path, *OPTIONS, "--gpus", gpus, "--data", str(tmp_path / ".alone"), "--eval-only",
        "--pretrained", str(weights), "--run-name", "eval",
    )  # fmt: skip
    assert code == 0, err
    last = read_table(trained / "it.epochs.csv", EPOCHS).iloc[-1]
    row = read_table(tmp_path / "eval.epochs.csv", EPOCHS).iloc[0]
    assert (row["epoch"], row["val_images"]) == (0, 93)
    assert (row["top1"], row["top5"]) == (last["top1"], last["top5"])
    assert row["val_loss"] == pytest.approx(last["val_loss"], rel=1e-5)
    assert row[["images", "seconds", "fps", "train_loss", "learning_rate"]].isna().all()
    summary = read_table(tmp_path / "summary.csv", SUMMARY).iloc[0]
    assert (summary["run"], summary["top1"], summary["epochs"]) == ("eval", last["top1"], 0)
    assert summary[["fps", "images", "window_seconds", "left_out_train_images"]].isna().all()
    assert (summary["val_images"], summary["left_out_val_images"]) == (93, 0)
    steps = pd.read_csv(tmp_path / "eval.steps.csv")
    assert set(steps["phase"]) == {"evaluate"}
    assert steps["images"].sum() == 93
    record = json.loads((tmp_path / "eval.json").read_text())
    assert record["status"] == "finished"
    assert record["pretrained"]["file"] == name
    assert len(record["pretrained"]["sha256"]) == 64
    assert record["effective_settings"]["batch_size"] == 8
    # Nothing was trained, so nothing stands beside the reference or can be resumed.
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "eval.bad_images.csv", "eval.devices.csv", "eval.epochs.csv", "eval.html", "eval.json", "eval.steps.csv",
        "summary.csv",
    ]  # fmt: skip
    assert f"{last['top1']:.4f} of 93 images" in out
    assert "0.5186 and 0.7565 for PPLCNet_x0_25 on ImageNet" in " ".join(out.split())
    assert "not comparable: this run evaluated on" in " ".join(out.split())


def test_a_training_begins_with_the_weights_it_is_given(data: Path, trained: Path, tmp_path: Path) -> None:
    """At a learning rate that moves nothing, they are still there at its end."""
    weights = trained / "it.safetensors"
    code, _, err = bench(
        tmp_path, *OPTIONS, "--gpus", "2", "--data", str(data), "--pretrained", str(weights), "--run-name", "on",
        "--learning-rate", "1e-30",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = bench(tmp_path, "export", "on", str(tmp_path / "on.safetensors"))
    assert code == 0, err
    before, after = load_file(weights), load_file(tmp_path / "on.safetensors")
    for name, values in before.items():
        if not name.endswith(("_mean", "_variance")):
            np.testing.assert_array_equal(after[name], values, err_msg=name)
    record = json.loads((tmp_path / "on.json").read_text())
    assert record["pretrained"]["file"] == "it.safetensors"
    (row,) = pd.read_csv(next(tmp_path.glob("table-cpux2-*.csv"))).to_dict("records")
    assert row["Method"].split(", ")[0] == "PPLCNet_x0_25"
    assert {"pretrained", "learning rate 1e-30"} <= set(row["Method"].split(", "))


def test_a_training_for_other_classes_begins_with_a_new_last_layer(data: Path, trained: Path, tmp_path: Path) -> None:
    """Case C1: docs/usage.md's own example. It is recorded, and a resumed run keeps it and does not need the file.

    At a learning rate that moves nothing, the run ends with the file's weights and the last layer of a run without.
    """
    weights = tmp_path / "mine.safetensors"
    of_file = load_file(trained / "it.safetensors")
    of_file |= {"fc.weight": np.ones((1280, 1000), np.float32), "fc.bias": np.ones(1000, np.float32)}
    weights.write_bytes(encode_weights(weights, {f"Student.{name}": values for name, values in of_file.items()}, {}))
    files = RunFiles(tmp_path, "on")
    process = launch(
        *OPTIONS, "--gpus", "1", "--data", str(data), "--pretrained", str(weights), "--results", str(tmp_path),
        "--run-name", "on", "--learning-rate", "1e-30", "--seed", "3",
    )  # fmt: skip
    wait_for_steps(files, 2, process, "train")
    process.send_signal(signal.SIGTERM)
    assert process.end(60).code == 75
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.unlink()
    code, _, err = bench(tmp_path, "--resume", "on")
    assert code == 0, err
    record = json.loads(files.record.read_text())
    assert record["pretrained"] == {
        "file": "mine.safetensors", "sha256": digest, "prefix": "Student.", "others": 0, "classes": 1000, "head": "new"
    }  # fmt: skip
    assert record["plan"]["training"]["pretrained_head"] == "new"
    assert [warning.partition(": ")[0] for warning in record["warnings"][:2]] == [
        "the weights in mine.safetensors are those whose names begin with 'Student.'",
        "the last layer of mine.safetensors starts anew",
    ]
    (row,) = pd.read_csv(next(tmp_path.glob("table-cpux1-*.csv"))).to_dict("records")
    assert row["Method"].endswith(", pretrained, new head, 4 classes")
    code, _, err = bench(tmp_path, "export", "on", str(tmp_path / "on.safetensors"))
    assert code == 0, err
    paddle.seed(3)
    fresh = {name: values.numpy() for name, values in models.build("x0_25", 4).state_dict().items()}
    for name, values in load_file(tmp_path / "on.safetensors").items():
        if not name.endswith(("_mean", "_variance")):
            wanted = fresh if name.startswith("fc.") else of_file
            # A bias begins with 0, which even such a rate moves.
            np.testing.assert_allclose(values, wanted[name], rtol=0, atol=1e-25, err_msg=name)


@pytest.mark.parametrize(
    ("classes", "size", "differing", "cure"),
    [
        (3, "x0_25", "holds 4 class folders, more than the 3 classes asked for", "val_list.txt"),
        (
            4,
            "x0_35",
            "blocks2.0.pw_conv.conv.weight: 16 x 8 x 1 x 1 in the file, 8 x 8 x 1 x 1 wanted",
            "--model x0_35",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_the_run(
    classes: int, size: str, differing: str, cure: str, data: Path, tmp_path: Path
) -> None:
    paddle.seed(0)
    other = {name: values.numpy() for name, values in models.build(size, classes).state_dict().items()}
    (tmp_path / "other.pdparams").write_bytes(encode_weights(tmp_path / "other.pdparams", other, {}))
    code, _, err = bench(
        tmp_path, *OPTIONS, "--gpus", "1", "--data", str(data), "--eval-only", "--pretrained",
        str(tmp_path / "other.pdparams"), "--run-name", "eval",
    )  # fmt: skip
    assert code == 4
    assert f"{differing}" in err
    assert cure in err
    assert "Traceback" not in err
    assert not (tmp_path / "eval.json").exists()


def test_answers_that_are_no_numbers_are_no_accuracy(data: Path, trained: Path, tmp_path: Path) -> None:
    weights = load_file(trained / "it.safetensors")
    weights["conv1.bn._variance"] = -np.ones_like(weights["conv1.bn._variance"])
    (tmp_path / "bad.safetensors").write_bytes(encode_weights(tmp_path / "bad.safetensors", weights, {}))
    code, _, err = bench(
        tmp_path, *OPTIONS, "--gpus", "1", "--data", str(data), "--eval-only", "--pretrained",
        str(tmp_path / "bad.safetensors"), "--run-name", "eval",
    )  # fmt: skip
    assert code == 5
    assert err.startswith("error: the loss on the validation images is nan")
    assert json.loads((tmp_path / "eval.json").read_text())["status"] == "failed"
    assert not (tmp_path / "summary.csv").exists()


def test_an_evaluation_can_be_neither_resumed_nor_compared(data: Path, trained: Path, tmp_path: Path) -> None:
    code, _, err = bench(
        tmp_path, *OPTIONS, "--gpus", "1", "--data", str(data), "--eval-only", "--pretrained",
        str(trained / "it.pdparams"), "--run-name", "eval",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = bench(tmp_path, "compare", "eval", "bi_v100")
    assert (code, err) == (
        2, "error: run 'eval', which only evaluates, has no training throughput\n  Name a run that trains.\n"
    )  # fmt: skip
    code, out, _ = bench(tmp_path, "--resume", "eval")
    assert (code, out) == (0, "nothing to resume: the run is finished\n")
