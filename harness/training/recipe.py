"""The published training recipe: learning rate, loss, optimizer, and one training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F  # noqa: N812
from paddle import nn

from harness.training.mixed_precision import MixedPrecision
from pipelines.batch import Batch


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up from 0, then a cosine to 0, updated at every step.

    Source: PaddleClas, configs/ImageNet/PPLCNet (Cosine with warmup_epoch). Steps count from 0, so that the first
    step's rate is 0.
    """

    peak: float
    warmup_steps: int
    total_steps: int

    def at(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / decay_steps)
        return self.peak * (1 + math.cos(math.pi * done)) / 2


def decay_groups(model: nn.Layer, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters in two groups: batch norm's scale and shift without decay, all others (biases included) with decay."""
    norms = {
        id(parameter)
        for layer in model.sublayers()
        if isinstance(layer, nn.BatchNorm2D)
        for parameter in layer.parameters(include_sublayers=False)
    }
    trained = [p for p in model.parameters() if not p.stop_gradient]
    return [
        {"params": [p for p in trained if id(p) not in norms], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]


def make_optimizer(
    model: nn.Layer, momentum: float, weight_decay: float, *, multi_tensor: bool = True
) -> paddle.optimizer.Momentum:
    """Momentum SGD with the recipe's decay rule; the learning rate is set before each step.

    multi_tensor: one operator updates all parameters of a group, instead of one operator for each. It saves the host's
    time; weights, momentum and their names in a checkpoint are the same.
    """
    return paddle.optimizer.Momentum(
        learning_rate=0.0,
        momentum=momentum,
        parameters=decay_groups(model, weight_decay),
        use_multi_tensor=multi_tensor,
    )


@dataclass(slots=True)
class TrainingStep:
    """Trains the model: each optimizer step takes accumulation_steps batches.

    optimizer_steps counts the steps that were made; the learning rate follows it. Every batch draws its random numbers
    (dropout's) from a fresh seed, made of the seed, the rank and the batch's number, so that a run can be resumed at
    any step without its generators' states. overflowed holds the steps that left the weights unchanged, as a gradient
    was beyond float16's range. logits_dtype is the number format of the network's last output.
    """

    model: nn.Layer
    optimizer: paddle.optimizer.Optimizer
    schedule: Schedule
    label_smoothing: float
    seed: tuple[int, ...]
    optimizer_steps: int = 0
    accumulation_steps: int = 1
    precision: MixedPrecision = field(default_factory=MixedPrecision)
    overflowed: set[int] = field(default_factory=set)
    logits_dtype: str = ""
    _part: int = 0

    @property
    def exchanges_next(self) -> bool:
        """Whether gradients are exchanged with the next batch, a step's last."""
        return self._part + 1 == self.accumulation_steps

    def __call__(self, batch: Batch, mark_split: Callable[[], None]) -> Any:
        """Train on a batch. Returns its loss, a scalar tensor on the device.

        mark_split is called after the forward and after the backward pass (see `harness.training.loop.Consumer`).
        """
        number = self.optimizer_steps * self.accumulation_steps + self._part
        paddle.seed(int(np.random.SeedSequence([*self.seed, number]).generate_state(1)[0]))
        self._part += 1
        is_last = self._part == self.accumulation_steps
        # Gradients add up on each rank, and are exchanged with those of the step's last batch.
        with nullcontext() if is_last else no_exchange(self.model):
            with self.precision.forward():
                logits = self.model(self.precision.images(batch.images))
            # Outside, as Paddle would compute the loss in 16 bits at O2, and round the smoothed labels to them at O1.
            loss = F.cross_entropy(logits.astype("float32"), batch.labels, label_smoothing=self.label_smoothing)
            mark_split()
            self.precision.backward(loss / self.accumulation_steps if self.accumulation_steps > 1 else loss)
        mark_split()
        if is_last:
            self.optimizer.set_lr(self.schedule.at(self.optimizer_steps))
            if self.precision.step(self.optimizer):
                self.overflowed.add(self.optimizer_steps)
            # The next backward pass puts its gradients in place of these, rather than adding them to zeros.
            self.optimizer.clear_grad(set_to_zero=False)
            self.optimizer_steps += 1
            self._part = 0
        self.logits_dtype = str(logits.dtype).rpartition(".")[2]
        return loss.detach()


def no_exchange(model: nn.Layer) -> AbstractContextManager[None]:
    """A context in which backward passes don't exchange gradients between ranks."""
    context: AbstractContextManager[None] = getattr(model, "no_sync", nullcontext)()
    return context
