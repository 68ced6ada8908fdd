from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.record import RunRecord
from harness.artifacts.reference_table import (
    REFERENCE_FILE,
    ReferenceRow,
    append_reference_row,
    method_marks,
    read_reference,
    reference_row,
    reference_table_file,
    refused_top1,
)
from harness.plan.kinds import THROUGHPUT
from harness.plan.plan import IMAGENET, DataFacts, RunPlan
from tests.support.plans import a_published_plan, a_published_record, with_settings

IMAGENET_ON_CPU = a_published_plan(device="cpu", device_name="CPU", ranks=2, batch_size=1024)


def finished(plan: RunPlan, attempts: tuple[dict[str, Any], ...] = (), **summary: Any) -> RunRecord:
    """A finished run of the plan, with these figures."""
    return a_published_record(plan=plan, attempts=attempts, summary=summary)


def on_data(name: str) -> RunPlan:
    """The same on a data set that isn't ImageNet."""
    return dataclasses.replace(IMAGENET_ON_CPU, data=dataclasses.replace(IMAGENET, name=name, imagenet=False))


def on_gpus(name: str, count: int = 4) -> RunPlan:
    return dataclasses.replace(IMAGENET_ON_CPU, device="gpu", device_name=name, ranks=count)


def test_the_reference_is_the_published_row() -> None:
    assert REFERENCE_FILE.name == "bi_v100.csv"
    assert REFERENCE_FILE.read_bytes() == (
        b"Method,Crop Size,FPS (BI x 4),TOP1 Accuracy\nPPLCNet_x1_0,224x224,2537,0.7062\n"
    )
    assert read_reference() == ReferenceRow(
        ("Method", "Crop Size", "FPS (BI x 4)", "TOP1 Accuracy"), ("PPLCNet_x1_0", "224x224", "2537", "0.7062")
    )


def test_a_run_gets_a_row_under_the_header_of_the_reference(tmp_path: Path) -> None:
    record = finished(IMAGENET_ON_CPU, fps=85.26, top1=0.71318)
    append_reference_row(tmp_path, record)
    assert (tmp_path / "table-cpux2.csv").read_bytes() == (
        b"Method,Crop Size,FPS (CPU x 2),TOP1 Accuracy\nPPLCNet_x1_0,224x224,85.3,0.7132\n"
    )
    assert reference_row(record) == ReferenceRow(
        ("Method", "Crop Size", "FPS (CPU x 2)", "TOP1 Accuracy"), ("PPLCNet_x1_0", "224x224", "85.3", "0.7132")
    )


def test_marks_follow_the_method(tmp_path: Path) -> None:
    """Case A9: a run of one epoch with other regularisation isn't a plain PPLCNet_x1_0."""
    plan = with_settings(IMAGENET_ON_CPU, epochs=1, lr_warmup_epochs=1, label_smoothing=0.0, weight_decay=0.1)
    append_reference_row(tmp_path, finished(plan, top1=0.1))
    (row,) = (tmp_path / "table-cpux2.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert row.startswith('"PPLCNet_x1_0, 1 epoch, weight decay 0.1, label smoothing 0",224x224,')


def attempt(first_segment: int, ranks: int, epochs: int) -> dict[str, Any]:
    return {"first_segment": first_segment, "step": 0, "started_unix_seconds": 0.0, "ranks": ranks, "epochs": epochs}


@pytest.mark.parametrize(
    ("mean_bytes", "mark"),
    [
        (1024.0, "files of 1 KiB"),
        (99_000.0, "files of 96.7 KiB"),
        (512_000.0, "files of 500 KiB"),
        (114_700.0, ""),
        (134_000.0, ""),
    ],
)
def test_files_that_are_not_imagenet_s_as_published_mark_the_row(mean_bytes: float, mark: str) -> None:
    """A copy with smaller images has the same counts and names, and is read several times as fast."""
    record = finished(IMAGENET_ON_CPU, top1=0.7)
    profile = {**record.profile, "mean_bytes": mean_bytes}
    assert method_marks(dataclasses.replace(record, profile=profile)) == ((mark,) if mark else ())
    mine = dataclasses.replace(finished(on_data("mine"), top1=0.7), profile=profile)
    assert method_marks(mine) == ()


def test_what_changed_on_the_way_is_marked() -> None:
    """Case A9: 360 epochs of which the schedule knew 300 are another training; so are other devices."""
    attempts = (attempt(1, 4, 300), attempt(5, 4, 360), attempt(9, 8, 360), attempt(9, 4, 360))
    record = finished(IMAGENET_ON_CPU, attempts=attempts)
    assert method_marks(record) == ("300 then 360 epochs planned",)  # the third attempt came to no step
    record = finished(IMAGENET_ON_CPU, attempts=(attempt(1, 4, 360), attempt(3, 2, 360)))
    assert method_marks(record) == ("4 then 2 devices",)
    assert method_marks(finished(IMAGENET_ON_CPU, attempts=attempts[1:2])) == ()


@pytest.mark.parametrize(
    ("left_out", "marks"),
    [
        ({}, ()),
        ({"left_out_val_images": 1}, ("1 validation image left out",)),
        (
            {"left_out_train_images": 60, "left_out_val_images": 40},
            ("60 training images left out", "40 validation images left out"),
        ),
    ],
)
def test_images_left_out_within_the_limits_mark_the_row(
    tmp_path: Path, left_out: dict[str, Any], marks: tuple[str, ...]
) -> None:
    """Case A4."""
    record = finished(IMAGENET_ON_CPU, **left_out)
    assert (method_marks(record), refused_top1(record)) == (marks, "")
    append_reference_row(tmp_path, record)
    assert len((tmp_path / "table-cpux2.csv").read_text(encoding="utf-8").splitlines()) == 2


FEW = dataclasses.replace(IMAGENET, name="few", imagenet=False, train_images=64, val_images=50)


@pytest.mark.parametrize(
    ("data", "left_out", "why"),
    [
        (FEW, {"left_out_val_images": 45}, "45 of 50 validation images were left out, more than"),
        (FEW, {"left_out_train_images": 1}, "1 of 64 training images were left out, more than"),
        (
            IMAGENET,
            {"left_out_val_images": 60, "left_out_train_images": 41},
            "60 of 50,000 validation images and 41 of 1,281,167 training images were left out, more than"
            " 100 images or 1% of a split",
        ),
    ],
)
def test_a_top_1_of_too_few_images_is_in_no_table(
    tmp_path: Path, data: DataFacts, left_out: dict[str, Any], why: str
) -> None:
    """Case A4: whatever limits the run had, more than the defaults' isn't comparable."""
    plan = with_settings(IMAGENET_ON_CPU, data=data, max_bad_images=10_000, max_bad_share=1.0)
    record = finished(plan, **left_out)
    assert refused_top1(record).startswith(why)
    append_reference_row(tmp_path, record)
    assert list(tmp_path.iterdir()) == []
    # A throughput is of the images that were there: its row has the mark.
    throughput = finished(with_settings(plan, kind=THROUGHPUT), **left_out, top1=None)
    append_reference_row(tmp_path, throughput)
    (table,) = tmp_path.glob("table-*.csv")
    assert "left out" in table.read_text(encoding="utf-8")


def test_throughput_alone_leaves_top_1_empty(tmp_path: Path) -> None:
    plan = with_settings(on_data("photos"), model="x0_25", image_size=64)
    record = finished(plan, fps=1000.0, top1=None)
    append_reference_row(tmp_path, record)
    assert reference_row(record).cells == ("PPLCNet_x0_25", "64x64", "1000.0", "")
    assert (tmp_path / "table-cpux2-photos.csv").read_bytes() == (
        b"Method,Crop Size,FPS (CPU x 2),TOP1 Accuracy\nPPLCNet_x0_25,64x64,1000.0,\n"
    )


def test_a_second_run_gets_the_next_row(tmp_path: Path) -> None:
    append_reference_row(tmp_path, finished(IMAGENET_ON_CPU, fps=1.0, top1=0.5))
    append_reference_row(tmp_path, finished(IMAGENET_ON_CPU, fps=2.0, top1=None))
    assert (tmp_path / "table-cpux2.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        "PPLCNet_x1_0,224x224,1.0,0.5000",
        "PPLCNet_x1_0,224x224,2.0,",
    ]


@pytest.mark.parametrize(
    ("plan", "file"),
    [
        (IMAGENET_ON_CPU, "table-cpux2.csv"),
        (on_gpus("BI-V100"), "table-BI-V100x4.csv"),
        (on_gpus("NVIDIA H100 80GB HBM3", 8), "table-NVIDIA-H100-80GB-HBM3x8.csv"),
        (on_gpus("A/B [x]"), "table-A-B-xx4.csv"),
        (on_gpus(""), "table-unnamedx4.csv"),
        (on_data("digits"), "table-cpux2-digits.csv"),
        (on_data("ILSVRC2012"), "table-cpux2-ILSVRC2012.csv"),
    ],
)
def test_a_file_for_each_device_count_and_data_set_but_imagenet(plan: RunPlan, file: str) -> None:
    assert reference_table_file(plan) == file


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a/b", "a-b"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unnamed"),
        ("/", "unnamed"),
        ("=cmd|' /C calc'!A0", "cmd-C-calc-A0"),
        ("a\nb", "a-b"),
        ("a\0b", "a-b"),
        ("caf\udce9", "caf"),
        ("データ", "unnamed"),
        ("-rf", "rf"),
    ],
)
def test_no_name_of_a_data_set_leaves_the_folder(tmp_path: Path, name: str, plain: str) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    append_reference_row(folder, finished(on_data(name), fps=1.0, top1=0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    (file,) = folder.glob("*.csv")
    # a hash tells apart the names that look alike in plain letters
    assert re.fullmatch(rf"table-cpux2-{plain}-[0-9a-f]{{8}}\.csv", file.name)


def test_names_that_look_alike_get_files_of_their_own() -> None:
    assert len({reference_table_file(on_data(name)) for name in ("a b", "a/b", "a\nb", "a-b", "データ", "写真")}) == 6


def test_the_file_of_a_data_set_with_a_long_name_can_be_written(tmp_path: Path) -> None:
    """dataset.toml sets no limit to a name, most file systems one of 255 bytes; a run must not fail at its end."""
    append_reference_row(tmp_path, finished(on_data("x" * 300), fps=1.0, top1=0.5))
    (file,) = tmp_path.glob("table-*.csv")
    assert len(os.fsencode(file.name)) <= 255
    assert file.name.startswith("table-cpux2-xxx")


def test_the_same_row_stands_once_where_a_run_is_concluded_again(tmp_path: Path) -> None:
    """Two runs may well have the same figures; one run, concluded twice, is one row."""
    record = finished(on_data("x"), fps=1.0, top1=0.5)
    append_reference_row(tmp_path, record)
    append_reference_row(tmp_path, record)
    append_reference_row(tmp_path, record, once=True)
    (file,) = tmp_path.glob("table-*.csv")
    assert file.read_text(encoding="utf-8").count(",".join(reference_row(record).cells)) == 2
    append_reference_row(tmp_path, finished(on_data("x"), fps=2.0, top1=0.5), once=True)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1 + 3
