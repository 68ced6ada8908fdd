"""The whole state of a training run, gathered from all ranks into one checkpoint and restored to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import paddle
from paddle import nn

from harness.artifacts.bad_image import BadImage
from harness.artifacts.checkpoint import MODEL, STATISTICS, VELOCITY, Arrays, Checkpoint, of_rank
from harness.errors import TrainingError
from harness.training.loop import GlobalStep
from harness.training.trainer import Trainer, training_source
from pipelines.dataset import TRAIN_SPLIT
from pipelines.sampling import Position
from pipelines.source import SourceState

DALI = "dali"


@dataclass(slots=True)
class Progress:
    """How far a run of epochs has come, the same on every rank.

    epoch counts from 1; steps counts those made in this epoch, with their images, seconds and loss_sum (the sum of loss
    times images). When all steps are made, the ranks' batch-norm statistics have been averaged, and the epoch's
    evaluation is next. evaluated counts the run's evaluation steps. last is the last finished epoch's row of
    epochs.csv.
    """

    epoch: int = 1
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    evaluated: int = 0
    last: dict[str, Any] = field(default_factory=dict)

    def add(self, steps: Sequence[GlobalStep]) -> None:
        """Count steps of the epoch."""
        for step in steps:
            self.steps += 1
            self.images += step.images
            self.seconds += step.step_seconds
            self.loss_sum += step.loss * step.images

    def next_epoch(self, row: dict[str, Any], evaluated: int) -> None:
        """Continue with the next epoch; row is that of the finished one."""
        self.last, self.evaluated = row, evaluated
        self.epoch += 1
        self.steps = self.images = 0
        self.seconds = self.loss_sum = 0.0


def gather_state(trainer: Trainer, progress: Progress, rows: Mapping[str, int]) -> Checkpoint:
    """The state of all ranks, on each rank; rows are the numbers of rows in the run's tables that belong to it.

    Raises TrainingError when a weight is not finite, as training can't continue from it.
    """
    model, ranks = trainer.model, trainer.ranks
    masters = _masters(trainer)
    weights = {name: _full_precision(masters.get(parameter.name, parameter)) for name, parameter in _trained(model)}
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise TrainingError(
                f"the weights of {name} are not finite after step {trainer.train.optimizer_steps}, learning rate"
                f" {trainer.train.schedule.at(max(0, trainer.train.optimizer_steps - 1)):.6g}",
                "Try a lower --learning-rate, or a longer --lr-warmup-epochs.",
            )
    source = trainer.source.state()
    own = Checkpoint(
        {
            **{STATISTICS + name: buffer.numpy() for name, buffer in _statistics(model)},
            DALI: np.frombuffer(source.dali or b"", dtype=np.uint8),
        },
        {"position": asdict(source.position), "bad": sorted(source.bad)},
    )
    gathered = [Checkpoint.unpack(packed) for packed in ranks.gather_bytes(own.pack())]
    arrays: Arrays = {MODEL + name: values for name, values in weights.items()}
    arrays |= {VELOCITY + name: values for name, values in _velocities(trainer).items()}
    for rank, one in enumerate(gathered):
        arrays |= {of_rank(rank) + name: values for name, values in one.arrays.items()}
    values = {
        "progress": asdict(progress),
        "optimizer_steps": trainer.train.optimizer_steps,
        "segments": trainer.segments,
        "steps": trainer.steps,
        "rows": dict(rows),
        "ranks": ranks.world_size,
        "sources": [one.values for one in gathered],
        "bad_images": [asdict(image) for image in trainer.bad.known.values()],
        "loss_scaling": trainer.train.precision.state(),
        "effective_settings": trainer.effective_settings,
    }
    return Checkpoint(arrays, values)


def restore_state(trainer: Trainer, checkpoint: Checkpoint | None) -> Progress:
    """Restore rank 0's checkpoint on every rank. Returns the progress at which it was made, or that of the start.

    A different number of ranks can only resume at an epoch's start, where all ranks have the same statistics; the
    images then come in the new ranks' order, and the schedule continues at the same epoch.
    """
    ranks, model = trainer.ranks, trainer.model
    if not ranks.any(checkpoint is not None):
        return Progress()
    packed = ranks.broadcast(checkpoint.pack() if checkpoint is not None else b"")
    checkpoint = Checkpoint.unpack(packed)
    values, arrays = checkpoint.values, checkpoint.arrays
    progress = Progress(**values["progress"])
    same_ranks = values["ranks"] == ranks.world_size
    own = of_rank(ranks.rank if same_ranks else 0)
    for name, parameter in _trained(model):
        parameter.set_value(paddle.to_tensor(arrays[MODEL + name]).astype(parameter.dtype))
    for name, buffer in _statistics(model):
        buffer.set_value(arrays[own + STATISTICS + name])
    _set_optimizer(trainer, arrays)
    trainer.train.precision.restore(values["loss_scaling"])
    # The settings in force for the steps made so far, until they are read again.
    trainer.effective_settings = values["effective_settings"]
    trainer.segments, trainer.steps = values["segments"], dict(values["steps"])
    for described in values["bad_images"]:
        image = BadImage(**described)
        trainer.bad.known[image.split, image.index] = image
    if same_ranks:
        trainer.train.optimizer_steps = values["optimizer_steps"]
        source = values["sources"][ranks.rank]
        start = SourceState(
            Position(**source["position"]), frozenset(source["bad"]), arrays[own + DALI].tobytes() or None
        )
    else:
        trainer.train.optimizer_steps = (progress.epoch - 1) * trainer.plan.training.steps_per_epoch
        start = SourceState(Position(progress.epoch - 1), trainer.bad.of(TRAIN_SPLIT))
    trainer.source = training_source(
        trainer.dataset, trainer.plan, trainer.settings, ranks, trainer.bad, trainer.patience, start
    )
    return progress


def _trained(model: nn.Layer) -> Iterator[tuple[str, Any]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if not parameter.stop_gradient)


def _statistics(model: nn.Layer) -> Iterator[tuple[str, Any]]:
    """Batch norm's running mean and variance, which Paddle counts among the parameters; each rank has its own."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.stop_gradient)


def _full_precision(tensor: Any) -> Any:
    """The tensor's values as float32, which represents 16-bit values exactly."""
    return tensor.astype("float32").numpy()


def _masters(trainer: Trainer) -> dict[str, Any]:
    """The optimizer's float32 copies of 16-bit weights, by the parameter's name; empty if there are none."""
    masters: dict[str, Any] = trainer.train.optimizer.state_dict().get("master_weights", {})
    return masters


def _velocities(trainer: Trainer) -> dict[str, Any]:
    """The optimizer's momentum by the name of its weight in the model; empty before the first step."""
    saved = trainer.train.optimizer.state_dict()
    masters = _masters(trainer)
    return {
        name: saved[key].numpy()
        for name, parameter in _trained(trainer.model)
        if (key := _velocity_key(masters.get(parameter.name, parameter))) in saved
    }


def _set_optimizer(trainer: Trainer, arrays: Arrays) -> None:
    """Restore the optimizer's momentum, and its float32 copies of 16-bit weights."""
    saved: dict[str, Any] = {}
    masters: dict[str, Any] = {}
    for name, parameter in _trained(trainer.model):
        if VELOCITY + name not in arrays:
            continue
        owner = parameter
        if parameter.dtype != paddle.float32:
            owner = masters[parameter.name] = paddle.to_tensor(arrays[MODEL + name])
            owner.name = f"{parameter.name}_fp32_master_0"  # as Paddle names it
        saved[_velocity_key(owner)] = paddle.to_tensor(arrays[VELOCITY + name])
    if saved:
        trainer.train.optimizer.set_state_dict({**saved, **({"master_weights": masters} if masters else {})})


def _velocity_key(owner: Any) -> str:
    return f"{owner.name}_velocity_0"
