"""Marks: whatever departs from the published training is named, and no option can be forgotten (case A9)."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from harness.machine.device import Devices
from harness.plan.decisions import make_plan
from harness.plan.declaration import CELL, FILE, MARK, UNMARKED
from harness.plan.options import RunConfig, run_options
from harness.plan.plan import IMAGENET, DataFacts
from harness.plan.published import OF_EPOCHS, OF_EVALUATION, WORDS, marks
from pipelines.augmentation import Augmentation
from tests.support.plans import DIGITS

GPUS = Devices("gpu", 4, "H100")


def marks_of(devices: Devices = GPUS, data: DataFacts = IMAGENET, **options: Any) -> tuple[str, ...]:
    """The marks of a run on ImageNet and four GPUs with these options."""
    config = RunConfig(**options)
    data = replace(data, shards="2 shards of webdataset") if "shuffle_window" in options else data
    return marks(config, make_plan(config, devices, data, {}))


# For each option that marks a row: another value, with the options that it needs, and its mark.
MARKED: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": ({"epochs": 1}, "1 epoch"),
    "loader": ({"loader": "opencv"}, "OpenCV loader"),
    "shuffle_window": ({"shuffle_window": 5000}, "shuffled in windows of 5,000"),
    "batch_size": ({"batch_size": 64}, "256 images per step"),
    "profile": ({"profile": 5}, "5 steps traced"),
    "learning_rate": ({"learning_rate": 0.4}, "learning rate 0.4"),
    "lr_warmup_epochs": ({"lr_warmup_epochs": 0}, "0 epochs of learning rate warm-up"),
    "momentum": ({"momentum": 0.8}, "momentum 0.8"),
    "weight_decay": ({"weight_decay": 0.1}, "weight decay 0.1"),
    "label_smoothing": ({"label_smoothing": 0.0}, "label smoothing 0"),
    "accumulation_steps": ({"accumulation_steps": 2, "batch_size": 256}, "2 batches per step"),
    "pretrained": ({"pretrained": "a.pdparams"}, "pretrained"),
    "pretrained_head": ({"pretrained": "a.pdparams", "pretrained_head": "new"}, "new head"),
    "bn_stats": ({"bn_stats": "rank0"}, "batch norm of rank 0"),
    "amp": ({"amp": "bf16"}, "AMP bf16-O1"),
    "amp_level": ({"amp": "bf16", "amp_level": "O2"}, "AMP bf16-O2"),
    "amp_depthwise": ({"amp": "fp16", "amp_depthwise": True}, "depthwise in 16 bits"),
    "master_grad": ({"amp": "fp16", "amp_level": "O2", "master_grad": True}, "master gradients"),
    "tf32": ({"tf32": "off"}, "TF32 off"),
    "strides": ({"strides": "height"}, "height alone halved"),
    "crop_area_min": ({"crop_area_min": 0.5}, "crops of 0.5 to 1 of the area"),
    "flip_probability": ({"flip_probability": 0.0}, "flip probability 0"),
    "preprocessing": ({"preprocessing": "dali"}, "dali preprocessing"),
    "auto_augment": ({"auto_augment": True}, "AutoAugment"),
}


def test_every_option_says_how_a_row_shows_it() -> None:
    """A new option marks the row until its declaration says something else."""
    assert {option.row for option in run_options().values()} == {MARK, CELL, FILE, UNMARKED}
    marked = {name for name, option in run_options().items() if option.row == MARK}
    assert marked == {*MARKED, "classes"}  # the data set brings the classes along
    assert set(WORDS) | set(OF_EPOCHS) | set(OF_EVALUATION) <= marked


def test_the_published_recipe_has_no_mark() -> None:
    assert marks_of() == ()
    assert marks_of(model="x2_5") == ()
    assert marks_of(model="x1_5") == ()


@pytest.mark.parametrize("name", MARKED)
def test_an_option_that_is_not_as_published_marks_the_row(name: str) -> None:
    options, mark = MARKED[name]
    assert mark in marks_of(**options)
    others = {key: value for key, value in options.items() if key != name}
    # Without it, at most what it needs is marked.
    assert mark not in (marks_of(**others) if name != "amp" else ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 7), ("layout", "nhwc"), ("to_static", True), ("compute_threads", 3), ("decode_threads", 1),
        ("prefetch", 5), ("decoder", "cpu"), ("decode_region", "on"), ("hw_decoder_load", 0.5), ("warmup", 9),
        ("max_bad_images", 7), ("max_bad_share", 0.5), ("bad_images", "fail"), ("checkpoint_minutes", 3.0),
    ],
)  # fmt: skip
def test_what_is_no_part_of_the_recipe_has_no_mark(name: str, value: Any) -> None:
    assert run_options()[name].row == UNMARKED
    assert marks_of(**{name: value}) == ()


def test_several_marks_are_one_short_line() -> None:
    """Case A9."""
    found = marks_of(epochs=1, label_smoothing=0.0, weight_decay=0.1)
    assert found == ("1 epoch", "weight decay 0.1", "label smoothing 0")


@pytest.mark.parametrize("batch_size", [256, 1024])
def test_another_batch_with_the_rules_learning_rate_is_marked_once(batch_size: int) -> None:
    images = 4 * batch_size
    mark = (f"{images:,} images per step",)
    assert marks_of(batch_size=batch_size) == mark
    assert marks_of(batch_size=batch_size, learning_rate=0.1 * images / 256) == mark
    assert marks_of(batch_size=batch_size, learning_rate=0.8) == (*mark, "learning rate 0.8")


def test_other_devices_with_the_published_batch_have_no_mark() -> None:
    """The header has their number."""
    assert marks_of(Devices("gpu", 8, "H100"), batch_size=256) == ()


def test_limits_of_crops_are_no_matter_of_whole_images() -> None:
    found = marks_of(data=DIGITS, preprocessing="whole", epochs=2, batch_size=8)
    assert "whole images" in found
    assert not [mark for mark in found if "crops" in mark]


def test_a_data_sets_own_classes_and_crops_are_marked() -> None:
    assert marks_of(data=dataclasses.replace(IMAGENET, num_classes=1001, imagenet=False)) == ("1,001 classes",)
    found = marks_of(Devices("cpu", 2, "CPU"), DIGITS, batch_size=16, epochs=2)
    assert found == (
        "2 epochs", "32 images per step", "10 classes", "crops of 0.5 to 1 of the area and aspect 0.9 to 1.1",
        "flip probability 0",
    )  # fmt: skip


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Augmentation)])
def test_every_part_of_the_augmentation_is_marked(field: str) -> None:
    own = dataclasses.replace(Augmentation(), **{field: 0.8})
    assert len(marks_of(data=dataclasses.replace(IMAGENET, augmentation=own))) == 1


def test_a_throughput_run_has_no_mark_of_its_epochs() -> None:
    assert marks_of(throughput_only=True, epochs=1) == ()
    assert marks_of(throughput_only=True, epochs=20, lr_warmup_epochs=0, label_smoothing=0.0) == ("label smoothing 0",)


def test_an_evaluation_is_marked_by_what_it_depends_on() -> None:
    assert marks_of(eval_only=True, pretrained="a.pdparams", epochs=3, batch_size=8) == ()
    whole = marks_of(eval_only=True, pretrained="a.pdparams", strides="height", preprocessing="whole")
    assert whole == ("height alone halved", "whole images")
    found = marks_of(eval_only=True, pretrained="a.pdparams", amp="bf16", preprocessing="dali")
    assert found == ("AMP bf16-O1", "dali preprocessing")


def test_an_option_without_words_of_its_own_is_marked_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new option needs nothing but its declaration."""
    for name in ("accumulation_steps", "master_grad", "tf32"):
        monkeypatch.delitem(WORDS, name)
    assert "accumulation steps 2" in marks_of(accumulation_steps=2, batch_size=256)
    assert "tf32 on" in marks_of(tf32="on")
    assert "master grad" in marks_of(amp="fp16", amp_level="O2", master_grad=True)
