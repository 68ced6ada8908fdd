"""One rank of a run, started by Paddle's launcher with the path of the run's record."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paddle

import models
from harness import recipe
from harness.config import RunConfig
from harness.device import Clock, local_rank, open_device
from harness.errors import DATA_EXIT_CODE, BenchError, InvariantError, TrainingError
from harness.evaluation import Accuracy, Evaluator
from harness.launch import leave_failure
from harness.loop import GlobalStep, never, run_steps
from harness.plan import RunPlan, facts_of
from harness.ranks import Ranks, join
from harness.record import RunFiles, RunRecord, read_record
from harness.recorder import NoRecorder, Recorder, open_recorder
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.graphs import PipelineSettings, evaluation_graph, training_graph
from pipelines.sharding import EvalShard
from pipelines.source import DaliSource


@dataclass(frozen=True, slots=True)
class Trainer:
    """What one rank trains with."""

    plan: RunPlan
    ranks: Ranks
    clock: Clock
    model: Any
    train: Callable[[Any], Any]
    schedule: recipe.Schedule
    source: DaliSource
    recorder: Recorder

    def run(
        self,
        first_step: int,
        epoch: int | None,
        done: Callable[[GlobalStep], bool] = never,
        most_steps: int | None = None,
    ) -> list[GlobalStep]:
        """Train until done or for most_steps (see `run_steps`); the steps made. first_step is the first one's index."""
        made: list[GlobalStep] = []

        def emit(step: GlobalStep) -> None:
            made.append(step)
            number = first_step + step.index
            rate = self.schedule.at(number)
            self.recorder.step(
                step,
                self.clock.started_at,
                phase="train",
                epoch=epoch,
                step=number + 1,
                learning_rate=rate,
                warmup=number < self.plan.warmup_steps,
            )
            if not math.isfinite(step.loss):
                raise TrainingError(
                    f"the loss is {step.loss} at step {number + 1}, learning rate {rate:.6g}",
                    "Try a lower --learning-rate, or a longer --warmup-epochs.",
                )

        self.model.train()
        run_steps(self.source, self.train, self.clock, self.ranks, emit, done, most_steps)
        return made


def run_worker(record: RunRecord, folder: Path) -> None:
    """Do this rank's part of the run."""
    plan, config = record.plan, record.config
    clock, device_id = open_device(plan.device, local_rank())
    ranks = join()
    if ranks.world_size != plan.ranks:
        raise InvariantError(f"{ranks.world_size} ranks train, {plan.ranks} were planned")
    dataset = open_dataset(plan.data.source, config.classes)
    found = facts_of(dataset, plan.data.source)
    if replace(found, augmentation=plan.data.augmentation) != plan.data:
        raise DataError(
            f"{plan.data.name} has changed since the run was planned: {found.train_images:,} training and"
            f" {found.val_images:,} validation images in {found.num_classes} classes",
            "Start again once nothing writes to it.",
        )
    settings = pipeline_settings(config, plan, device_id)
    paddle.seed(config.seed)
    model = models.build(plan.model, plan.data.num_classes)
    # From here on each rank draws its own dropout.
    paddle.seed(config.seed + 1 + ranks.rank)
    schedule = recipe.Schedule(
        plan.learning_rate, plan.warmup_epochs * plan.steps_per_epoch, plan.epochs * plan.steps_per_epoch
    )
    optimizer = recipe.make_optimizer(model, config.momentum, plan.weight_decay)
    parallel = ranks.parallel(model)
    with _recorder(record, folder, ranks) as recorder:
        trainer = Trainer(
            plan,
            ranks,
            clock,
            parallel,
            recipe.training_step(parallel, optimizer, schedule, config.label_smoothing),
            schedule,
            DaliSource(
                training_graph(dataset.train, ranks.rank, ranks.world_size, plan.data.augmentation, settings),
                [plan.batch_size],
            ),
            recorder,
        )
        if config.throughput_only:
            trainer.run(0, None, done=window_end(plan.warmup_steps, config.max_seconds))
        else:
            _train_epochs(trainer, Validation(model, dataset, settings, ranks, clock, recorder))


def pipeline_settings(config: RunConfig, plan: RunPlan, device_id: int | None) -> PipelineSettings:
    """How a rank's DALI graphs run; device_id is the CUDA index, None on a CPU."""
    return PipelineSettings(
        batch_size=plan.batch_size,
        image_size=plan.image_size,
        device=plan.device,
        device_id=device_id,
        threads=plan.decode_threads,
        seed=config.seed,
        prefetch=config.prefetch,
        reader_prefetch=config.reader_prefetch,
        hw_decoder_load=config.hw_decoder_load,
        width_hint=config.width_hint,
        height_hint=config.height_hint,
    )


def window_end(warmup_steps: int, seconds: float) -> Callable[[GlobalStep], bool]:
    """Whether a step is the last of a measured window of that length behind the warm-up; it holds one at least."""
    begin = 0.0

    def done(step: GlobalStep) -> bool:
        nonlocal begin
        if step.index < warmup_steps:
            begin = step.end_seconds
            return False
        return step.end_seconds - begin >= seconds

    return done


class Validation:
    """The validation images, read once an epoch."""

    def __init__(
        self,
        model: Any,
        dataset: Dataset,
        settings: PipelineSettings,
        ranks: Ranks,
        clock: Clock,
        recorder: Recorder,
    ) -> None:
        assert dataset.val is not None
        shard = EvalShard(len(dataset.val), ranks.rank, ranks.world_size, settings.batch_size)
        self._steps = shard.steps
        self._source = DaliSource(
            evaluation_graph(dataset.val, shard.indices(), settings), [shard.real(step) for step in range(shard.steps)]
        )
        self._model, self._ranks, self._clock, self._recorder = model, ranks, clock, recorder
        self._made = 0

    def run(self, epoch: int) -> tuple[Accuracy, float]:
        """The model's accuracy, and the seconds of the evaluation's steps."""
        self._ranks.average_batch_norm(self._model)
        self._model.eval()
        evaluator = Evaluator(self._model)
        seconds = 0.0

        def emit(step: GlobalStep) -> None:
            nonlocal seconds
            seconds += step.step_seconds
            self._made += 1
            self._recorder.step(
                step, self._clock.started_at, phase="evaluate", epoch=epoch, step=self._made, warmup=False
            )

        run_steps(self._source, evaluator.step, self._clock, self._ranks, emit, most_steps=self._steps)
        return evaluator.result(self._ranks), seconds


def _train_epochs(trainer: Trainer, validation: Validation) -> None:
    plan = trainer.plan
    for epoch in range(1, plan.epochs + 1):
        first = (epoch - 1) * plan.steps_per_epoch
        steps = trainer.run(first, epoch, most_steps=plan.steps_per_epoch)
        accuracy, evaluation_seconds = validation.run(epoch)
        images = sum(step.images for step in steps)
        seconds = sum(step.step_seconds for step in steps)
        trainer.recorder.epoch(
            epoch=epoch,
            images=images,
            seconds=seconds,
            fps=images / seconds,
            train_loss=sum(step.loss * step.images for step in steps) / images,
            val_loss=accuracy.loss,
            top1=accuracy.top1,
            top5=accuracy.top5,
            learning_rate=trainer.schedule.at(first + plan.steps_per_epoch - 1),
            evaluation_seconds=evaluation_seconds,
        )


def _recorder(record: RunRecord, folder: Path, ranks: Ranks) -> AbstractContextManager[Recorder]:
    if ranks.rank:
        return nullcontext(NoRecorder())
    return open_recorder(
        RunFiles(folder, record.run), record.plan.device == "gpu", record.config.telemetry_interval, os.environ
    )


def run_rank(record_path: Path) -> int:
    """Run this process's rank; an error a person can act on is left for the launching process to tell."""
    try:
        run_worker(read_record(record_path), record_path.parent)
    except (BenchError, DataError) as error:
        code = error.exit_code if isinstance(error, BenchError) else DATA_EXIT_CODE
        leave_failure(os.environ, code, error.message, error.cure)
        print(f"error: {error.message}", file=sys.stderr)
        return code
    return 0
