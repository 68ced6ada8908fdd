"""What makes a run's batches: where images are decoded, what resizes them, and which loader does it all."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import IMAGENET, Decoding, RunPlan
from pipelines.fused.fit import NOT_INSTALLED

FOUR_GPUS = Devices("gpu", 4, "BI-V100")


def cpus(ranks: int) -> Devices:
    return Devices("cpu", ranks, "CPU")


def planned(devices: Devices, **asked: Any) -> RunPlan:
    return make_plan(RunConfig(**asked), devices, IMAGENET, {})


BROKEN = Decoding(obstacle="GPU 0: its process was ended by SIGSEGV", width_hint=640)
FOUND = Decoding(hw_decoder_load=1.0, width_hint=640, height_hint=480, rates={"1.0": 900.0})


@pytest.mark.parametrize(
    ("asked", "devices", "decoding", "decoder", "region"),
    [
        ({}, FOUR_GPUS, FOUND, "mixed", False),
        ({}, FOUR_GPUS, BROKEN, "cpu", True),
        ({}, cpus(2), Decoding(), "cpu", True),
        ({}, Devices("npu", 2, "npu"), Decoding(), "cpu", True),
        ({"decoder": "cpu"}, FOUR_GPUS, Decoding(), "cpu", True),
        ({"decoder": "cpu", "decode_region": "off"}, FOUR_GPUS, Decoding(), "cpu", False),
        ({"decoder": "mixed"}, FOUR_GPUS, FOUND, "mixed", False),
        ({"decoder": "mixed", "decode_region": "on"}, FOUR_GPUS, FOUND, "mixed", True),
        ({"decode_region": "off"}, cpus(2), Decoding(), "cpu", False),
        ({"preprocessing": "whole"}, cpus(2), Decoding(), "cpu", False),
        ({"preprocessing": "whole", "decode_region": "on"}, cpus(2), Decoding(), "cpu", True),
        ({"decode_region": "on"}, FOUR_GPUS, BROKEN, "cpu", True),
    ],
)
def test_where_images_are_decoded_and_how_much_of_them(
    asked: dict[str, Any], devices: Devices, decoding: Decoding, decoder: str, region: bool
) -> None:
    planned = make_plan(RunConfig(**asked), devices, IMAGENET, {}, decoding)
    assert (planned.pipeline.decoder, planned.pipeline.decode_region) == (decoder, region)
    fallen_back = [note for note in planned.notes if note.startswith("images are decoded on the CPU")]
    assert fallen_back == (
        [f"images are decoded on the CPU, as the GPUs' decoder can't be used: {BROKEN.obstacle}"]
        if decoding is BROKEN
        else []
    )


def test_what_a_trial_found_holds_unless_it_was_asked_for() -> None:
    found = make_plan(RunConfig(), FOUR_GPUS, IMAGENET, {}, FOUND).pipeline
    assert (found.hw_decoder_load, found.width_hint, found.height_hint) == (1.0, 640, 480)
    config = RunConfig(hw_decoder_load=0.0, width_hint=0, height_hint=9000)
    asked = make_plan(config, FOUR_GPUS, IMAGENET, {}, FOUND).pipeline
    assert (asked.hw_decoder_load, asked.width_hint, asked.height_hint) == (0.0, 0, 9000)


@pytest.mark.parametrize(
    ("asked", "devices", "resize"),
    [
        ({}, cpus(2), "fused"),
        ({"resize": "fused"}, cpus(2), "fused"),
        ({"resize": "dali"}, cpus(2), "dali"),
        ({"preprocessing": "dali"}, cpus(2), "dali"),
        ({"preprocessing": "whole"}, cpus(2), "fused"),
        ({"preprocessing": "whole", "loader": "opencv"}, cpus(2), "opencv"),
        ({"auto_augment": True}, cpus(2), "dali"),
        ({}, FOUR_GPUS, "dali"),
        ({"decoder": "cpu"}, FOUR_GPUS, "fused"),
        ({"loader": "opencv"}, cpus(2), "opencv"),
    ],
)
def test_what_resizes_images(asked: dict[str, Any], devices: Devices, resize: str) -> None:
    assert planned(devices, **asked).pipeline.resize == resize


@pytest.mark.parametrize(
    ("asked", "devices", "why"),
    [
        ({}, FOUR_GPUS, "images are decoded on GPUs"),
        ({"preprocessing": "dali"}, cpus(1), "--preprocessing dali smooths images"),
        ({"model": "x2_5"}, cpus(1), "AutoAugment comes between"),
    ],
)
def test_the_fused_operator_is_refused_where_it_can_t_be(asked: dict[str, Any], devices: Devices, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(devices, resize="fused", **asked)
    assert caught.value.message.startswith(f"--resize fused can't be used: {why}")


def test_without_numba_dali_resizes_which_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.fused.fit.find_spec", lambda _: None)
    plan = planned(cpus(2))
    assert plan.pipeline.resize == "dali"
    assert f"images are resized by DALI, which is slower, as {NOT_INSTALLED}" in plan.notes
    assert not any(NOT_INSTALLED in note for note in planned(cpus(2), resize="dali").notes)
    assert not any(NOT_INSTALLED in note for note in planned(cpus(2), loader="opencv").notes)
    with pytest.raises(UsageError, match=NOT_INSTALLED):
        planned(cpus(2), resize="fused")


def test_without_opencv_its_loader_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.decisions.find_spec", lambda _: None)
    assert planned(cpus(2)).pipeline.loader == "dali"
    for asked in ({"loader": "opencv"}, {"loader": "dali,opencv", "throughput_only": True}):
        with pytest.raises(MachineError, match="needs OpenCV, which is not installed") as caught:
            planned(cpus(2), **asked)
        assert "--loader dali" in caught.value.cure


def test_two_loaders_differ_in_what_is_theirs_alone() -> None:
    plan = planned(FOUR_GPUS, loader="dali,opencv", throughput_only=True, workers=3)
    beside = plan.beside
    assert beside is not None
    assert (plan.pipeline.loader, plan.pipeline.decoder) == ("dali", "mixed")
    assert (beside.loader, beside.decoder, beside.decode_region, beside.resize) == ("opencv", "cpu", False, "opencv")
    assert (beside.workers, beside.batches_ahead, plan.pipeline.batches_ahead) == (3, 6, 2)
    assert (beside.batch_size, beside.dtype, beside.seed) == (512, "float32", 0)
    assert planned(FOUR_GPUS, throughput_only=True).beside is None
