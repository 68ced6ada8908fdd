"""What of 16-bit weights and loss scaling is in a checkpoint; as no CPU trains so, with an optimizer's stand-in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

import harness.training.state
from harness.training.ranks import Ranks
from harness.training.recipe import Schedule
from harness.training.state import Progress, gather_state, restore_state
from pipelines.source import SourceState
from tests.support.plans import a_config, a_plan


class Optimizer:
    """Keeps what Paddle's keeps of 16-bit weights: float32 copies, and momentum by the copies' names."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.kept

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state


class Scaling:
    """A loss scaler's state."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def state(self) -> dict[str, Any]:
        return {"scale": [self.scale]}

    def restore(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"][0]


def a_trainer(dtype: str, scale: float) -> Any:
    model = nn.Linear(3, 2)
    model.to(dtype=dtype)
    train = SimpleNamespace(
        optimizer=Optimizer(), optimizer_steps=7, schedule=Schedule(0.1, 1, 10), precision=Scaling(scale)
    )
    return SimpleNamespace(
        model=model, ranks=Ranks(0, 1), train=train, source=SimpleNamespace(state=SourceState), dataset=None,
        settings=None, bad=SimpleNamespace(known={}), segments=3, steps={"train": 7}, config=a_config(), plan=a_plan(),
        effective_settings={},
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_16_bits_are_saved_and_restored_in_full_precision(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.training.state, "training_source", lambda *_: None)
    first, generator = a_trainer(dtype, 2048.0), np.random.default_rng(1)
    copies: dict[str, Any] = {}
    for parameter in first.model.parameters():
        copy = paddle.to_tensor(generator.normal(size=parameter.shape).astype("float32"))
        copy.name = f"{parameter.name}_fp32_master_0"
        copies[parameter.name] = copy
        first.train.optimizer.kept[f"{copy.name}_velocity_0"] = copy * 0.25
        parameter.set_value(copy.astype(dtype))
    first.train.optimizer.kept["master_weights"] = copies
    checkpoint = gather_state(first, Progress(), {})
    for name, parameter in first.model.named_parameters():
        np.testing.assert_array_equal(checkpoint.arrays[f"model/{name}"], copies[parameter.name].numpy())
        np.testing.assert_array_equal(checkpoint.arrays[f"velocity/{name}"], 0.25 * copies[parameter.name].numpy())

    second = a_trainer(dtype, 65536.0)
    restore_state(second, checkpoint)
    assert (second.train.optimizer_steps, second.train.precision.scale) == (7, 2048.0)
    kept = second.train.optimizer.kept
    for old, new in zip(first.model.parameters(), second.model.parameters(), strict=True):
        # 16 bits of the copy, as the optimizer would leave them
        assert str(new.dtype).endswith(dtype)
        np.testing.assert_array_equal(new.astype("float32").numpy(), old.astype("float32").numpy())
        copy = kept["master_weights"][new.name]
        np.testing.assert_array_equal(copy.numpy(), copies[old.name].numpy())
        velocity = kept[f"{new.name}_fp32_master_0_velocity_0"]
        np.testing.assert_array_equal(velocity.numpy(), 0.25 * copies[old.name].numpy())
        assert copy.name == f"{new.name}_fp32_master_0"


def test_single_precision_has_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.training.state, "training_source", lambda *_: None)
    first, second = (a_trainer("float32", 1.0) for _ in range(2))
    for parameter in first.model.parameters():
        first.train.optimizer.kept[f"{parameter.name}_velocity_0"] = parameter * 2
    restore_state(second, gather_state(first, Progress(), {}))
    assert "master_weights" not in second.train.optimizer.kept
    for old, new in zip(first.model.parameters(), second.model.parameters(), strict=True):
        np.testing.assert_array_equal(new.numpy(), old.numpy())
        np.testing.assert_array_equal(second.train.optimizer.kept[f"{new.name}_velocity_0"].numpy(), 2 * old.numpy())
