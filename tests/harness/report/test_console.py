from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from harness.analysis.gains import Gain
from harness.artifacts.record import RunFiles, RunRecord
from harness.artifacts.schema import EPOCHS, TRAIN
from harness.artifacts.tables import TableWriter
from harness.plan.kinds import EVALUATION, THROUGHPUT
from harness.plan.left_out import LeftOut
from harness.plan.plan import IMAGENET, DataFacts
from harness.report.console import Console, evaluation_facts, plan_facts, summary_facts
from harness.report.findings import ledger_text, verdict_facts
from tests.support.plans import a_plan, a_record, a_throughput_record, a_verdict, figures, plain

PLAN = a_plan()
RECORD = a_record()
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
    console.conclusion(RECORD, RunFiles(Path("results"), RECORD.run))
    lines = shown(console)
    at = lines.index("Method Crop Size FPS (all devices) devices TOP1 Accuracy")
    assert lines[at - 2 : at] == ["compared with the reference (DeepSparkHub, BI-V100)", ""]
    assert lines[at + 2] == REFERENCE
    text = " ".join(line for line in lines[at + 3 :] if line)
    assert " 64x64 85.3 CPU x 2 0.9533 " in text
    for mark in ("20 epochs", "10 classes", "flip probability 0"):
        assert mark in text.partition("May top-1")[0]
    assert text.partition(" May top-1")[2] == (
        " 0.9533 stand beside the reference's 0.7062? NO:"
        " data: reference ImageNet (ILSVRC2012), this run digits (built-in, not ImageNet)"
        " model: reference PPLCNet_x1_0, this run PPLCNet_x0_25"
        " crop: reference 224x224, this run 64x64"
        " method: reference as published, this run 20 epochs, 64 images per step, 10 classes, crops of 0.5 to 1 of the"
        " area and aspect 0.9 to 1.1, flip probability 0"
        " Throughput: reference on 4 x BI-V100, this run on 2 CPU ranks on Xeon 6148."
        " Written to results/: 20261124-153012-x0_25-cpu2.*, summary.csv, table-cpux2-digits.csv"
    )


def test_a_run_without_top_1_says_so(console: Console) -> None:
    record = without_top1(RECORD)
    console.conclusion(record, RunFiles(Path("results"), record.run))
    lines = shown(console)
    assert "top-1 not measured" in lines
    assert "top-5 not measured" in lines
    assert any(line.endswith("64x64 85.3 CPU x 2 -") for line in lines)
    assert any(line.startswith("The run has no top-1 to stand beside the reference's 0.7062.") for line in lines)


def test_images_left_out_are_beside_the_top_1(console: Console) -> None:
    """Case A4: how many images an accuracy is of, how many it lacks, and that no table has it."""
    record = with_summary(val_images=405, left_out_val_images=45, left_out_train_images=2)
    facts = dict(summary_facts(record))
    assert facts["top-1"] == "0.9533 of 405 images (45 left out), after 20 epochs"
    assert facts["left out"] == "45 of 450 validation images, 2 of 1,347 training images"
    console.conclusion(record, RunFiles(Path("results"), RECORD.run))
    text = " ".join(" ".join(shown(console)).split())
    assert (
        "not written to table-cpux2-digits.csv: 45 of 450 validation images and 2 of 1,347 training images were left"
        " out, more than 100 images or 1% of a split"
    ) in text
    assert text.endswith("Written to results/: 20261124-153012-x0_25-cpu2.*, summary.csv")


def test_images_left_out_from_the_start_are_reported(console: Console) -> None:
    """Case A4."""
    files = RunFiles(Path("results"), "it")
    console.left_out(LeftOut({}, {"val": 50, "train": 64}), files)
    assert shown(console) == []
    console.left_out(LeftOut({"val": 45, "train": 3}, {"val": 50, "train": 64}), files)
    assert shown(console) == [
        "note: left out: 45 of 50 validation images, 3 of 64 training images; see it.bad_images.csv"
    ]


@pytest.mark.parametrize(
    ("data", "left_out", "told"),
    [
        (PLAN.data, 45, "not comparable: this run evaluated on digits"),
        (IMAGENET, 501, "not comparable: 501 of 50,000 validation images were left out, more than"),
        (IMAGENET, 3, "this run: 64x64, 3 validation images left out"),
    ],
)
def test_an_evaluation_says_of_how_many_images_it_is(tmp_path: Path, data: DataFacts, left_out: int, told: str) -> None:
    """Case A4: the published accuracy is of all images."""
    record = with_summary(val_images=405, left_out_val_images=left_out, left_out_train_images=None)
    record = dataclasses.replace(record, plan=a_plan(kind=EVALUATION, data=data))
    files = RunFiles(tmp_path, record.run)
    with TableWriter(files.table(EPOCHS.name), EPOCHS) as epochs:
        epochs.write(
            {"epoch": 0, "top1": 0.4, "top5": 0.8, "val_loss": 1.0, "val_images": 405, "evaluation_seconds": 1.0}
        )
    facts = dict(evaluation_facts(record, files))
    assert facts["top-1"] == f"0.4000 of 405 images ({left_out} left out)"
    assert told in facts["published"]


def test_a_run_s_figures_have_their_scope() -> None:
    assert dict(summary_facts(RECORD)) == {
        "throughput": "85.3 images/s (84.1 to 86.4) in total on 2 x CPU",
        "per device": "42.6 images/s",
        "window": "437 steps, 27,968 images, 328.0 s, after 3 warm-up steps; ended with the last epoch",
        "steady state": "yes; warm-up found in the step times; drift -1.2%",
        "step": "median 0.7421 s, p95 0.9013 s, p99 1.0042 s",
        "time": (
            "waiting for data 2.6%, forward 22.5%, backward 45.0%, optimizer 11.0%, evaluation 17.5%, recording 0.3%,"
            " between steps 1.0%, unaccounted 0.1%"
        ),
        "outliers": "4 steps, 1.0% of the window: 3 x data wait, 1 x unknown",
        "disturbed": "no",
        "CPU utilisation": "94 %, whole host",
        "top-1": "0.9533 of 450 images, after 20 epochs",
        "top-5": "0.9978 of 450 images, after 20 epochs",
        "data": "digits: 1,347 files of 110.6 KiB, 3.46 bits per pixel",
    }


def with_summary(**changes: object) -> RunRecord:
    return a_record(summary={**RECORD.summary, **changes})


def test_what_is_not_known_is_not_made_up() -> None:
    facts = dict(
        summary_facts(
            dataclasses.replace(
                with_summary(step_seconds_p95=None, step_seconds_p99=None, cpu_util_percent=None),
                profile={**RECORD.profile, "bits_per_pixel": None},
                phases={TRAIN: plain(figures(fps_low=None, fps_high=None))},
                steady={"warmup_steps": 3, "steady": None, "drift": None, "reason": "warm-up given by --warmup"},
                interference={"reasons": None, "interference_steps": 0, "window_steps": 437, "shares": {}},
                outliers={**RECORD.outliers, "count": 0},
            )
        )
    )
    assert facts["throughput"] == "85.3 images/s (no interval) in total on 2 x CPU"
    assert facts["step"] == "median 0.7421 s"
    assert facts["steady state"] == "can't tell; warm-up given by --warmup"
    assert facts["outliers"] == "none"
    assert facts["disturbed"] == "unknown"
    assert facts["CPU utilisation"].startswith("unknown")
    assert facts["data"] == "digits: 1,347 files of 110.6 KiB"
    # A CPU run has no GPU whose utilisation could be unknown.
    assert "GPU utilisation" not in facts
    assert "accelerator" not in facts


@pytest.mark.parametrize(("amp", "peak"), [("off", "FP32"), ("bf16-O1", "BF16"), ("fp16-O2", "FP16")])
def test_the_peak_is_named_by_its_precision(amp: str, peak: str) -> None:
    """Case E4: the peak that the figure is divided by is that of the run's precision."""
    record = dataclasses.replace(with_summary(model_flops_util=0.1, amp=amp), plan=a_plan(device="gpu"))
    assert f"10.0% of its {peak} peak" in dict(summary_facts(record))["accelerator"]


def test_what_only_gpus_have_is_told_of_gpus() -> None:
    gpus = dataclasses.replace(
        with_summary(gpu_util_percent=97.6, model_flops_util=0.1234, images_per_joule=3.456, accelerator_util=0.987),
        plan=a_plan(device="gpu", device_name="H100"),
    )
    facts = dict(summary_facts(gpus))
    assert facts["GPU utilisation"] == "98 %"
    assert facts["accelerator"] == (
        "utilisation 98.7% (as in MLPerf Storage: end to end / compute only), 12.3% of its FP32 peak,"
        " 3.46 images per joule"
    )
    unknown = dataclasses.replace(with_summary(gpu_util_percent=None), plan=gpus.plan)
    assert dict(summary_facts(unknown))["GPU utilisation"] == "unknown"


@pytest.mark.parametrize(
    ("count", "told"),
    [(None, None), (0, None), (7, "7 steps overflowed, which skips the weight update and takes less time")],
)
def test_steps_that_overflowed_are_told(count: int | None, told: str | None) -> None:
    assert dict(summary_facts(with_summary(overflow_steps=count))).get("overflow") == told


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("target_ci", "ended when --target-ci was reached"),
        ("max_seconds", "ended by --max-seconds"),
        ("epochs", "ended with the last epoch"),
    ],
)
def test_what_ended_the_window_is_told(end: str, told: str) -> None:
    assert dict(summary_facts(with_summary(window_end=end)))["window"].endswith(f" warm-up steps; {told}")


def test_no_steady_state_and_what_disturbed_a_run_are_told_loudly() -> None:
    record = a_record(
        steady={"warmup_steps": 3, "steady": False, "drift": 0.123, "reason": "warm-up found in the step times"},
        interference={
            "reasons": ["foreign_cpu"], "interference_steps": 250, "window_steps": 437,
            "shares": {"foreign_cpu": 0.571, "swap": 0.01},
        },
    )  # fmt: skip
    facts = dict(summary_facts(record))
    assert facts["steady state"] == "NO STEADY STATE; warm-up found in the step times; drift +12.3%"
    assert facts["disturbed"] == "YES: foreign_cpu 57% of the time; 250 of 437 steps"


def test_a_bucket_too_small_to_show_is_left_out_but_what_is_unaccounted_never_is() -> None:
    ledger = {**RECORD.ledger, "recording_seconds": 0.19, "rest_seconds": 0.0}
    assert ledger_text(ledger).endswith("evaluation 17.5%, between steps 1.0%, unaccounted 0.0%")
    assert "recording 0.1%" in ledger_text({**ledger, "recording_seconds": 0.21})


def test_a_verdict_in_words() -> None:
    assert verdict_facts(a_throughput_record()) == [
        ("if data cost nothing", "up to 1.17 x (1.15 to 1.20)"),
        ("if training cost nothing", "up to 1.24 x (1.22 to 1.27)"),
        ("if communication cost nothing", "up to 1.08 x (0.99 to 1.19)"),
        ("bottleneck", "shared (compute and pipeline)"),
        ("evidence", "Steps wait for data 3.1% of the time."),
        ("try", "Decoding leaves cores idle. Raise --decode-threads (this run: 1 per rank, 4 cores)."),
    ]


def test_an_uncertain_verdict_says_why() -> None:
    unsure = a_verdict(bottleneck="compute", certain=False, communication_gain=None, evidence=(), remedies=())
    assert verdict_facts(a_throughput_record(verdict=plain(unsure))) == [
        ("if data cost nothing", "up to 1.17 x (1.15 to 1.20)"),
        ("if training cost nothing", "up to 1.24 x (1.22 to 1.27)"),
        ("bottleneck", "compute (uncertain: the confidence intervals overlap the threshold)"),
    ]
    unknown = dataclasses.replace(unsure, training_gain=Gain(38.251, None, None))
    assert verdict_facts(a_throughput_record(verdict=plain(unknown)))[1:] == [
        ("if training cost nothing", "up to 38.3 x (no interval)"),
        ("bottleneck", "compute (uncertain: too few steps for confidence intervals)"),
    ]


def test_a_throughput_run_ends_with_its_phases_and_its_verdict(console: Console) -> None:
    console.conclusion(a_throughput_record(), RunFiles(Path("results"), RECORD.run))
    lines = shown(console)
    at = lines.index("phase images/s 95 % interval steps seconds")
    assert lines[at + 2 : at + 6] == [
        "pipeline only 106.0 - 100 60.4",
        "compute only 100.0 - 100 64.0",
        "compute, no exchange 110.0 - 100 58.2",
        "end to end 85.3 84.1 to 86.4 437 328.0",
    ]
    verdict = lines[lines.index("verdict") :]
    assert verdict[2] == "if data cost nothing up to 1.17 x (1.15 to 1.20)"
    assert verdict[5] == "bottleneck shared (compute and pipeline)"


def test_a_run_of_epochs_has_neither(console: Console) -> None:
    console.conclusion(RECORD, RunFiles(Path("results"), RECORD.run))
    assert not [line for line in shown(console) if line.startswith(("bottleneck", "phase", "end to end"))]


def test_a_plan_is_told_in_full() -> None:
    assert dict(plan_facts(PLAN)) == {
        "model": "PPLCNet_x0_25, 10 classes",
        "devices": "2 x CPU, one rank per device",
        "data": "digits: 1,347 training and 450 validation images",
        "classes": "10",
        "crops": "64x64, area 0.5 to 1, flipped with probability 0",
        "decoding": "on the CPU, the needed region of each image",
        "batch": "32 images per device, 64 images per step",
        "length": "20 epochs, 440 steps; 22 steps per epoch",
        "learning rate": "0.025 after 5 epochs of linear warm-up, then cosine decay to 0",
        "weight decay": "3e-05, none on batch norm",
        "precision": "float32",
        "warm-up": "at least 3 steps; its end is found in the step times",
        "loader": "DALI with 2 threads, resized by DALI's operators",
        "threads per rank": "1 for training",
    }
    several = dict(plan_facts(a_plan(accumulation_steps=3, amp="bf16", auto_augment=True)))
    assert several["batch"] == "32 images per device, 3 batches per step, 192 images per step"
    assert several["precision"] == "mixed, bf16-O1"
    assert several["crops"] == "64x64, area 0.5 to 1, flipped with probability 0, AutoAugment"
    whole = dict(plan_facts(a_plan(image_size="80x160", preprocessing="whole", strides="height")))
    assert whole["crops"] == "80x160, of whole images, flipped with probability 0"
    assert whole["model"] == "PPLCNet_x0_25, 10 classes, whose stages halve the height alone"
    alone = dict(plan_facts(a_plan(kind=EVALUATION)))
    assert alone["length"] == "one evaluation, 64x64"
    assert {"crops", "learning rate", "weight decay", "warm-up"}.isdisjoint(alone)
    endless = dict(plan_facts(a_plan(kind=THROUGHPUT)))
    assert endless["length"] == (
        "until --target-ci is reached or --max-seconds have passed; a pass over the images takes 21.0 steps"
    )


def test_a_plan_is_printed_under_its_remark(console: Console) -> None:
    console.plan(PLAN, "counted in digits")
    lines = shown(console)
    assert lines[0] == "plan (counted in digits)"
    assert "batch 32 images per device, 64 images per step" in lines


def test_warnings_stand_below_the_row_though_they_were_printed_before(console: Console) -> None:
    console.notice("first")
    console.conclusion(RECORD.warned("first").warned("second"), RunFiles(Path("results"), RECORD.run))
    assert [line for line in shown(console) if line.startswith("note:")] == [
        "note: first",
        "note: first",
        "note: second",
    ]


@pytest.mark.parametrize("name", ["[red]set[/red]", "[/b]", "[link=file:///etc]x", ":smile:", "\\[b]"])
def test_names_are_never_read_as_markup(console: Console, name: str) -> None:
    plan = a_plan(data=dataclasses.replace(PLAN.data, name=name), device_name=name)
    record = dataclasses.replace(RECORD, run=name, plan=plan, summary={**RECORD.summary, "device_name": name})
    console.notice(f"{name} is small")
    console.plan(plan, f"counted in {name}")
    console.conclusion(record, RunFiles(Path(name), name))
    lines = shown(console)
    assert lines[:2] == [f"note: {name} is small", f"plan (counted in {name})"]
    assert f"data {name}: 1,347 training and 450 validation images" in lines
    assert f"run {name}" in lines
    assert f"Throughput: reference on 4 x BI-V100, this run on 2 CPU ranks on {name}." in lines
    assert f"data: reference ImageNet (ILSVRC2012), this run {name} (built-in, not ImageNet)" in lines


def test_the_name_of_a_device_beside_the_reference_is_never_read_as_markup(console: Console) -> None:
    record = dataclasses.replace(RECORD, plan=a_plan(device="gpu", device_name="Card [pcie]", ranks=4))
    console.conclusion(record, RunFiles(Path("results"), RECORD.run))
    assert any("Card [pcie] x 4 0.9533" in line for line in shown(console))


def test_a_name_that_is_not_utf_8_can_be_printed() -> None:
    """A folder may be called anything, and most terminals take UTF-8 and nothing else."""
    printed = io.BytesIO()
    console = Console(RichConsole(file=io.TextIOWrapper(printed, encoding="utf-8"), width=100, highlight=False))
    data = dataclasses.replace(PLAN.data, name="caf\udce9")
    console.plan(a_plan(data=data), "counted in caf\udce9")
    console.notice("caf\udce9 is small")
    console.rich.file.flush()
    assert b"1,347 training" in printed.getvalue()


def test_nothing_is_coloured_where_there_is_no_terminal(console: Console) -> None:
    console.conclusion(RECORD, RunFiles(Path("results"), RECORD.run))
    assert not [line for line in shown(console) if "\x1b" in line]
