"""A run of epochs: training, evaluation and checkpoints in turn, from the start or from where a checkpoint was made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nvidia.dali.pipeline import Pipeline

from harness.artifacts.checkpoint import write_checkpoint
from harness.artifacts.schema import CHECKPOINT, EVALUATE, TRAIN
from harness.errors import InterruptedRunError, TrainingError
from harness.plan.effective_settings import check_settings
from harness.training.evaluation import Accuracy, Evaluator
from harness.training.loop import GlobalStep, pause, run_steps
from harness.training.recorder import Recorder
from harness.training.state import Progress, gather_state
from harness.training.stop_signal import StopRequest
from harness.training.trainer import Trainer
from pipelines.dali_graphs import Feed, evaluation_graph
from pipelines.dataset import TRAIN_SPLIT, VAL_SPLIT
from pipelines.sampling import EvaluationOrder, Position
from pipelines.source import DaliSource, SourceState


def train_epochs(trainer: Trainer, recorder: Recorder, progress: Progress, saver: Saver, stop: StopRequest) -> None:
    """What is left of every epoch: training, then the accuracy on the validation images, then a checkpoint.

    Another checkpoint is made wherever one is due. Raises InterruptedRunError when the run was asked to stop, once its
    state is saved.
    """
    plan, ranks = trainer.plan, trainer.ranks
    training, phase, validation = plan.training, trainer.phase(TRAIN), Validation(trainer, recorder, progress)
    saver.start()
    while progress.epoch <= training.epochs:
        if progress.steps < training.steps_per_epoch:
            if progress.steps == 0:
                trainer.source.leave_out(trainer.bad.of(TRAIN_SPLIT))
            progress.add(
                trainer.run(
                    phase,
                    recorder,
                    lambda _: stop.made or saver.due(),
                    training.steps_per_epoch - progress.steps,
                    epoch=progress.epoch,
                )
            )
            if progress.steps == training.steps_per_epoch:
                # Here rather than at the evaluation, which may have to be begun again: averages of averages differ.
                ranks.agree_on_batch_norm(trainer.model, training.bn_stats)
        else:
            evaluation = validation.run(progress.epoch, lambda _: stop.made)
            if evaluation is not None:
                row = epoch_row(progress, evaluation, trainer)
                recorder.epoch(**row)
                progress.next_epoch(row, validation.made)
        stopping = ranks.any(stop.made)
        if stopping or progress.steps == 0 or ranks.any(saver.due()):
            saver.save(progress)
        if stopping and progress.epoch <= training.epochs:
            raise InterruptedRunError(
                f"interrupted after step {trainer.train.optimizer_steps:,} of {plan.total_steps:,}"
            )


def evaluate_alone(trainer: Trainer, recorder: Recorder, stop: StopRequest) -> None:
    """The accuracy of the weights as they are, recorded as epoch 0.

    Raises InterruptedRunError, InvariantError, and TrainingError for weights whose answers are no numbers.
    """
    validation = Validation(trainer, recorder, Progress())
    evaluation = validation.run(0, lambda _: stop.made)
    if evaluation is None:
        raise InterruptedRunError("interrupted", "An evaluation can't be resumed: start it again.")
    logits_dtype = evaluation.logits_dtype or trainer.plan.training.dtype
    trainer.effective_settings = {**trainer.read_settings(validation.source), "logits": logits_dtype}
    check_settings(trainer.plan, trainer.effective_settings)
    if not math.isfinite(evaluation.accuracy.loss):
        raise TrainingError(
            f"the loss on the validation images is {evaluation.accuracy.loss}: the network's answers are no numbers",
            "See where the weights are from; with --amp, try without.",
        )
    recorder.epoch(epoch=0, **_evaluated(evaluation))


def epoch_row(progress: Progress, evaluation: Evaluation, trainer: Trainer) -> dict[str, Any]:
    """The row of epochs.csv of an epoch that was trained and evaluated."""
    return {
        "epoch": progress.epoch,
        "images": progress.images,
        "seconds": progress.seconds,
        "fps": progress.images / progress.seconds,
        "train_loss": progress.loss_sum / progress.images,
        "learning_rate": trainer.train.schedule.at(trainer.train.optimizer_steps - 1),
        **_evaluated(evaluation),
    }


def _evaluated(evaluation: Evaluation) -> dict[str, Any]:
    accuracy = evaluation.accuracy
    return {
        "val_loss": accuracy.loss,
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "val_images": accuracy.images,
        "evaluation_seconds": evaluation.seconds,
    }


@dataclass(slots=True)
class Saver:
    """Makes a run's checkpoints, and says when one is due: --checkpoint-minutes behind the one before."""

    trainer: Trainer
    recorder: Recorder
    folder: Path
    saved_at: float = 0.0

    def start(self) -> None:
        """Count the minutes from here."""
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether it is time, by rank 0's clock."""
        trainer = self.trainer
        return (
            trainer.ranks.rank == 0
            and time.monotonic() - self.saved_at >= 60 * trainer.plan.operation.checkpoint_minutes
        )

    def save(self, progress: Progress) -> None:
        """Save the state behind the last step, on rank 0's disk, and return on every rank once it is there.

        Raises TrainingError when it isn't worth saving, MachineError when it can't be written.
        """
        trainer, recorder = self.trainer, self.recorder
        trainer.clock.start()
        checkpoint = gather_state(trainer, progress, recorder.rows())
        if trainer.ranks.rank == 0:
            # The rows it counts must not be lost where it isn't.
            recorder.sync()
            write_checkpoint(self.folder, checkpoint)
        trainer.ranks.barrier()
        seconds = trainer.clock.host_seconds()
        # Not in the state: rows behind a checkpoint are cut off when it is gone on from.
        trainer.segments += 1
        recorder.step(
            pause(seconds), trainer.clock.started_at, phase=CHECKPOINT, segment=trainer.segments, epoch=progress.epoch
        )
        self.start()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An epoch's accuracy, and the seconds of its evaluation's steps.

    logits_dtype is what the network put out; empty on a rank without an image of its own.
    """

    accuracy: Accuracy
    seconds: float
    logits_dtype: str


class Validation:
    """The validation images, read once an epoch; made counts the run's steps over them."""

    def __init__(self, trainer: Trainer, recorder: Recorder, progress: Progress) -> None:
        dataset, ranks, settings = trainer.dataset, trainer.ranks, trainer.settings
        assert dataset.val is not None
        order = EvaluationOrder(len(dataset.val), ranks.rank, ranks.world_size, settings.batch_size)

        def graph(feed: Feed, _: int, __: bytes | None) -> Pipeline:
            return evaluation_graph(feed, settings)

        self.made = progress.evaluated
        self._steps = order.steps
        self.source = DaliSource(
            dataset.val,
            order,
            graph,
            settings,
            partial(trainer.bad.report, VAL_SPLIT, dataset.val),
            start=SourceState(Position(progress.epoch - 1), trainer.bad.of(VAL_SPLIT)),
        )
        self._trainer, self._recorder = trainer, recorder

    def run(self, epoch: int, done: Callable[[GlobalStep], bool]) -> Evaluation | None:
        """The model's accuracy; None when done ended it early, after which the source is of no more use.

        The tables then have nothing of it.
        """
        trainer, recorder = self._trainer, self._recorder
        rows, segments, made = recorder.rows(), trainer.segments, self.made
        trainer.model.eval()
        trainer.segments += 1
        self.source.leave_out(trainer.bad.of(VAL_SPLIT))
        evaluator = Evaluator(trainer.model, trainer.train.precision)
        seconds = 0.0

        def emit(step: GlobalStep) -> None:
            nonlocal seconds
            seconds += step.step_seconds
            self.made += 1
            recorder.step(
                step, trainer.clock.started_at, phase=EVALUATE, segment=trainer.segments, epoch=epoch, step=self.made
            )

        run_steps(self.source, evaluator.step, trainer.clock, trainer.ranks, emit, done, self._steps, trainer.bad)
        if self.made - made < self._steps:
            recorder.cut(rows)
            trainer.segments, self.made = segments, made
            return None
        return Evaluation(evaluator.result(trainer.ranks), seconds, evaluator.logits_dtype)
