"""Weights that leave a run: those it evaluated, in a file that Paddle and others read."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
import pytest
from safetensors import safe_open

import models
from harness.artifacts.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint, write_checkpoint
from harness.artifacts.record import RunFiles, read_record, write_record
from harness.artifacts.schema import EPOCHS
from harness.artifacts.tables import read_table
from harness.cli import main
from harness.commands.stored import export as command
from harness.plan.kinds import EVALUATION, THROUGHPUT
from harness.training.state import Progress
from models.pplcnet import PPLCNet
from models.weights import encode_weights, read_weights
from tests.support.data_sets import write_noise
from tests.support.plans import a_plan, a_record
from tests.support.runs import run
from tests.support.small_disk import SmallDisk

Arrays = dict[str, npt.NDArray[Any]]
ROW = {"epoch": 3, "top1": 0.95333, "top5": 0.99778}
STATISTICS = ("_mean", "_variance")


def a_model() -> PPLCNet:
    paddle.seed(3)
    return models.build("x0_25", 10)


def a_checkpoint(progress: Progress, optimizer_steps: int, apart: float = 0.0) -> Checkpoint:
    """Of `a_model` on two ranks, whose batch-norm statistics are as far apart as is said."""
    arrays: Arrays = {"rank0/dali": np.zeros(3, np.uint8), "rank1/dali": np.zeros(3, np.uint8)}
    for name, values in a_model().state_dict().items():
        if name.endswith(STATISTICS):
            for rank in (0, 1):
                arrays[f"rank{rank}/statistics/{name}"] = values.numpy() + np.float32(rank * apart)
        else:
            arrays |= {f"model/{name}": values.numpy(), f"velocity/{name}": values.numpy() + 1}
    return Checkpoint(arrays, {"progress": asdict(progress), "optimizer_steps": optimizer_steps, "ranks": 2})


def a_run(folder: Path, checkpoint: Checkpoint | None, run: str = "first", **changes: Any) -> RunFiles:
    files = RunFiles(folder, run)
    write_record(files.record, a_record(run=run, **changes))
    files.checkpoints.mkdir()
    if checkpoint is not None:
        write_checkpoint(files.checkpoints, checkpoint)
    return files


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["export", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as stream:
        found: dict[str, str] = stream.metadata()
    return found


def logits(model: PPLCNet) -> npt.NDArray[Any]:
    model.eval()
    images = np.random.default_rng(2).normal(size=(2, 3, 32, 32)).astype("float32")
    with paddle.no_grad():
        computed: npt.NDArray[Any] = model(paddle.to_tensor(images)).numpy()
    return computed


def test_a_run_is_written_with_what_is_known_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path, a_checkpoint(Progress(epoch=4, last=ROW), 66))
    target = tmp_path / "it.safetensors"
    assert told(capsys, "first", target, "--results", tmp_path) == (
        0,
        f"{target}: x0_25, 10 classes, 252,994 parameters, run first after epoch 3 (step 66),"
        " top-1 0.9533 after epoch 3\n",
        "",
    )
    assert metadata(target) == {
        "model": "x0_25", "num_classes": "10", "strides": "both", "run": "first", "epoch": "3", "optimizer_steps": "66",
        "dataset": "digits",
        "top1": "0.95333", "top1_epoch": "3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("progress", "epoch", "words"),
    [
        (Progress(epoch=4, steps=5, last=ROW), "3", "in epoch 4 (step 71), top-1 0.9533 after epoch 3"),
        # Trained to its end, and not evaluated yet.
        (Progress(epoch=4, steps=22, last=ROW), "4", "after epoch 4 (step 71), top-1 0.9533 after epoch 3"),
        (Progress(epoch=1, steps=5), "0", "in epoch 1 (step 71)"),
    ],
)
def test_weights_of_mid_epoch_are_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: Progress, epoch: str, words: str
) -> None:
    a_run(tmp_path, a_checkpoint(progress, 71), status="running")
    target = tmp_path / "it.safetensors"
    code, out, _ = told(capsys, "first", target, "--results", tmp_path)
    assert code == 0
    assert out.endswith(f", run first {words}\n")
    assert metadata(target)["epoch"] == epoch
    assert ("top1" in metadata(target)) == bool(progress.last)


@pytest.mark.parametrize(("bn_stats", "share"), [("average", 0.5), ("rank0", 0.0)])
def test_statistics_that_the_ranks_have_apart_are_those_that_would_be_evaluated(
    bn_stats: str, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for apart in (0.0, 0.5):
        checkpoint = a_checkpoint(Progress(epoch=1, steps=5), 5, apart)
        a_run(tmp_path, checkpoint, run=f"apart{apart}", plan=a_plan(bn_stats=bn_stats))
        target = tmp_path / f"apart{apart}.pdparams"
        assert told(capsys, f"apart{apart}", target, "--results", tmp_path)[0] == 0
        found = read_weights(target)[0]
        for name, values in a_model().state_dict().items():
            wanted = values.numpy() + np.float32(share * apart if name.endswith(STATISTICS) else 0)
            assert found[name].tobytes() == wanted.tobytes(), name


def test_formats_are_converted_into_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (tmp_path / name for name in ("a.pdparams", "b.safetensors", "c.pdparams"))
    paddle.save(a_model().state_dict(), str(first))
    assert told(capsys, first, second) == (
        0, f"{second}: x0_25, 10 classes, 252,994 parameters, converted from {first}\n", ""
    )  # fmt: skip
    assert metadata(second) == {"model": "x0_25", "num_classes": "10"}
    assert told(capsys, second, third)[0] == 0
    model = models.build("x0_25", 10)
    assert model.set_state_dict(paddle.load(str(third))) == ([], [])
    np.testing.assert_array_equal(logits(model), logits(a_model()))


def test_one_model_of_a_file_of_two_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case C5: the cure for a distillation's file, followed as it is printed, gives weights that are read."""
    both, target = tmp_path / "of two.pdparams", tmp_path / "student.pdparams"
    student = {name: values.numpy() for name, values in a_model().state_dict().items()}
    teacher = {name: values.numpy() for name, values in models.build("x0_35", 10).state_dict().items()}
    names = {f"{who}.{name}": v for who, of in (("Teacher", teacher), ("Student", student)) for name, v in of.items()}
    both.write_bytes(encode_weights(both, names, {}))
    code, out, err = told(capsys, both, target)
    assert (code, out) == (4, "")
    assert "holds 2 models, with names that begin with 'Student.' and 'Teacher.'" in err
    words = shlex.split(err.splitlines()[-1].partition(": ")[2])
    assert words[:3] == ["python", "run_bench.py", "export"]
    words[4] = str(target)
    code, out, err = told(capsys, *words[3:])
    assert (code, err) == (0, "")
    assert "x0_25, 10 classes" in out
    assert "its names that begin with 'Student.'" in out
    for name, values in read_weights(target)[0].items():
        assert values.tobytes() == student[name].tobytes(), name
    assert told(capsys, both, target, "--overwrite", "--prefix", "Teacher")[1].count("x0_35, 10 classes")
    assert told(capsys, both, target, "--overwrite", "--prefix", "Third")[0] == 4
    # A file that names no model of its own in front needs no prefix, and a run has none.
    assert told(capsys, "first", target, "--overwrite", "--results", tmp_path, "--prefix", "Student.")[0] == 2


def test_a_file_that_exists_is_replaced_only_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, a_checkpoint(Progress(epoch=2, last=ROW), 22))
    target = tmp_path / "it.pdparams"
    target.write_bytes(b"old")
    line = ("first", target, "--results", tmp_path)
    assert told(capsys, *line) == (
        2, "", f"error: {str(target)!r} exists already\n  Name another file, or pass --overwrite.\n"
    )  # fmt: skip
    assert target.read_bytes() == b"old"
    assert told(capsys, *line, "--overwrite")[0] == 0
    assert len(read_weights(target)[0]) == 146


def test_what_is_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = a_run(tmp_path, None)
    target, folder = tmp_path / "it.pdparams", str(tmp_path)
    assert told(capsys, "frist", target, "--results", folder) == (
        2, "", f"error: no run 'frist' in {folder!r}\n  Did you mean 'first'?\n"
    )  # fmt: skip
    for name in ("another", "x" * 300):
        assert told(capsys, name, target, "--results", folder) == (
            2, "", f"error: no run {name!r} in {folder!r}\n"
            "  Available there: 'first'. Pass another folder with --results.\n"
        )  # fmt: skip
    assert told(capsys, "", target, "--results", folder)[0] == 2
    assert told(capsys, "first", target, "--results", folder) == (
        2, "", f"error: run 'first' has no complete checkpoint in {str(files.checkpoints)!r}\n"
        "  The first checkpoint is saved at the end of the first epoch, or after --checkpoint-minutes.\n"
    )  # fmt: skip
    a_run(tmp_path, None, run="fast", plan=a_plan(kind=THROUGHPUT))
    assert told(capsys, "fast", target, "--results", folder) == (
        2, "", "error: run 'fast' measures throughput, and saves no weights\n  Export a run of epochs.\n"
    )  # fmt: skip
    a_run(tmp_path, None, run="looked", plan=a_plan(kind=EVALUATION))
    assert told(capsys, "looked", target, "--results", folder) == (
        2, "", "error: run 'looked' only evaluates, and saves no weights\n  Export a run of epochs.\n"
    )  # fmt: skip
    assert not target.exists()


def test_a_file_that_can_t_be_written_keeps_what_was_there(
    tmp_path: Path, small_disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, a_checkpoint(Progress(epoch=2, last=ROW), 22))
    target = small_disk(256 * 1024) / "it.pdparams"
    target.write_bytes(b"old")
    assert told(capsys, "first", target, "--results", tmp_path, "--overwrite") == (
        3, "", f"error: can't write {str(target)!r}: No space left on device\n"
        "  Free space on the disk, or name a file in another folder.\n"
    )  # fmt: skip
    assert [(entry.name, entry.read_bytes()) for entry in target.parent.iterdir()] == [("it.pdparams", b"old")]
    gone = tmp_path / "gone" / "it.pdparams"
    assert told(capsys, "first", gone, "--results", tmp_path)[0] == 3


def test_a_file_that_another_process_makes_meanwhile_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path, a_checkpoint(Progress(epoch=2, last=ROW), 22))
    target = tmp_path / "it.pdparams"

    def encode_and_be_overtaken(*arguments: Any) -> bytes:
        target.write_bytes(b"another's")
        return encode_weights(*arguments)

    monkeypatch.setattr(command, "encode_weights", encode_and_be_overtaken)
    assert told(capsys, "first", target, "--results", tmp_path)[0] == 2
    assert target.read_bytes() == b"another's"


def test_what_is_wrong_with_a_file_has_the_exit_code_of_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none, target = tmp_path / "none.pdparams", tmp_path / "it.safetensors"
    code, out, err = told(capsys, none, target)
    assert (code, out) == (4, "")
    assert err.startswith(f"error: can't read {str(none)!r}: No such file or directory\n  Give PP-LCNet's weights")
    code, _, err = told(capsys, none, tmp_path / "it.pth")
    assert code == 4
    assert err.startswith(f"error: {str(tmp_path / 'it.pth')!r} ends in neither .pdparams nor .safetensors\n")
    paddle.save({"fc.weight": paddle.ones([1280, 7]), "fc.bias": paddle.ones([7])}, str(none))
    code, _, err = told(capsys, none, target)
    assert code == 4
    assert "144 differences from its 146 entries\n  conv1.conv.weight is missing\n" in err
    assert not target.exists()


def test_a_run_in_a_file_of_its_name_is_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first").write_bytes(b"notes")
    assert told(capsys, "first", "it.pdparams", "--results", str(tmp_path))[0] == 4
    a_run(tmp_path, a_checkpoint(Progress(epoch=2, last=ROW), 22))
    assert told(capsys, "first", "it.pdparams", "--results", str(tmp_path))[0] == 0


@pytest.mark.whole_run
def test_a_real_run_answers_as_it_was_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, results = write_noise(tmp_path / "data", 32, 16), tmp_path / "results"
    made = run(
        results, "--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "8", "--gpus", "2",
        "--data", str(data), "--epochs", "2", "--lr-warmup-epochs", "1",
    )  # fmt: skip
    assert made.code == 0, made.err
    target, files = tmp_path / "it.pdparams", made.files
    code, out, err = told(capsys, "it", target, "--results", results)
    assert (code, err) == (0, "")
    epochs = read_table(files.table(EPOCHS.name), EPOCHS)
    top1, last = epochs["top1"].iloc[-1], epochs["epoch"].iloc[-1]
    record = read_record(files.record)
    steps, classes = record.plan.total_steps, record.plan.data.num_classes
    assert f", run it after epoch {last} (step {steps}), top-1 {top1:.4f} after epoch {last}\n" in out

    found = newest_checkpoint(files.checkpoints)
    assert found is not None
    arrays = read_checkpoint(files.checkpoints, found[0]).arrays
    evaluated, loaded = models.build("x0_25", classes), models.build("x0_25", classes)
    for name, values in evaluated.state_dict().items():
        own = f"rank1/statistics/{name}" if name.endswith(STATISTICS) else f"model/{name}"
        values.set_value(arrays[own])
    assert loaded.set_state_dict(paddle.load(str(target))) == ([], [])
    np.testing.assert_array_equal(logits(loaded), logits(evaluated))
