from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.reference_table import (
    REFERENCE_FILE,
    ReferenceRow,
    append_reference_row,
    method_marks,
    read_reference,
    reference_table_file,
)
from harness.plan.plan import IMAGENET, RunPlan
from tests.support.plans import a_plan, with_settings

IMAGENET_ON_CPU = a_plan(model="x1_0", data=IMAGENET, image_size=224)


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
    row = append_reference_row(tmp_path, IMAGENET_ON_CPU, {"fps": 85.26, "top1": 0.71318})
    assert (tmp_path / "table-cpux2.csv").read_bytes() == (
        b"Method,Crop Size,FPS (CPU x 2),TOP1 Accuracy\nPPLCNet_x1_0,224x224,85.3,0.7132\n"
    )
    assert row == ReferenceRow(
        ("Method", "Crop Size", "FPS (CPU x 2)", "TOP1 Accuracy"), ("PPLCNet_x1_0", "224x224", "85.3", "0.7132")
    )


@pytest.mark.parametrize(
    ("plan", "marks"),
    [
        ({}, ()),
        ({"layout": "nhwc", "to_static": True, "accumulation_steps": 2}, ()),
        ({"amp": "bf16", "amp_level": "O2"}, ("AMP bf16-O2",)),
        ({"preprocessing": "dali", "pretrained": "a.pdparams"}, ("dali preprocessing", "pretrained")),
        ({"bn_stats": "sync", "auto_augment": True}, ("AutoAugment", "synchronised batch norm")),
        ({"model": "x2_5", "auto_augment": True}, ()),
        ({"model": "x2_5"}, ("no AutoAugment",)),
    ],
)
def test_what_is_not_the_published_method_is_marked(
    plan: dict[str, Any], marks: tuple[str, ...], tmp_path: Path
) -> None:
    made = a_plan(**plan)
    assert method_marks(made) == marks
    row = append_reference_row(tmp_path, made, {"fps": 1.0, "top1": 0.5})
    assert row.cells[0] == ", ".join([f"PPLCNet_{made.model}", *marks])


def test_throughput_alone_leaves_top_1_empty(tmp_path: Path) -> None:
    plan = with_settings(on_data("photos"), model="x0_25", image_size=64)
    row = append_reference_row(tmp_path, plan, {"fps": 1000.0, "top1": None})
    assert row.cells == ("PPLCNet_x0_25", "64x64", "1000.0", "")
    assert (tmp_path / "table-cpux2-photos.csv").read_bytes() == (
        b"Method,Crop Size,FPS (CPU x 2),TOP1 Accuracy\nPPLCNet_x0_25,64x64,1000.0,\n"
    )


def test_a_second_run_gets_the_next_row(tmp_path: Path) -> None:
    append_reference_row(tmp_path, IMAGENET_ON_CPU, {"fps": 1.0, "top1": 0.5})
    append_reference_row(tmp_path, IMAGENET_ON_CPU, {"fps": 2.0, "top1": None})
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
    append_reference_row(folder, on_data(name), {"fps": 1.0, "top1": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    (file,) = folder.glob("*.csv")
    # a hash tells apart the names that look alike in plain letters
    assert re.fullmatch(rf"table-cpux2-{plain}-[0-9a-f]{{8}}\.csv", file.name)


def test_names_that_look_alike_get_files_of_their_own() -> None:
    assert len({reference_table_file(on_data(name)) for name in ("a b", "a/b", "a\nb", "a-b", "データ", "写真")}) == 6


def test_the_file_of_a_data_set_with_a_long_name_can_be_written(tmp_path: Path) -> None:
    """dataset.toml sets no limit to a name, most file systems one of 255 bytes; a run must not fail at its end."""
    append_reference_row(tmp_path, on_data("x" * 300), {"fps": 1.0, "top1": 0.5})
    (file,) = tmp_path.glob("table-*.csv")
    assert len(os.fsencode(file.name)) <= 255
    assert file.name.startswith("table-cpux2-xxx")


def test_the_same_row_stands_once_where_a_run_is_concluded_again(tmp_path: Path) -> None:
    """Two runs may well have the same figures; one run, concluded twice, is one row."""
    plan, row = on_data("x"), {"fps": 1.0, "top1": 0.5}
    append_reference_row(tmp_path, plan, row)
    append_reference_row(tmp_path, plan, row)
    first = append_reference_row(tmp_path, plan, row, once=True)
    (file,) = tmp_path.glob("table-*.csv")
    assert file.read_text(encoding="utf-8").count(",".join(first.cells)) == 2
    append_reference_row(tmp_path, plan, {"fps": 2.0, "top1": 0.5}, once=True)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1 + 3
