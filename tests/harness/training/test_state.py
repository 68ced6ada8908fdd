"""What of 16-bit weights and loss scaling is in a checkpoint, by the names that Paddle's own optimizer gives them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from harness.training.ranks import Ranks
from harness.training.recipe import Schedule, make_optimizer
from harness.training.state import Progress, gather_state, restore_state
from pipelines.source import SourceState
from tests.support.plans import a_config, a_plan


class Scaling:
    """A loss scaler's state."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def state(self) -> dict[str, Any]:
        return {"scale": [self.scale]}

    def restore(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"][0]


def a_trainer(dtype: str, scale: float) -> Any:
    """A rank whose optimizer keeps float32 copies of weights of 16 bits, as after paddle.amp.decorate."""
    model = nn.Linear(3, 2)
    model.to(dtype=dtype)
    optimizer = make_optimizer(model, 0.9, 0.0)
    optimizer._multi_precision = dtype != "float32"
    train = SimpleNamespace(
        optimizer=optimizer, optimizer_steps=7, schedule=Schedule(0.1, 1, 10), precision=Scaling(scale)
    )
    return SimpleNamespace(
        model=model, ranks=Ranks(0, 1), train=train, source=SimpleNamespace(state=SourceState), splits={},
        settings=None, bad=SimpleNamespace(known={}), segments=3, steps={"train": 7}, config=a_config(), plan=a_plan(),
        effective_settings={}, read_from=lambda _: None,
    )  # fmt: skip


def make_a_step(trainer: Any) -> None:
    """Let Paddle's optimizer make all that it keeps; no CPU has a kernel to update weights of 16 bits."""
    paddle.add_n([weights.astype("float32").sum() for weights in trainer.model.parameters()]).backward()
    try:
        trainer.train.optimizer.step()
    except RuntimeError as error:
        assert "momentum` is not registered" in str(error)  # noqa: PT017 - none is raised for float32


def kept_by(trainer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The optimizer's float32 copies by their parameters' names, and its momentum by its own."""
    state = trainer.train.optimizer.state_dict()
    return state.pop("master_weights", {}), state


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_16_bits_are_saved_and_restored_in_full_precision(dtype: str) -> None:
    first, generator = a_trainer(dtype, 2048.0), np.random.default_rng(1)
    make_a_step(first)
    copies, momentum = kept_by(first)
    assert set(copies) == {parameter.name for parameter in first.model.parameters()}
    for parameter in first.model.parameters():
        copy = copies[parameter.name]
        copy.set_value(generator.normal(size=parameter.shape).astype("float32"))
        momentum[f"{copy.name}_velocity_0"].set_value(copy * 0.25)
        parameter.set_value(copy.astype(dtype))
    checkpoint = gather_state(first, Progress(), {})
    for name, parameter in first.model.named_parameters():
        np.testing.assert_array_equal(checkpoint.arrays[f"model/{name}"], copies[parameter.name].numpy())
        np.testing.assert_array_equal(checkpoint.arrays[f"velocity/{name}"], 0.25 * copies[parameter.name].numpy())

    second = a_trainer(dtype, 65536.0)
    restore_state(second, checkpoint)
    # Its next step would start from zero with what it has not taken over.
    make_a_step(second)
    assert (second.train.optimizer_steps, second.train.precision.scale) == (7, 2048.0)
    restored_copies, restored_momentum = kept_by(second)
    assert len(restored_momentum) == 2
    for old, new in zip(first.model.parameters(), second.model.parameters(), strict=True):
        # 16 bits of the copy, as the optimizer would leave them
        assert str(new.dtype).endswith(dtype)
        np.testing.assert_array_equal(new.astype("float32").numpy(), old.astype("float32").numpy())
        copy = restored_copies[new.name]
        np.testing.assert_array_equal(copy.numpy(), copies[old.name].numpy())
        np.testing.assert_array_equal(
            restored_momentum[f"{copy.name}_velocity_0"].numpy(), 0.25 * copies[old.name].numpy()
        )


def test_single_precision_has_no_copies() -> None:
    first, second = (a_trainer("float32", 1.0) for _ in range(2))
    make_a_step(first)
    _, momentum = kept_by(first)
    for parameter in first.model.parameters():
        momentum[f"{parameter.name}_velocity_0"].set_value(parameter * 2)
    restore_state(second, gather_state(first, Progress(), {}))
    # A step at a rate of 0 and a momentum of 0.9: v = 0.9 v + 1, and no weight changes.
    make_a_step(second)
    copies, restored = kept_by(second)
    assert copies == {}
    for old, new in zip(first.model.parameters(), second.model.parameters(), strict=True):
        np.testing.assert_array_equal(new.numpy(), old.numpy())
        np.testing.assert_allclose(restored[f"{new.name}_velocity_0"].numpy(), 1.8 * old.numpy() + 1, rtol=1e-6)
