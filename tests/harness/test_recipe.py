"""The published recipe in numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

import models
from harness.recipe import Schedule, TrainingStep, decay_groups, make_optimizer
from pipelines.source import Batch


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 0.8 / 3130),
        (1565, 0.4),
        (3129, 0.8 * 3129 / 3130),
        (3130, 0.8),
        (3130 + (225360 - 3130) // 2, 0.4),
        (225359, 0.8 * (1 + math.cos(math.pi * (225359 - 3130) / (225360 - 3130))) / 2),
        (225360, 0.0),
    ],
)
def test_the_learning_rate_of_a_360_epoch_run(step: int, rate: float) -> None:
    assert Schedule(0.8, 5 * 626, 360 * 626).at(step) == pytest.approx(rate, rel=1e-9, abs=1e-15)


def test_the_schedule_is_paddles_own_at_every_step() -> None:
    warmup, total = 10, 60
    cosine = paddle.optimizer.lr.CosineAnnealingDecay(0.8, total - warmup)
    theirs = paddle.optimizer.lr.LinearWarmup(cosine, warmup, 0.0, 0.8)
    ours = Schedule(0.8, warmup, total)
    for step in range(total):
        assert ours.at(step) == pytest.approx(theirs(), abs=1e-12), step
        theirs.step()


def test_a_run_that_is_all_warm_up_never_divides_by_zero() -> None:
    schedule = Schedule(0.1, 4, 4)
    assert [schedule.at(step) for step in range(4)] == pytest.approx([0.0, 0.025, 0.05, 0.075])


def test_only_batch_norm_goes_without_decay() -> None:
    model = models.build("x0_25", 10)
    decayed, spared = decay_groups(model, 3e-5)
    assert decayed["weight_decay"] == 3e-5
    assert spared["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)].split(".")[-2] for p in spared["params"]} == {"bn"}
    assert len(spared["params"]) == 2 * 27  # scale and shift of the stem's and 13 blocks' two batch norms
    kept = {names[id(p)] for p in decayed["params"]}
    assert {"fc.bias", "blocks6.0.se.conv1.bias", "last_conv.weight", "conv1.conv.weight"} <= kept
    assert len(kept) + 2 * 27 == len(names) - 2 * 27  # all but the running means and variances


class OneOfEach(nn.Layer):
    """A weight with decay and a batch norm without."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2, bias_attr=False)
        self.bn = nn.BatchNorm2D(3)


def test_momentum_and_decay_move_the_weights_as_written() -> None:
    model = OneOfEach()
    optimizer = make_optimizer(model, momentum=0.9, weight_decay=0.1)
    model.fc.weight.set_value(np.full((2, 2), 2.0, np.float32))
    weight, velocity = 2.0, 0.0
    for gradient, rate in ((1.0, 0.5), (0.5, 0.25), (0.0, 0.125)):
        optimizer.set_lr(rate)
        (model.fc.weight.sum() * gradient + model.bn.weight.sum() * 0.0 + model.bn.bias.sum() * 0.0).backward()
        optimizer.step()
        optimizer.clear_grad()
        velocity = 0.9 * velocity + gradient + 0.1 * weight
        weight -= rate * velocity
        np.testing.assert_allclose(model.fc.weight.numpy(), weight, rtol=1e-6)
    np.testing.assert_array_equal(model.bn.weight.numpy(), 1.0)


def test_a_training_step_smooths_the_labels_and_follows_the_schedule() -> None:
    class Fixed(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.logits = self.create_parameter([1, 4])

        def forward(self, images: Any) -> Any:
            return self.logits.expand([images.shape[0], 4])

    model = Fixed()
    logits = np.array([[2.0, 1.0, 0.0, -1.0]], np.float32)
    model.logits.set_value(logits)
    optimizer = paddle.optimizer.Momentum(learning_rate=0.0, parameters=model.parameters())
    train = TrainingStep(model, optimizer, Schedule(1.0, 2, 4), label_smoothing=0.1, seed=(0, 1))
    batch = Batch(paddle.zeros([2, 3, 8, 8]), paddle.to_tensor([0, 3], dtype="int64"), 2)
    log_softmax = logits[0] - np.log(np.exp(logits[0]).sum())
    expected = 0.0
    for label in (0, 3):
        target = np.full(4, 0.1 / 4)
        target[label] += 0.9
        expected -= float((target * log_softmax).sum()) / 2
    laps: list[tuple[bool, bool]] = []

    def lap() -> None:
        """Whether there is a gradient yet, and whether the weights are still the old ones."""
        gradient = model.logits.grad
        there = gradient is not None and bool((gradient.numpy() != 0).any())
        laps.append((there, np.array_equal(model.logits.numpy(), logits)))

    assert float(train(batch, lap)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(model.logits.numpy(), logits)  # the first step's learning rate is 0
    train(batch, lap)
    # Behind the forward pass there is no gradient, behind the backward pass there is, and no weight has moved.
    assert laps == [(False, True), (True, True)] * 2
    assert (train.updates, optimizer.get_lr()) == (2, 0.5)
    assert not np.array_equal(model.logits.numpy(), logits)


class Drops(nn.Layer):
    """Logits that are what dropout leaves of ones, kept for the test to see."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = self.create_parameter([1])
        self.left: list[list[float]] = []

    def forward(self, images: Any) -> Any:
        logits = nn.functional.dropout(paddle.ones([2, 32]), 0.5)
        self.left.append(logits.numpy().ravel().tolist())
        return logits * self.scale


def dropped(seed: tuple[int, ...], updates: int = 0, steps: int = 3) -> list[list[float]]:
    """What dropout leaves in steps from a number of updates on, whatever the generator has done before."""
    model = Drops()
    optimizer = paddle.optimizer.Momentum(learning_rate=0.0, parameters=model.parameters())
    train = TrainingStep(model, optimizer, Schedule(1.0, 2, 9), 0.1, seed, updates)
    for _ in range(steps):
        paddle.rand([7])
        train(Batch(paddle.zeros([2, 1]), paddle.to_tensor([0, 3], dtype="int64"), 2), lambda: None)
    return model.left


def test_a_step_s_random_numbers_come_from_its_seed_and_number_alone() -> None:
    whole = dropped((3, 1))
    assert dropped((3, 1)) == whole
    assert dropped((3, 1), updates=1, steps=2) == whole[1:]
    others = [*dropped((3, 2)), *dropped((4, 1))]
    assert len({tuple(left) for left in [*whole, *others]}) == 9
