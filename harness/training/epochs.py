"""A run of epochs: training, evaluation and checkpoints, from the start or from a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.artifacts.checkpoint import write_checkpoint
from harness.artifacts.schema import CHECKPOINT, EVALUATE, TRAIN
from harness.errors import InterruptedRunError, TrainingError
from harness.plan.effective_settings import check_settings
from harness.training.evaluation import Accuracy, Evaluator
from harness.training.loading.sources import evaluation_source
from harness.training.loop import GlobalStep, pause, run_steps
from harness.training.recorder import Recorder
from harness.training.state import Progress, gather_state
from harness.training.stop_signal import StopRequest
from harness.training.trainer import Trainer
from models.notes import Note
from pipelines.batch import RankSource
from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT
from pipelines.sampling import EvaluationOrder
from pipelines.storage import Storage


def train_epochs(trainer: Trainer, recorder: Recorder, progress: Progress, saver: Saver, stop: StopRequest) -> None:
    """Run the remaining epochs: train, evaluate on the validation images, and save a checkpoint after each.

    Further checkpoints are saved whenever one is due. Raises InterruptedRunError when the run was asked to stop, after
    its state was saved.
    """
    plan, ranks = trainer.plan, trainer.ranks
    training, phase, validation = plan.training, trainer.phase(TRAIN), Validation(trainer, recorder, progress)
    saver.start()
    while progress.epoch <= training.epochs:
        if progress.steps < training.steps_per_epoch:
            if progress.steps == 0:
                trainer.leave_out(trainer.bad.of(TRAIN_SPLIT))
            progress.add(
                trainer.run(
                    phase,
                    recorder,
                    lambda _: stop.requested or saver.due(),
                    training.steps_per_epoch - progress.steps,
                    epoch=progress.epoch,
                )
            )
            if progress.steps == training.steps_per_epoch:
                # Here and not in the evaluation, which may have to be repeated: averages of averages differ.
                ranks.agree_on_batch_norm(trainer.model, training.bn_stats)
        else:
            evaluation = validation.run(progress.epoch, lambda _: stop.requested)
            if evaluation is not None:
                if progress.epoch == training.epochs:
                    _note_only_answer(trainer, evaluation.accuracy)
                row = epoch_row(progress, evaluation, trainer)
                recorder.epoch(**row)
                progress.next_epoch(row, validation.steps_made)
        stopping = ranks.any(stop.requested)
        if stopping or progress.steps == 0 or ranks.any(saver.due()):
            saver.save(progress)
        if stopping and progress.epoch <= training.epochs:
            raise InterruptedRunError(
                f"interrupted after step {trainer.train.optimizer_steps:,} of {plan.total_steps:,}"
            )


def evaluate_alone(trainer: Trainer, recorder: Recorder, stop: StopRequest) -> None:
    """Evaluate the weights as they are, and record their accuracy as epoch 0.

    Raises InterruptedRunError, InvariantError, and TrainingError for weights whose outputs are not finite.
    """
    validation = Validation(trainer, recorder, Progress())
    evaluation = validation.run(0, lambda _: stop.requested)
    if evaluation is None:
        raise InterruptedRunError("interrupted", "An evaluation can't be resumed: start it again.")
    logits_dtype = evaluation.logits_dtype or trainer.plan.training.dtype
    trainer.effective_settings = {**trainer.read_settings(evaluation.settings), "logits": logits_dtype}
    check_settings(trainer.plan, trainer.effective_settings)
    if not math.isfinite(evaluation.accuracy.loss):
        raise TrainingError(
            f"the loss on the validation images is {evaluation.accuracy.loss}: the network's outputs are not finite",
            "Check where the weights come from; with --amp, try without it.",
        )
    _note_only_answer(trainer, evaluation.accuracy)
    recorder.epoch(epoch=0, **_evaluated(evaluation))


def _note_only_answer(trainer: Trainer, accuracy: Accuracy) -> None:
    """Say so if every validation image was taken for the same class, which says nothing about the images."""
    if accuracy.only_answer is not None and accuracy.images > 1 and trainer.ranks.rank == 0:
        trainer.patience.say(
            Note(
                f"all {accuracy.images:,} validation images were taken for class {accuracy.only_answer}: top-1 is that"
                " class's share of them",
                "Train for longer (--epochs), or with a lower --learning-rate; check the labels.",
            )
        )


def epoch_row(progress: Progress, evaluation: Evaluation, trainer: Trainer) -> dict[str, Any]:
    """The row of epochs.csv for an epoch that was trained and evaluated."""
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
    """Saves a run's checkpoints, and decides when one is due: --checkpoint-minutes after the previous one."""

    trainer: Trainer
    recorder: Recorder
    folder: Path
    saved_at: float = 0.0

    def start(self) -> None:
        """Start to count the minutes."""
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether a checkpoint is due, by rank 0's clock; False on the other ranks."""
        trainer = self.trainer
        return (
            trainer.ranks.rank == 0
            and time.monotonic() - self.saved_at >= 60 * trainer.plan.operation.checkpoint_minutes
        )

    def save(self, progress: Progress) -> None:
        """Save the state after the last step on rank 0's disk; return on every rank when it is there.

        Raises TrainingError when a weight is not finite, MachineError when the checkpoint can't be written.
        """
        trainer, recorder = self.trainer, self.recorder
        trainer.clock.start()
        checkpoint = gather_state(trainer, progress, recorder.rows())
        if trainer.ranks.rank == 0:
            # The checkpoint counts these rows, so they must be on the disk before it.
            recorder.sync()
            write_checkpoint(self.folder, checkpoint)
        trainer.ranks.barrier()
        seconds = trainer.clock.host_seconds()
        # Not part of the saved state: rows after a checkpoint are removed when the run is resumed from it.
        trainer.segments += 1
        # After an epoch's end the progress is that of the next one, which has no step yet.
        epoch = progress.epoch if progress.steps else progress.epoch - 1
        recorder.step(pause(seconds), trainer.clock.started_at, phase=CHECKPOINT, segment=trainer.segments, epoch=epoch)
        self.start()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An epoch's accuracy, and the seconds of its evaluation's steps.

    logits_dtype is the number format of the network's output; empty on a rank that had no valid image. settings are
    those that the pipeline reported.
    """

    accuracy: Accuracy
    seconds: float
    logits_dtype: str
    settings: Mapping[str, Any]


class Validation:
    """The validation images, read once an epoch; steps_made counts the run's evaluation steps.

    Each evaluation has its own pipeline, so that its buffers take no memory while the model is trained.
    """

    def __init__(self, trainer: Trainer, recorder: Recorder, progress: Progress) -> None:
        self._images, ranks = trainer.splits[VAL_SPLIT], trainer.ranks
        self._order = EvaluationOrder(len(self._images), ranks.rank, ranks.world_size, trainer.settings.batch_size)
        self.steps_made = progress.evaluated
        self._trainer, self._recorder = trainer, recorder
        self._storage = Storage(self._images, trainer.patience, trainer.bad.of(VAL_SPLIT))

    def run(self, epoch: int, done: Callable[[GlobalStep], bool]) -> Evaluation | None:
        """Evaluate the model. Returns None when done ended the evaluation early; its rows are then removed."""
        source = evaluation_source(self._trainer, self._order, self._storage)
        evaluation = self._run(source, epoch, done)
        # Not after an error: a device that failed may never finish its copies.
        source.close()
        return evaluation

    def _run(self, source: RankSource, epoch: int, done: Callable[[GlobalStep], bool]) -> Evaluation | None:
        trainer, recorder = self._trainer, self._recorder
        rows, segments, steps_before = recorder.rows(), trainer.segments, self.steps_made
        trainer.model.eval()
        trainer.segments += 1
        evaluator = Evaluator(trainer.model, trainer.train.precision)
        seconds = 0.0

        def emit(step: GlobalStep) -> None:
            nonlocal seconds
            trainer.startup.reach_first_step(step, trainer.clock.started_at)
            seconds += step.step_seconds
            self.steps_made += 1
            recorder.step(
                step,
                trainer.clock.started_at,
                phase=EVALUATE,
                segment=trainer.segments,
                epoch=epoch,
                step=self.steps_made,
            )

        run_steps(
            source,
            evaluator.step,
            trainer.clock,
            trainer.ranks,
            emit,
            done,
            self._order.steps,
            trainer.bad,
            at_edge=recorder.read_energy,
            away_seconds=lambda: trainer.patience.waited_seconds,
        )
        if self.steps_made - steps_before < self._order.steps:
            recorder.cut(rows)
            trainer.segments, self.steps_made = segments, steps_before
            return None
        return Evaluation(evaluator.result(trainer.ranks), seconds, evaluator.logits_dtype, source.settings())
