"""Settings that aren't in force are an error in the harness."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import InvariantError
from harness.read_back import check_settings
from tests.harness.plans import a_config, a_plan

READ_BACK = {"threads": 2, "prefetch": 2, "hw_decoder_load": None, "batch_size": 32, "image_size": 64,
             "dtype": "float32", "parameters": "float32", "ranks": 2, "cudnn_tf32": None}  # fmt: skip


def test_settings_in_force_pass() -> None:
    check_settings(a_config(), a_plan(), READ_BACK)


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 1), ("prefetch", 3), ("batch_size", 64), ("image_size", 128), ("dtype", "float16"),
     ("parameters", "float16"), ("ranks", 1), ("threads", None)],
)  # fmt: skip
def test_a_setting_that_is_not_in_force(name: str, value: Any) -> None:
    with pytest.raises(InvariantError, match=f"{name} .* was asked for, {value} was in force") as caught:
        check_settings(a_config(), a_plan(), {**READ_BACK, name: value})
    assert "no row was written" in caught.value.cure


@pytest.mark.parametrize("asked", [0.75, 0.1234567, 0.01234567])
def test_the_jpeg_engines_share_is_read_with_six_decimals(asked: float) -> None:
    config, plan = a_config(hw_decoder_load=asked), a_plan(device="gpu")
    check_settings(config, plan, {**READ_BACK, "hw_decoder_load": float(f"{asked:.6f}")})
    with pytest.raises(InvariantError, match="hw_decoder_load"):
        check_settings(config, plan, {**READ_BACK, "hw_decoder_load": asked + 0.001})


def test_a_share_that_dali_does_not_tell_is_no_error() -> None:
    check_settings(a_config(hw_decoder_load=0.75), a_plan(device="gpu"), READ_BACK)
