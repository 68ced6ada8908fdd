"""Top-1 and top-5 count every image once, whatever the number of ranks and the batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from harness.training.evaluation import Evaluator, cross_entropy
from harness.training.ranks import FloatArray, Ranks
from pipelines.batch import Batch
from pipelines.sampling import BEGINNING, EvaluationOrder, Position

IMAGES, CLASSES = 103, 10
RNG = np.random.default_rng(1)
LOGITS = RNG.standard_normal((IMAGES, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, IMAGES)
# Which rank of the label's logit each image has: the truth, by counting.
PLACE = (LOGITS[np.arange(IMAGES), LABELS][:, None] < LOGITS).sum(axis=1)
LOG_SOFTMAX = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
LOSS = -LOG_SOFTMAX[np.arange(IMAGES), LABELS].mean()


class Lookup(nn.Layer):
    """Gives the logits of the image whose number the input holds."""

    def forward(self, images: Any) -> Any:
        return paddle.to_tensor(LOGITS)[images.astype("int64")]


class SomeRanks(Ranks):
    """Stands for all ranks at once: gathers what each one's evaluator counted."""

    counted: list[FloatArray]

    def gather(self, values: FloatArray) -> FloatArray:
        return np.stack(self.counted)


def no_lap() -> None:
    pytest.fail("an evaluation has no backward pass to tell apart")


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 8, 64, 200])
def test_accuracy_is_exact_for_every_split(world_size: int, batch_size: int) -> None:
    evaluators = []
    for rank in range(world_size):
        order, position = EvaluationOrder(IMAGES, rank, world_size, batch_size), BEGINNING
        evaluator = Evaluator(Lookup())
        for _ in range(order.steps):
            drawn = order.draw(position, frozenset())
            position = drawn.next
            batch = Batch(paddle.to_tensor(drawn.indices), paddle.to_tensor(LABELS[drawn.indices]), drawn.valid_images)
            loss = evaluator.step(batch, no_lap)
            assert (loss is None) == (drawn.valid_images == 0)
        assert position == Position(epoch=1)
        evaluators.append(evaluator)
    ranks = SomeRanks(0, world_size)
    object.__setattr__(ranks, "counted", [evaluator.counts() for evaluator in evaluators])
    accuracy = evaluators[0].result(ranks)
    assert accuracy.images == IMAGES
    assert accuracy.top1 == (PLACE == 0).sum() / IMAGES
    assert accuracy.top5 == (PLACE < 5).sum() / IMAGES
    assert accuracy.loss == pytest.approx(LOSS, rel=1e-6)
    assert accuracy.only_answer is None


def test_with_fewer_than_five_classes_top5_is_among_all() -> None:
    evaluator = Evaluator(lambda images: images)
    logits = paddle.to_tensor([[0.0, 1.0, 2.0], [5.0, 1.0, 2.0]])
    evaluator.step(Batch(logits, paddle.to_tensor([0, 0]), 2), no_lap)
    accuracy = evaluator.result(Ranks(0, 1))
    assert (accuracy.top1, accuracy.top5) == (0.5, 1.0)


def test_the_loss_of_a_confident_mistake_is_not_cut() -> None:
    """Paddle's own cross-entropy has at most 64 for an image on a CPU."""
    logits = np.array([[0.0, 100.0, 5000.0], [1e-3, -70.0, 2.0], [1.0, 2.0, 3.0]], np.float32)
    labels = np.array([0, 1, 2])
    exact = logits.astype(np.float64)
    largest = exact.max(axis=1, keepdims=True)
    expected = np.log(np.exp(exact - largest).sum(axis=1)) + largest[:, 0] - exact[np.arange(3), labels]
    assert expected[0] == 5000.0
    found = cross_entropy(paddle.to_tensor(logits), paddle.to_tensor(labels)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("logits", [np.zeros((7, 3)), np.eye(3)[[2] * 7], -np.eye(3)[[0, 1] * 3 + [1]]])
def test_one_answer_for_all_images_is_noticed(logits: FloatArray) -> None:
    """What an adversary found: weights of zeros have the top-1 of one class's share, and look like any other's."""
    evaluators = [Evaluator(lambda images: images) for _ in range(4)]
    for evaluator, part in zip(evaluators, (slice(0, 3), slice(3, 6), slice(6, 7)), strict=False):
        images = paddle.to_tensor(logits[part].astype("float32"))
        evaluator.step(Batch(images, paddle.zeros([len(images)], "int64"), len(images)), no_lap)
    ranks = SomeRanks(0, 4)
    object.__setattr__(ranks, "counted", [evaluator.counts() for evaluator in evaluators])
    answers = {int(answer) for answer in logits.argmax(axis=1)}
    assert evaluators[0].result(ranks).only_answer == (answers.pop() if len(answers) == 1 else None)
