"""Mixed precision: what computes in 16 bits, and the loss scaling that float16 needs; no effect in float32."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import paddle
from paddle import nn

from harness.errors import MachineError
from harness.machine.device import lack_of

O2 = "O2"


class MixedPrecision:
    """How one rank's network computes: in dtype (float32, bfloat16 or float16), at Paddle's level O1 or O2.

    With float16 the loss is multiplied by a factor before the backward pass, so that small gradients don't vanish. The
    factor is halved whenever a gradient overflows; that step then changes no weight. bfloat16 has float32's range and
    needs no factor. At O2 Paddle divides gradients by the factor in float16, where those below 6e-8 become 0 after all,
    unless master_grad has them converted to float32 before. depthwise: at O1 depthwise convolutions, which Paddle does
    not count as "conv2d", are in 16 bits as well. lack says why the device can't compute in a format, and nothing if it
    can. Raises MachineError if it can't.
    """

    def __init__(
        self,
        dtype: str = "float32",
        level: str = "O1",
        lack: Callable[[str], str] = lack_of,
        *,
        depthwise: bool = False,
        master_grad: bool = False,
    ) -> None:
        self._dtype, self._level, self._master_grad = dtype, level, master_grad
        self._lists: dict[str, Any] = {"custom_white_list": {"depthwise_conv2d"}} if depthwise else {}
        if dtype == "bfloat16" and (reason := lack(dtype)):
            raise MachineError(
                f"--amp bf16 needs a device that computes in bfloat16 (GPUs: Ampere or newer): {reason}",
                "Use --amp fp16, or train without --amp.",
            )
        if dtype == "float16" and (reason := lack(dtype)):
            raise MachineError(
                f"--amp fp16 needs a device that computes in float16 (GPUs: Volta or newer): {reason}",
                "Train without --amp.",
            )
        self._scaler: Any = paddle.amp.GradScaler() if dtype == "float16" else None

    def prepare(self, model: nn.Layer, optimizer: Any) -> None:
        """With O2, convert the weights to 16 bits; the optimizer then keeps float32 copies, and updates those."""
        if self._dtype != "float32" and self._level == O2:
            paddle.amp.decorate(
                model, optimizer, level=O2, dtype=self._dtype, master_weight=True, master_grad=self._master_grad
            )

    def images(self, images: Any) -> Any:
        """Images in the format in which the network computes, if they came in another one of 16 bits."""
        return images.astype(self._dtype) if self._dtype == "bfloat16" and images.dtype == paddle.float16 else images

    def forward(self) -> AbstractContextManager[Any]:
        """A context in which the network runs in the chosen precision, for the operators on Paddle's lists.

        Compute the loss outside of it.
        """
        if self._dtype == "float32":
            return nullcontext()
        context: AbstractContextManager[Any] = paddle.amp.auto_cast(level=self._level, dtype=self._dtype, **self._lists)
        return context

    def backward(self, loss: Any) -> None:
        """Compute the gradients of a loss, multiplied by the scaler's factor if there is one."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def step(self, optimizer: Any) -> bool:
        """Update the weights, unless a gradient overflowed. Returns whether one did."""
        if self._scaler is None:
            optimizer.step()
            return False
        self._scaler.step(optimizer)
        self._scaler.update()
        # As found in the step, before `update` may have changed the factor; Paddle reports it nowhere else.
        return bool(self._scaler._cache_found_inf)

    def state(self) -> dict[str, Any]:
        """The scaler's factor and its counts as JSON values; empty without a scaler."""
        if self._scaler is None:
            return {}
        return {name: value.tolist() if hasattr(value, "tolist") else value
                for name, value in self._scaler.state_dict().items()}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict({**state, "scale": paddle.to_tensor(state["scale"], "float32")})
