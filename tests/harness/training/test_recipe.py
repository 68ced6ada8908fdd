"""The published recipe in numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

import models
from harness.machine.device import Devices
from harness.plan.decisions import make_plan
from harness.training.recipe import Schedule, TrainingStep, decay_groups, make_optimizer
from pipelines.batch import Batch
from tests.support.plans import DIGITS, a_config

CPUS = Devices("cpu", 2, "CPU")


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


def test_the_learning_rate_of_every_iteration_of_a_360_epoch_run() -> None:
    """626 steps an epoch on ImageNet: 225,360 rates, against the recipe's formula and against Paddle's schedule.

    PaddleClas (ppcls/optimizer/learning_rate.py) puts Paddle's LinearWarmup before Paddle's CosineAnnealingDecay, whose
    T_max is (epochs - warm-up epochs) x steps an epoch, and steps both every iteration.
    """
    warmup, total = 5 * 626, 360 * 626
    assert total == 225_360
    schedule = Schedule(0.8, warmup, total)
    ours = np.array([schedule.at(step) for step in range(total)])

    steps = np.arange(total)
    # cos(x)^2 for (1 + cos(2x)) / 2, which loses no digits where the rate comes near 0.
    falling = 0.8 * np.cos(np.pi / 2 * (steps - warmup) / (total - warmup)) ** 2
    formula = np.where(steps < warmup, 0.8 * steps / warmup, falling)
    np.testing.assert_allclose(ours, formula, rtol=1e-12, atol=1e-16)

    cosine = paddle.optimizer.lr.CosineAnnealingDecay(0.8, total - warmup)
    scheduler = paddle.optimizer.lr.LinearWarmup(cosine, warmup, 0.0, 0.8)
    theirs = np.empty(total)
    for step in range(total):
        theirs[step] = scheduler()
        scheduler.step()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-16)


def test_a_run_that_is_all_warm_up_never_divides_by_zero() -> None:
    schedule = Schedule(0.1, 4, 4)
    assert [schedule.at(step) for step in range(4)] == pytest.approx([0.0, 0.025, 0.05, 0.075])


def spared_by_name(name: str) -> bool:
    """Whether PaddleClas gives the parameter `ParamAttr(regularizer=L2Decay(0.0))`: a batch norm's weight and bias."""
    return name.endswith((".bn.weight", ".bn.bias"))


@pytest.mark.parametrize("size", models.SIZES)
def test_exactly_the_parameters_that_paddleclas_decays_are_decayed(size: str) -> None:
    model = models.build(size, 10)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {name for name in names.values() if not name.endswith(("._mean", "._variance"))}
    decayed, spared = decay_groups(model, 3e-5)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (3e-5, 0.0)
    kept = [names[id(parameter)] for parameter in decayed["params"]]
    left = [names[id(parameter)] for parameter in spared["params"]]
    assert sorted(left) == sorted(name for name in trained if spared_by_name(name))
    assert sorted(kept) == sorted(name for name in trained if not spared_by_name(name))
    # 27 batch norms and as many convolutions before them, two attentions' weights and biases, the head's three.
    assert (len(left), len(kept)) == (2 * 27, 27 + 2 * 4 + 3)


@pytest.mark.parametrize("size", models.SIZES)
def test_without_a_gradient_a_step_moves_a_weight_by_its_decay_alone(size: str) -> None:
    rate, decay = 0.5, 0.1
    model = models.build(size, 10)
    optimizer = make_optimizer(model, momentum=0.9, weight_decay=decay)
    generator = np.random.default_rng(0)
    before: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        # Biases begin with 0, which no factor moves.
        before[name] = generator.uniform(0.5, 1.5, parameter.shape).astype(np.float32)
        parameter.set_value(before[name])
    optimizer.set_lr(rate)
    loss = sum(parameter.sum() * 0.0 for parameter in model.parameters() if not parameter.stop_gradient)
    loss.backward()
    optimizer.step()
    moved = set()
    for name, parameter in model.named_parameters():
        after = parameter.numpy()
        if np.array_equal(after, before[name]):
            continue
        moved.add(name)
        np.testing.assert_allclose(after, before[name] * (1 - rate * decay), rtol=1e-6, err_msg=name)
    assert moved == {
        name for name in before if not spared_by_name(name) and not name.endswith(("._mean", "._variance"))
    }


def test_every_size_decays_by_its_recipe_s_coefficient() -> None:
    """Source: Regularizer.coeff in PaddleClas's configs/ImageNet/PPLCNet/PPLCNet_x*.yaml."""
    assert {size: make_plan(a_config(model=size), CPUS, DIGITS, {}).training.weight_decay for size in models.SIZES} == {
        "x0_25": 3e-5,
        "x0_35": 3e-5,
        "x0_5": 3e-5,
        "x0_75": 3e-5,
        "x1_0": 3e-5,
        "x1_5": 4e-5,
        "x2_0": 4e-5,
        "x2_5": 4e-5,
    }


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


class GivenLogits(nn.Layer):
    """A network whose logits are what it gets as images, times a parameter that stays 1."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, images: Any) -> Any:
        return images * self.one


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.1, 0.3])
def test_the_loss_is_the_published_one_with_smoothed_labels(epsilon: float, classes: int) -> None:
    """PaddleClas's CELoss(epsilon) is the mean of -sum(target x log softmax), target (1 - e) onehot + e / classes."""
    generator = np.random.default_rng(classes)
    logits = generator.normal(0, 3, (16, classes)).astype(np.float32)
    labels = generator.integers(0, classes, 16)
    model = GivenLogits()
    optimizer = paddle.optimizer.Momentum(learning_rate=0.0, parameters=model.parameters())
    train = TrainingStep(model, optimizer, Schedule(1.0, 2, 4), epsilon, seed=(0,))
    loss = float(train(Batch(paddle.to_tensor(logits), paddle.to_tensor(labels), 16), lambda: None))

    exact = logits.astype(np.float64)
    log_softmax = exact - np.log(np.exp(exact).sum(1, keepdims=True))
    targets = (1 - epsilon) * np.eye(classes)[labels] + epsilon / classes
    assert loss == pytest.approx(-(targets * log_softmax).sum(1).mean(), rel=1e-6)
    # As PaddleClas writes it (ppcls/loss/celoss.py), which without an epsilon goes another way.
    one_hot = nn.functional.one_hot(paddle.to_tensor(labels), classes)
    smoothed = nn.functional.label_smooth(one_hot, epsilon=epsilon)
    theirs = -(nn.functional.log_softmax(paddle.to_tensor(logits)) * smoothed).sum(-1).mean()
    assert loss == pytest.approx(float(theirs), rel=1e-6)


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

    def mark_split() -> None:
        """Whether there is a gradient yet, and whether the weights are still the old ones."""
        gradient = model.logits.grad
        there = gradient is not None and bool((gradient.numpy() != 0).any())
        laps.append((there, np.array_equal(model.logits.numpy(), logits)))

    assert float(train(batch, mark_split)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(model.logits.numpy(), logits)  # the first step's learning rate is 0
    train(batch, mark_split)
    # Behind the forward pass there is no gradient, behind the backward pass there is, and no weight has moved.
    assert laps == [(False, True), (True, True)] * 2
    assert (train.optimizer_steps, optimizer.get_lr()) == (2, 0.5)
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


def dropped(seed: tuple[int, ...], optimizer_steps: int = 0, steps: int = 3) -> list[list[float]]:
    """What dropout leaves in steps from a number of updates on, whatever the generator has done before."""
    model = Drops()
    optimizer = paddle.optimizer.Momentum(learning_rate=0.0, parameters=model.parameters())
    train = TrainingStep(model, optimizer, Schedule(1.0, 2, 9), 0.1, seed, optimizer_steps)
    for _ in range(steps):
        paddle.rand([7])
        train(Batch(paddle.zeros([2, 1]), paddle.to_tensor([0, 3], dtype="int64"), 2), lambda: None)
    return model.left


def test_a_step_s_random_numbers_come_from_its_seed_and_number_alone() -> None:
    whole = dropped((3, 1))
    assert dropped((3, 1)) == whole
    assert dropped((3, 1), optimizer_steps=1, steps=2) == whole[1:]
    others = [*dropped((3, 2)), *dropped((4, 1))]
    assert len({tuple(left) for left in [*whole, *others]}) == 9
