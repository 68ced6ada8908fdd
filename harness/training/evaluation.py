"""Exact top-1 and top-5: every validation image counts once, whatever the ranks and the batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F  # noqa: N812
from paddle import nn

from harness.training.mixed_precision import MixedPrecision
from harness.training.ranks import FloatArray, Ranks
from pipelines.batch import Batch

TOP = 5


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of all validation images, and their mean cross-entropy (without label smoothing)."""

    images: int
    top1: float
    top5: float
    loss: float


class Evaluator:
    """Counts right answers batch by batch; give `step` to the loop, then ask `result`."""

    def __init__(self, model: nn.Layer, precision: MixedPrecision | None = None) -> None:
        self._model, self._precision = model, precision or MixedPrecision()
        self._counts: Any = paddle.zeros([4], dtype="float64")
        self.logits_dtype = ""

    @paddle.no_grad()  # type: ignore[untyped-decorator]
    def step(self, batch: Batch, _: Callable[[], None]) -> Any:
        """Count a batch; its mean loss over real images, a scalar tensor (None if it has none)."""
        if batch.valid_images == 0:
            return None
        with self._precision.forward():
            logits = self._model(batch.images)
        self.logits_dtype = str(logits.dtype).rpartition(".")[2]
        logits = logits[: batch.valid_images].astype("float32")
        labels = batch.labels[: batch.valid_images]
        losses = F.cross_entropy(logits, labels, reduction="none")
        best = paddle.topk(logits, min(TOP, logits.shape[1]))[1]
        right = best == labels.unsqueeze(1)
        counts = [right[:, 0].sum(), right.any(axis=1).sum(), losses.sum()]
        self._counts += paddle.stack(
            [paddle.full([], batch.valid_images, "float64"), *(c.astype("float64") for c in counts)]
        )
        return losses.mean()

    def counts(self) -> FloatArray:
        """What this rank has counted: images, right at 1, right within 5, sum of losses."""
        counted: FloatArray = self._counts.numpy()
        return counted

    def result(self, ranks: Ranks) -> Accuracy:
        """The accuracy over all ranks' images."""
        images, right1, right5, loss = np.sum(ranks.gather(self.counts()), axis=0)
        return Accuracy(int(images), right1 / images, right5 / images, loss / images)
