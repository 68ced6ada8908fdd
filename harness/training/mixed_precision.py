"""Mixed precision: what computes in 16 bits, and the loss scaling that float16 needs; in float32, nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import paddle
from paddle import nn

from harness.errors import MachineError

O2 = "O2"


def computes_in(dtype: str) -> bool:
    """Whether the device that is Paddle's current one computes in the 16-bit format, bfloat16 or float16."""
    if dtype == "bfloat16":
        return bool(paddle.amp.is_bfloat16_supported())
    # Paddle would train in float32 there, with a warning.
    return not paddle.is_compiled_with_cuda() or paddle.device.cuda.get_device_capability()[0] >= 7


class MixedPrecision:
    """How one rank's network computes: in dtype (float32, bfloat16 or float16), by Paddle's level O1 or O2.

    With float16 the loss is multiplied before the backward pass, so that small gradients don't vanish in it, by a
    factor that is halved whenever one overflows; that step then changes no weight. bfloat16 has float32's range and
    needs none. At O2 Paddle divides gradients by the factor in float16, where those below 6e-8 become 0 after all.
    supported says whether the device computes in a format. Raises MachineError for a GPU without it.
    """

    def __init__(
        self, dtype: str = "float32", level: str = "O1", supported: Callable[[str], bool] = computes_in
    ) -> None:
        self._dtype, self._level = dtype, level
        if dtype == "bfloat16" and not supported(dtype):
            raise MachineError("--amp bf16 needs a GPU that computes in bfloat16 (Ampere or newer)", "Use --amp fp16.")
        if dtype == "float16" and not supported(dtype):
            raise MachineError("--amp fp16 needs a GPU with tensor cores (Volta or newer)", "Train without --amp.")
        self._scaler: Any = paddle.amp.GradScaler() if dtype == "float16" else None

    def prepare(self, model: nn.Layer, optimizer: Any) -> None:
        """With O2, give the weights 16 bits; the optimizer then keeps float32 copies, and updates those."""
        if self._dtype != "float32" and self._level == O2:
            paddle.amp.decorate(model, optimizer, level=O2, dtype=self._dtype, master_weight=True)

    def forward(self) -> AbstractContextManager[Any]:
        """Within it the network runs in the chosen precision, as far as Paddle's lists of operators go.

        At O1 these leave depthwise convolutions, which are no "conv2d" to Paddle, in float32. The loss belongs outside.
        """
        if self._dtype == "float32":
            return nullcontext()
        context: AbstractContextManager[Any] = paddle.amp.auto_cast(level=self._level, dtype=self._dtype)
        return context

    def backward(self, loss: Any) -> None:
        """The gradients of a loss, multiplied by the scaler's factor where there is one."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def step(self, optimizer: Any) -> bool:
        """Update the weights, unless a gradient overflowed; whether one did."""
        if self._scaler is None:
            optimizer.step()
            return False
        self._scaler.step(optimizer)
        self._scaler.update()
        # Of the step before the update, which may have changed the factor; Paddle tells it nowhere else.
        return bool(self._scaler._cache_found_inf)

    def state(self) -> dict[str, Any]:
        """The scaler's factor and its counts, as JSON has them; empty without a scaler."""
        if self._scaler is None:
            return {}
        return {name: value.tolist() if hasattr(value, "tolist") else value
                for name, value in self._scaler.state_dict().items()}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict({**state, "scale": paddle.to_tensor(state["scale"], "float32")})
