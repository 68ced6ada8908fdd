from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from harness.config import RunConfig
from harness.plan import IMAGENET, DataFacts, RunPlan
from harness.record import RunFiles, RunRecord
from harness.report.console import Console, differences, plan_facts, summary_facts
from harness.tables.mirror import MirrorRow
from pipelines.augmentation import Augmentation

PLAN = RunPlan(
    model="x0_25",
    device="cpu",
    device_name="CPU",
    ranks=2,
    data=DataFacts("digits", "digits", 1347, 450, 10, Augmentation(0.5, 1.0, 0.9, 1.1, 0.0), False, True),
    image_size=64,
    batch_size=32,
    steps_per_epoch=22,
    epochs=20,
    total_steps=440,
    learning_rate=0.025,
    warmup_epochs=5,
    weight_decay=3e-5,
    warmup_steps=3,
    compute_threads=1,
    decode_threads=2,
)
SUMMARY = {
    "fps": 85.26,
    "fps_per_device": 42.63,
    "images": 27_936,
    "window_seconds": 327.66,
    "window_steps": 437,
    "warmup_steps": 3,
    "step_seconds_p50": 0.7421,
    "step_seconds_p95": 0.9013,
    "data_wait_share": 0.0312,
    "device_name": "Xeon 6148",
    "gpu_util_percent": None,
    "cpu_util_percent": 93.7,
    "top1": 0.95333,
    "top5": 0.99778,
    "epochs": 20,
}
RECORD = RunRecord(
    run="20261124-153012-x0_25-cpu2",
    status="finished",
    config=RunConfig(),
    plan=PLAN,
    environment={},
    profile={"images": 1347, "mean_bytes": 1536.0, "bits_per_pixel": 3.456},
    summary=SUMMARY,
)
MIRROR = MirrorRow(
    ("Method", "Crop Size", "FPS (CPU x 2)", "TOP1 Accuracy"), ("PPLCNet_x0_25", "64x64", "85.3", "0.9533")
)
REFERENCE = "PPLCNet_x1_0 224x224 2537 BI x 4 0.7062"


def without_top1(record: RunRecord) -> RunRecord:
    return dataclasses.replace(record, summary={**record.summary, "top1": None, "top5": None, "epochs": 0})


def shown(console: Console) -> list[str]:
    """The lines printed so far, blanks folded."""
    assert isinstance(console.rich.file, io.StringIO)
    return [" ".join(line.split()) for line in console.rich.file.getvalue().splitlines()]


@pytest.fixture
def console() -> Console:
    return Console(RichConsole(file=io.StringIO(), width=100, highlight=False))


def test_a_run_ends_with_its_row_beside_the_reference_under_one_header(console: Console) -> None:
    console.conclusion(RECORD, RunFiles(Path("results"), RECORD.run), MIRROR)
    lines = shown(console)
    at = lines.index("Method Crop Size FPS (all devices) devices TOP1 Accuracy")
    assert lines[at - 1] == "beside the reference (DeepSparkHub, BI-V100)" or not lines[at - 1]
    assert lines[at + 2 : at + 4] == [REFERENCE, "PPLCNet_x0_25 64x64 85.3 CPU x 2 0.9533"]
    below = lines[at + 4 :]
    said = [line for line in below if line]
    assert said == [
        "data: ImageNet (ILSVRC2012) there, digits here (a built-in set, not ImageNet)",
        "devices: 4 x BI-V100 there, 2 CPU ranks on Xeon 6148 here",
        "model: PPLCNet_x1_0 there, PPLCNet_x0_25 here",
        "crop: 224x224 there, 64x64 here",
        "images a step: 2048 there, 64 here",
        "epochs: 360 there, 20 here",
        "Written to results/: 20261124-153012-x0_25-cpu2.*, summary.csv, table-cpux2-digits.csv",
    ]


def test_a_run_without_top_1_says_so(console: Console) -> None:
    record = without_top1(RECORD)
    mirror = dataclasses.replace(MIRROR, cells=(*MIRROR.cells[:3], ""))
    console.conclusion(record, RunFiles(Path("results"), record.run), mirror)
    lines = shown(console)
    assert "top-1 not measured" in lines
    assert "top-5 not measured" in lines
    assert "PPLCNet_x0_25 64x64 85.3 CPU x 2 -" in lines
    assert "top-1: after 360 epochs there, not measured here" in lines
    assert not [line for line in lines if line.startswith("epochs:")]


def test_a_run_s_figures_have_their_scope() -> None:
    assert dict(summary_facts(RECORD)) == {
        "throughput": "85.3 images/s on 2 x CPU together",
        "per device": "42.6 images/s",
        "window": "437 steps, 27,936 images, 327.7 s, after 3 warm-up steps",
        "step": "median 0.7421 s, 95th percentile 0.9013 s",
        "waiting for data": "3.1% of the window, longest wait of each step",
        "GPU utilisation": "unknown",
        "CPU utilisation": "94 %, whole host",
        "top-1": "0.9533 after 20 epochs",
        "top-5": "0.9978 after 20 epochs",
        "data": "digits: 1,347 files of 1.5 KiB, 3.46 bits per pixel",
    }


def test_what_is_not_known_is_not_made_up() -> None:
    record = dataclasses.replace(
        RECORD,
        profile={**RECORD.profile, "bits_per_pixel": None},
        summary={**SUMMARY, "step_seconds_p95": None, "cpu_util_percent": None, "gpu_util_percent": 97.6},
    )
    facts = dict(summary_facts(record))
    assert facts["step"] == "median 0.7421 s"
    assert facts["CPU utilisation"].startswith("unknown")
    assert facts["GPU utilisation"] == "98 %"
    assert facts["data"] == "digits: 1,347 files of 1.5 KiB"


def test_a_run_like_the_reference_differs_in_its_devices_alone() -> None:
    plan = dataclasses.replace(
        PLAN,
        model="x1_0",
        device="gpu",
        device_name="H100",
        ranks=4,
        data=IMAGENET,
        image_size=224,
        batch_size=512,
        epochs=360,
    )
    record = dataclasses.replace(RECORD, plan=plan)
    assert differences(record) == ["devices: 4 x BI-V100 there, 4 x H100 here"]
    other_data = dataclasses.replace(IMAGENET, name="mine", imagenet=False)
    record = dataclasses.replace(RECORD, plan=dataclasses.replace(plan, data=other_data))
    assert differences(record)[0] == "data: ImageNet (ILSVRC2012) there, mine here (not ImageNet)"


def test_a_plan_is_told_in_full() -> None:
    assert dict(plan_facts(PLAN)) == {
        "model": "PPLCNet_x0_25, 10 classes",
        "devices": "2 x CPU, one rank on each",
        "data": "digits: 1,347 training and 450 validation images",
        "crops": "64x64, area 0.5 to 1, flipped with probability 0",
        "batch": "32 images per device, 64 images a step",
        "length": "20 epochs, 440 steps; 22 steps an epoch",
        "learning rate": "0.025 after 5 epochs of linear warm-up, then a cosine to 0",
        "weight decay": "3e-05, none on batch norm",
        "measured": "after 3 warm-up steps",
        "threads per rank": "1 training, 2 DALI",
    }
    endless = dict(plan_facts(dataclasses.replace(PLAN, total_steps=None)))
    assert endless["length"] == "until the measured window ends; 22 steps an epoch"


def test_a_plan_is_printed_under_its_remark(console: Console) -> None:
    console.plan(PLAN, "counted in digits")
    lines = shown(console)
    assert lines[0] == "plan (counted in digits)"
    assert "batch 32 images per device, 64 images a step" in lines


def test_warnings_come_before_the_figures(console: Console) -> None:
    console.conclusion(RECORD.warned("first").warned("second"), RunFiles(Path("results"), RECORD.run), MIRROR)
    assert shown(console)[:3] == ["note: first", "note: second", f"run {RECORD.run}"]


@pytest.mark.parametrize("name", ["[red]set[/red]", "[/b]", "[link=file:///etc]x", ":smile:", "\\[b]"])
def test_names_are_never_read_as_markup(console: Console, name: str) -> None:
    plan = dataclasses.replace(PLAN, data=dataclasses.replace(PLAN.data, name=name), device_name=name)
    record = dataclasses.replace(RECORD, run=name, plan=plan, summary={**SUMMARY, "device_name": name})
    console.notice(f"{name} is small")
    console.plan(plan, f"counted in {name}")
    console.conclusion(record, RunFiles(Path(name), name), MIRROR)
    lines = shown(console)
    assert lines[:2] == [f"note: {name} is small", f"plan (counted in {name})"]
    assert f"data {name}: 1,347 training and 450 validation images" in lines
    assert f"run {name}" in lines
    assert f"devices: 4 x BI-V100 there, 2 CPU ranks on {name} here" in lines
    assert f"data: ImageNet (ILSVRC2012) there, {name} here (a built-in set, not ImageNet)" in lines


def test_the_name_of_a_device_beside_the_reference_is_never_read_as_markup(console: Console) -> None:
    header = ("Method", "Crop Size", "FPS (Card [pcie] x 4)", "TOP1 Accuracy")
    console.conclusion(RECORD, RunFiles(Path("results"), RECORD.run), dataclasses.replace(MIRROR, header=header))
    assert "PPLCNet_x0_25 64x64 85.3 Card [pcie] x 4 0.9533" in shown(console)


def test_a_name_that_is_not_utf_8_can_be_printed() -> None:
    """A folder may be called anything, and most terminals take UTF-8 and nothing else."""
    printed = io.BytesIO()
    console = Console(RichConsole(file=io.TextIOWrapper(printed, encoding="utf-8"), width=100, highlight=False))
    data = dataclasses.replace(PLAN.data, name="caf\udce9")
    console.plan(dataclasses.replace(PLAN, data=data), "counted in caf\udce9")
    console.notice("caf\udce9 is small")
    console.rich.file.flush()
    assert b"1,347 training" in printed.getvalue()


def test_nothing_is_coloured_where_there_is_no_terminal(console: Console) -> None:
    console.conclusion(RECORD, RunFiles(Path("results"), RECORD.run), MIRROR)
    assert not [line for line in shown(console) if "\x1b" in line]
