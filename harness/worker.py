"""One rank of a run, started by Paddle's launcher with the path of the run's record: what each mode runs."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from harness.errors import DATA_EXIT_CODE, BenchError
from harness.evaluation import Accuracy, Evaluator
from harness.launch import leave_failure
from harness.loop import GlobalStep, run_steps
from harness.phases import Done, Limits, Phase, Settles, interleave
from harness.record import RunFiles, RunRecord, read_record, write_record
from harness.recorder import NoRecorder, Recorder, open_recorder
from harness.tables.schema import EVALUATE, TRAIN
from harness.trainer import Trainer, open_trainer, throughput_phases
from pipelines.errors import DataError
from pipelines.graphs import evaluation_graph
from pipelines.sharding import EvalShard
from pipelines.source import DaliSource


def run_worker(record: RunRecord, folder: Path) -> None:
    """Do this rank's part of the run."""
    trainer = open_trainer(record.config, record.plan)
    files = RunFiles(folder, record.run)
    with _recorder(record, files, trainer.ranks.rank) as recorder:
        if record.config.throughput_only:
            measure_throughput(trainer, recorder)
        else:
            train_epochs(trainer, recorder)
    if trainer.ranks.rank == 0:
        write_record(files.record, replace(read_record(files.record), read_back=trainer.read_back()))


def measure_throughput(trainer: Trainer, recorder: Recorder) -> None:
    """Every phase in turn until the throughput is precise or time is up."""
    plan, config = trainer.plan, trainer.config

    def run_block(phase: Phase, done: Done, settles: Settles) -> list[GlobalStep]:
        return trainer.run(phase, recorder, done, settles=settles)

    interleave(
        [trainer.phase(name) for name in throughput_phases(plan.ranks)],
        run_block,
        Limits(config.max_seconds, config.precision, plan.warmup_steps, config.warmup),
        trainer.ranks.agree,
        config.prefetch,
    )


def train_epochs(trainer: Trainer, recorder: Recorder) -> None:
    """Every epoch: training, then the accuracy on the validation images."""
    plan = trainer.plan
    training, validation = trainer.phase(TRAIN), Validation(trainer, recorder)
    for epoch in range(1, plan.epochs + 1):
        steps = trainer.run(training, recorder, most_steps=plan.steps_per_epoch, epoch=epoch)
        accuracy, evaluation_seconds = validation.run(epoch)
        images = sum(step.images for step in steps)
        seconds = sum(step.step_seconds for step in steps)
        recorder.epoch(
            epoch=epoch,
            images=images,
            seconds=seconds,
            fps=images / seconds,
            train_loss=sum(step.loss * step.images for step in steps) / images,
            val_loss=accuracy.loss,
            top1=accuracy.top1,
            top5=accuracy.top5,
            learning_rate=trainer.schedule.at(epoch * plan.steps_per_epoch - 1),
            evaluation_seconds=evaluation_seconds,
        )


class Validation:
    """The validation images, read once an epoch."""

    def __init__(self, trainer: Trainer, recorder: Recorder) -> None:
        dataset, ranks, settings = trainer.dataset, trainer.ranks, trainer.settings
        assert dataset.val is not None
        shard = EvalShard(len(dataset.val), ranks.rank, ranks.world_size, settings.batch_size)
        self._steps = shard.steps
        self._source = DaliSource(
            evaluation_graph(dataset.val, shard.indices(), settings), [shard.real(step) for step in range(shard.steps)]
        )
        self._trainer, self._recorder = trainer, recorder
        self._made = 0

    def run(self, epoch: int) -> tuple[Accuracy, float]:
        """The model's accuracy, and the seconds of the evaluation's steps."""
        trainer = self._trainer
        trainer.ranks.average_batch_norm(trainer.model)
        trainer.model.eval()
        trainer.blocks += 1
        evaluator = Evaluator(trainer.model)
        seconds = 0.0

        def emit(step: GlobalStep) -> None:
            nonlocal seconds
            seconds += step.step_seconds
            self._made += 1
            self._recorder.step(
                step, trainer.clock.started_at, phase=EVALUATE, block=trainer.blocks, epoch=epoch, step=self._made
            )

        run_steps(self._source, evaluator.step, trainer.clock, trainer.ranks, emit, most_steps=self._steps)
        return evaluator.result(trainer.ranks), seconds


def _recorder(record: RunRecord, files: RunFiles, rank: int) -> AbstractContextManager[Recorder]:
    if rank:
        return nullcontext(NoRecorder())
    return open_recorder(files, record.plan.device == "gpu", record.config.telemetry_interval, os.environ)


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
