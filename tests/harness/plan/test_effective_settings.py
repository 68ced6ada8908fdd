"""Settings that aren't in force are an error in the harness."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import InvariantError
from harness.plan.effective_settings import check_settings
from harness.plan.kinds import EVALUATION
from tests.support.plans import a_plan

FOUND = {"loader": "dali", "workers": None,
             "decode_threads": 2, "prefetch": 2, "decoder": "cpu", "decode_region": True, "hw_decoder_load": None,
             "width_hint": None, "height_hint": None, "batch_size": 32, "image_size": 64,
             "dtype": "float32", "layout": "nchw", "preprocessing": "paddleclas", "antialias": False,
             "resize": "dali", "auto_augment": False,
             "parameters": "float32", "logits": "float32", "network_layout": "nchw",
             "strides": "both", "sync_batch_norm": False, "to_static": False, "accumulation_steps": 1, "ranks": 2,
             "cudnn_tf32": None}  # fmt: skip


def test_settings_in_force_pass() -> None:
    check_settings(a_plan(), FOUND)


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ({"amp": "bf16"}, {"logits": "bfloat16"}),
        ({"amp": "bf16", "amp_level": "O2"}, {"logits": "bfloat16", "parameters": "bfloat16"}),
        ({"amp": "fp16", "dtype": "float16"}, {"logits": "float16", "dtype": "float16"}),
        (
            {"amp": "fp16", "amp_level": "O2", "dtype": "float16"},
            {"logits": "float16", "dtype": "float16", "parameters": "float16"},
        ),
        ({"layout": "nhwc"}, {"layout": "nhwc", "network_layout": "nhwc"}),
        ({"preprocessing": "dali"}, {"preprocessing": "dali", "antialias": True}),
        ({"resize": "fused"}, {"resize": "fused"}),
        ({"preprocessing": "whole"}, {"preprocessing": "whole"}),
        ({"image_size": "80x160"}, {"image_size": "80x160"}),
        ({"strides": "height"}, {"strides": "height"}),
        ({"to_static": True}, {"to_static": True}),
        ({"bn_stats": "sync"}, {"sync_batch_norm": True}),
        ({"tf32": "on"}, {"cudnn_tf32": True}),
        ({"tf32": "off"}, {"cudnn_tf32": False}),
    ],
)
def test_what_each_setting_puts_in_force(asked: dict[str, Any], read: dict[str, Any]) -> None:
    check_settings(a_plan(**asked), {**FOUND, **read})
    for name in read:
        with pytest.raises(InvariantError, match=f"{name} .* was asked for"):
            check_settings(a_plan(**asked), {**FOUND, **read, name: FOUND[name]})


def test_cores_are_compared_where_ranks_are_kept_on_them() -> None:
    check_settings(a_plan(), {**FOUND, "rank_cores": ["0-3", "0-3"]})
    pinned = a_plan(affinity="pin", rank_cores=("0-1", "2-3"))
    check_settings(pinned, {**FOUND, "rank_cores": ["0-1", "2-3"]})
    for read in (["0-1", "0-3"], ["2-3", "0-1"], ["0-1"], None):
        with pytest.raises(InvariantError, match=r"^rank_cores .* was asked for") as caught:
            check_settings(pinned, {**FOUND, "rank_cores": read})
        assert caught.value.message == f"rank_cores ['0-1', '2-3'] was asked for, {read} was in force"


def test_an_evaluation_shows_nothing_of_training() -> None:
    trained = ("preprocessing", "auto_augment", "accumulation_steps")
    shown = {name: value for name, value in FOUND.items() if name not in trained}
    check_settings(a_plan(kind=EVALUATION), shown)
    with pytest.raises(InvariantError, match="antialias False was asked for, True was in force"):
        check_settings(a_plan(kind=EVALUATION), {**shown, "antialias": True})


@pytest.mark.parametrize(
    ("name", "value"),
    [("decode_threads", 1), ("prefetch", 3), ("batch_size", 64), ("image_size", 128), ("dtype", "float16"),
     ("image_size", "64x128"), ("parameters", "float16"), ("ranks", 1), ("decode_threads", None),
     ("layout", "nhwc"), ("preprocessing", "dali"),
     ("antialias", True), ("auto_augment", True), ("logits", "bfloat16"),
     ("network_layout", "nhwc"), ("strides", "height"), ("to_static", True), ("accumulation_steps", 2)],
)  # fmt: skip
def test_a_setting_that_is_not_in_force(name: str, value: Any) -> None:
    with pytest.raises(InvariantError, match=f"{name} .* was asked for, {value} was in force") as caught:
        check_settings(a_plan(), {**FOUND, name: value})
    assert "no row was written" in caught.value.cure


ON_GPU = {"decoder": "mixed", "decode_region": False, "width_hint": 0, "height_hint": 0}


@pytest.mark.parametrize("asked", [0.75, 0.1234567, 0.01234567])
def test_the_jpeg_engines_share_is_read_with_six_decimals(asked: float) -> None:
    plan = a_plan(hw_decoder_load=asked, device="gpu")
    check_settings(plan, {**FOUND, **ON_GPU, "hw_decoder_load": float(f"{asked:.6f}")})
    with pytest.raises(InvariantError, match="hw_decoder_load"):
        check_settings(plan, {**FOUND, **ON_GPU, "hw_decoder_load": asked + 0.001})


@pytest.mark.parametrize(
    "read", [{"decoder": "cpu"}, {"decode_region": True}, {"width_hint": 640}, {"height_hint": None}]
)
def test_a_gpu_s_decoder_is_used_as_planned(read: dict[str, Any]) -> None:
    (name,) = read
    with pytest.raises(InvariantError, match=f"^{name} .* was asked for, {read[name]} was in force$"):
        check_settings(a_plan(device="gpu"), {**FOUND, **ON_GPU, "hw_decoder_load": 0.65, **read})
