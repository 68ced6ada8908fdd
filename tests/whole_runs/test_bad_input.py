"""What a user gets wrong, through the command line: the exit code, what is wrong, and the cure, without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import harness.commands.one_run
from harness import ROOT
from harness.artifacts.record import RunFiles, read_record
from harness.cli import main
from tests.support.paddle_builds import install_build

ENTRY = ROOT / "run_bench.py"
CPU = ("--device", "cpu", "--gpus", "2")


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What isn't refused here fails at once instead of training; the GPUs of this machine, if any, are hidden."""

    def started(*_: object) -> None:
        pytest.fail("the run was not refused: its workers would start")

    monkeypatch.setattr(harness.commands.one_run, "run_workers", started)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)


def refused(err: str, *told: str) -> None:
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for text in told:
        assert text in err


def run_entry(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of run_bench.py in another process."""
    own = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, ENTRY, *arguments], env={**own, **environment}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def make_data(folder: Path, train: int = 100, val: int = 10) -> Path:
    """A listed data set of one class; its files are no images, which nothing looks at before the workers do."""
    for split, count in (("train", train), ("val", val)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        names = [f"{split}/{index:03d}.jpg" for index in range(count)]
        for name in names:
            (folder / name).write_bytes(b"1")
        if count:
            (folder / f"{split}_list.txt").write_text("".join(f"{name} 0\n" for name in names), encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


def test_an_unknown_model_is_told_all_eight() -> None:
    code, out, err = run_entry({}, "--model", "x3_0")
    assert (code, out) == (2, "")
    assert err == "error: unknown model 'x3_0'\n  Known: x0_25, x0_35, x0_5, x0_75, x1_0, x1_5, x2_0, x2_5.\n"


def test_more_gpus_than_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpus", "3"]) == 3
    refused(capsys.readouterr().err, "3 GPUs requested, 0 found", "--device cpu --gpus ")


def test_a_driver_that_is_not_loaded_is_the_reason(nvml_standin: dict[str, str]) -> None:
    code, _, err = run_entry({**nvml_standin, "FAKE_NVML_INIT_ERROR": "9"}, "--device", "gpu")
    assert code == 3
    refused(err, "1 GPU requested, 0 found (NVML: driver not loaded)", "--device cpu --gpus 1")


def test_gpus_are_no_use_to_the_cpu_build(nvml_standin: dict[str, str]) -> None:
    try:
        version("paddlepaddle-gpu")
    except PackageNotFoundError:
        pass
    else:
        pytest.skip("the GPU build is installed here")
    code, _, err = run_entry(nvml_standin, "--gpus", "4")
    assert code == 3
    refused(
        err,
        "4 GPUs found, but the installed paddlepaddle is the CPU build",
        "pip install paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/",
    )


def test_five_gpus_of_four(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    code, _, err = run_entry({**nvml_standin, **install_build(tmp_path / "site", alone=True)}, "--gpus", "5")
    assert code == 3
    refused(err, "5 GPUs requested, 4 found", "--device cpu --gpus ")


def test_a_build_of_paddle_that_has_no_kernels_for_the_gpus(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    build = install_build(tmp_path / "site", cuda="12.6", kernels=(61, 70, 75, 80, 90), alone=True)
    code, out, err = run_entry({**nvml_standin, **build, "FAKE_NVML_CAPABILITY": "1:100"}, "--device", "auto")
    assert (code, out) == (3, "")
    refused(err, "has no kernels for the compute capability 10.0 of GPU 1 (Stand-in 80GB)", "stable/cu129/")


def test_without_a_gpu_auto_falls_back_to_the_cpu_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("note: no GPU (")
    assert "training on the CPU" in " ".join(out.split())
    assert " x CPU, one rank per device" in out


def test_a_telemetry_library_that_is_not_there(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CPU, "--data", str(data), "--batch-size", "4", "--telemetry-library", "no/libixml.so"]) == 3
    refused(capsys.readouterr().err, "--telemetry-library can't be used: ", "/no/libixml.so: cannot open", "omit")
    assert not list(Path("results").glob("*.json"))


def test_a_telemetry_library_without_nvmls_calls(
    data: Path, library_without_nvml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = str(library_without_nvml)
    assert main([*CPU, "--data", str(data), "--batch-size", "4", "--telemetry-library", library]) == 3
    refused(capsys.readouterr().err, f"--telemetry-library can't be used: {library} has no function nvmlInit_v2")


def test_a_dry_run_needs_no_telemetry_library(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*CPU, "--data", str(data), "--batch-size", "4", "--telemetry-library", "no/libixml.so", "--dry-run"]
    assert main(command) == 0
    assert capsys.readouterr().err == ""


def test_no_such_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CPU, "--data", "nowhere"]) == 4
    refused(capsys.readouterr().err, "no such folder: 'nowhere'", "built-in set: digits, photos")


def test_a_file_is_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"1")
    assert main([*CPU, "--data", "photo.jpg"]) == 4
    refused(capsys.readouterr().err, "not a folder: 'photo.jpg'", "built-in set: digits, photos")


def test_a_path_longer_than_the_system_allows_is_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CPU, "--data", "x" * 300]) == 4
    refused(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("lines", "wrong", "cure"),
    [
        ("", "train_list.txt' is empty", "one line `path label` per image"),
        ("\n\n", "train_list.txt' is empty", "one line `path label` per image"),
        ("train/000.jpg 0\ntrain/001.jpg\n", "train_list.txt:2: 'train/001.jpg'", "End each line with a space and"),
        ("train/000.jpg 1000000\n", "train_list.txt:1: label 1000000 of 'train/000.jpg'", "Labels count from 0."),
        ("train/000.jpg -1\n", "label -1 of 'train/000.jpg'", "Labels count from 0."),
        ("../outside.jpg 0\n", "train_list.txt:1: '../outside.jpg'", "--image-root"),
    ],
)
def test_a_bad_list(data: Path, capsys: pytest.CaptureFixture[str], lines: str, wrong: str, cure: str) -> None:
    (data / "train_list.txt").write_text(lines, encoding="utf-8")
    assert main([*CPU, "--data", str(data)]) == 4
    refused(capsys.readouterr().err, wrong, cure)


def test_a_label_outside_the_classes_asked_for(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "val_list.txt").write_text("val/000.jpg 10\n", encoding="utf-8")
    assert main([*CPU, "--data", str(data), "--classes", "10"]) == 4
    refused(capsys.readouterr().err, "val_list.txt:1: label 10 of 'val/000.jpg'", "--classes 11")


def make_bad_data(folder: Path, split: str) -> Path:
    """100 training and 20 validation images, of which the first three of a split are missing and nine more empty."""
    data = make_data(folder, val=20)
    for index in range(3):
        (data / split / f"{index:03d}.jpg").unlink()
    for index in range(3, 12):
        (data / split / f"{index:03d}.jpg").write_bytes(b"")
    return data


@pytest.mark.parametrize("limit", [("--bad-images", "fail"), ("--max-bad-images", "11"), ("--max-bad-share", "0.1")])
@pytest.mark.parametrize("split", ["train", "val"])
def test_unusable_files_are_counted_and_ten_named_and_nothing_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, limit: tuple[str, str]
) -> None:
    data = make_bad_data(tmp_path / "data", split)
    assert main([*CPU, "--data", str(data), "--batch-size", "4", "--results", "out", *limit]) == 4
    err = capsys.readouterr().err
    counted = "12 of 100 training" if split == "train" else "12 of 20 validation"
    refused(err, f"{counted} images can't be used", "and 2 more", "Restore these files")
    assert [line.strip() for line in err.splitlines() if f"'{split}/" in line] == [
        f"'{split}/000.jpg': no such file or directory",
        f"'{split}/001.jpg': no such file or directory",
        f"'{split}/002.jpg': no such file or directory",
        *(f"'{split}/{index:03d}.jpg': 0 bytes" for index in range(3, 10)),
    ]
    assert not list((tmp_path / "out").glob("**/*"))


@pytest.mark.parametrize("more", [(), ("--max-bad-images", "11"), ("--bad-images", "fail")])
@pytest.mark.parametrize("split", ["train", "val"])
def test_unusable_files_that_a_run_bears_are_left_out_and_recorded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    split: str,
    more: tuple[str, ...],
) -> None:
    """Case A4: what the refusal's cure names is enough, and the run then says what it leaves out."""
    data = make_bad_data(tmp_path / "data", split)
    started: list[RunFiles] = []
    monkeypatch.setattr(harness.commands.one_run, "run_workers", lambda files, *_, **__: started.append(files))
    command = [*CPU, "--data", str(data), "--batch-size", "4", "--results", "out", *more]
    assert main(command) == 4
    cure = capsys.readouterr().err.partition("leave them out with ")[2].partition(". ")[0]
    assert "--max-bad-share" in cure
    assert started == []
    # Nobody measures anything, so there is nothing to conclude from.
    assert main([*command, *cure.split()]) != 0
    (files,) = started
    counted = "12 of 100 training" if split == "train" else "12 of 20 validation"
    assert f"left out: {counted} images; see {files.run}.bad_images.csv" in " ".join(capsys.readouterr().out.split())
    # The ranks read them here, and rank 0 gives each a row.
    bad = read_record(files.record).bad_images
    assert [(image["split"], image["index"]) for image in bad] == [(split, index) for index in range(12)]
    assert [image["path"] for image in bad] == [f"{split}/{index:03d}.jpg" for index in range(12)]
    assert [image["reason"] for image in bad] == ["no such file or directory"] * 3 + ["0 bytes"] * 9
    assert all((image["label"], image["rank"], image["epoch"]) == (0, None, None) for image in bad)


def test_throughput_alone_asks_nothing_of_validation_images(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first refusal is the training images': the missing val image before it is none of this run's business."""
    (data / "val" / "000.jpg").unlink()
    (data / "train" / "007.jpg").unlink()
    assert main([*CPU, "--data", str(data), "--throughput-only", "--results", "out", "--bad-images", "fail"]) == 4
    refused(capsys.readouterr().err, "error: 1 of 100 training images can't be used", "'train/007.jpg'")


def test_a_batch_larger_than_the_share_of_a_rank(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CPU, "--data", str(data), "--batch-size", "51"]) == 2
    refused(capsys.readouterr().err, "a batch of 51 images", "2 ranks leave at most 50 each", "--batch-size 50 or less")


def test_a_warm_up_longer_than_the_run(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CPU, "--data", str(data), "--batch-size", "10", "--epochs", "2", "--warmup", "10"]) == 2
    refused(capsys.readouterr().err, "--warmup 10", "10 steps (2 epochs of 5)", "--warmup 9 or less")


def test_a_learning_rate_that_rises_for_longer_than_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CPU, "--epochs", "3", "--lr-warmup-epochs", "4"]) == 2
    refused(capsys.readouterr().err, "--lr-warmup-epochs 4", "3 epochs", "--epochs")


def test_a_crop_range_that_contradicts_that_of_the_data_set(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "dataset.toml").write_text("[augmentation]\ncrop_area_max = 0.5\n", encoding="utf-8")
    assert main([*CPU, "--data", str(data), "--crop-area-min", "0.9", "--dry-run"]) == 2
    refused(capsys.readouterr().err, "0.9", "0.5")


def test_no_validation_images_for_a_run_of_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "data", val=0)
    assert main([*CPU, "--data", str(data)]) == 4
    refused(capsys.readouterr().err, "data' has no validation images", "val_list.txt", "--throughput-only")


@pytest.mark.parametrize("results", ["file", "file/below"])
def test_a_results_folder_that_cannot_be_written(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], results: str
) -> None:
    (tmp_path / "file").write_bytes(b"1")
    assert main([*CPU, "--data", str(data), "--results", results]) == 3
    refused(capsys.readouterr().err, f"can't write {results}: ", "--results")
    assert (tmp_path / "file").read_bytes() == b"1"


def test_a_bad_key_in_the_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text("batchsize = 3\n", encoding="utf-8")
    assert main(["--config", "run.toml"]) == 2
    refused(capsys.readouterr().err, "run.toml: unknown key 'batchsize'", "Did you mean 'batch_size'?")


def test_a_run_name_that_is_taken(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "first.json").write_text("{}", encoding="utf-8")
    assert main([*CPU, "--data", str(data), "--results", "out", "--run-name", "first"]) == 2
    refused(capsys.readouterr().err, "out/first.json exists already", "--run-name")
    assert (tmp_path / "out" / "first.json").read_text(encoding="utf-8") == "{}"


def test_a_run_name_whose_tables_are_left_is_taken_too(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of two runs in one steps table would make a throughput of neither."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "first.steps.csv").write_text("phase,epoch\n", encoding="utf-8")
    (data / "train" / "000.jpg").unlink()  # so that the run ends even if the name is taken for free
    assert main([*CPU, "--data", str(data), "--results", "out", "--run-name", "first"]) == 2
    refused(capsys.readouterr().err, "first.steps.csv exists already", "--run-name")
