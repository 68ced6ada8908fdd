"""One rank of a run, started by Paddle's launcher with the path of the run's record: what each mode runs."""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from harness.artifacts.bad_image import TRAIN_SPLIT, BadImage
from harness.artifacts.checkpoint import read_checkpoint
from harness.artifacts.record import RunFiles, RunRecord, read_record, write_record
from harness.errors import InterruptedRunError
from harness.launch import watchdog
from harness.launch.failures import memory_error
from harness.launch.memory import out_of_memory
from harness.launch.rank_files import RankFiles, leave_failure
from harness.machine.device import local_rank, open_device
from harness.plan.nodes import check_signatures, run_signature
from harness.training.epochs import Saver, evaluate_alone, train_epochs
from harness.training.loop import GlobalStep
from harness.training.phases import Done, InTransition, Limits, Phase, interleave
from harness.training.ranks import join
from harness.training.recorder import NoRecorder, Recorder, open_recorder
from harness.training.state import Progress, restore_state
from harness.training.stop_signal import StopRequest
from harness.training.trainer import Trainer, open_trainer, throughput_phases
from models.errors import ActionableError


def run_worker(record: RunRecord, folder: Path) -> None:
    """Do this rank's part of the run."""
    rendezvous(record)
    # A checkpoint has weights of its own; the file they began with may be gone by then.
    trainer = open_trainer(record.config, record.plan, record.pretrained if record.checkpoint is None else None)
    files = RunFiles(folder, record.run)
    stop = StopRequest.on_signals()
    with _recorder(record, files, trainer.ranks.rank) as recorder:
        trainer.bad.record = recorder.bad_image
        progress = Progress()
        if record.config.trains_epochs:
            # Rank 0's word counts: another node need not have the files.
            mine = record.checkpoint if trainer.ranks.rank == 0 else None
            progress = restore_state(trainer, read_checkpoint(files.checkpoints, mine) if mine else None)
        if local_rank() == 0:
            # Each node has looked at its own files.
            trainer.bad.untold += [BadImage(**values) for values in record.bad_images]
        trainer.bad.share()
        if record.config.throughput_only:
            trainer.source.leave_out(trainer.bad.of(TRAIN_SPLIT))
            measure_throughput(trainer, recorder, stop)
        elif record.config.eval_only:
            evaluate_alone(trainer, recorder, stop)
        else:
            train_epochs(trainer, recorder, progress, Saver(trainer, recorder, files.checkpoints), stop)
    if trainer.ranks.rank == 0:
        write_record(files.record, replace(read_record(files.record), effective_settings=trainer.effective_settings))


def rendezvous(record: RunRecord) -> None:
    """Join the other ranks, those of other nodes included, and see that all mean the same run. Raises UsageError."""
    config, plan = record.config, record.plan
    if plan.nodes > 1:
        open_device(plan.device, local_rank())
        ranks = join()
        own = json.dumps({"node": config.node_rank, **run_signature(config, plan)})
        told = [json.loads(text) for text in ranks.exchange(own)]
        nodes = [values.pop("node") for values in told]
        try:
            check_signatures(told, nodes)
        finally:
            # A rank that ends closes its connections, over which another may still be told.
            with suppress(Exception):
                ranks.barrier()
        if (files := RankFiles.of(os.environ)) is not None:
            files.joined.touch()
        watchdog.progress()


def measure_throughput(trainer: Trainer, recorder: Recorder, stop: StopRequest) -> None:
    """Every phase in turn until the throughput is precise or time is up. Raises InterruptedRunError."""
    plan, config = trainer.plan, trainer.config

    def run_segment(phase: Phase, done: Done, in_transition: InTransition) -> list[GlobalStep]:
        steps = trainer.run(phase, recorder, lambda step: done(step) or stop.made, in_transition=in_transition)
        if trainer.ranks.any(stop.made):
            raise InterruptedRunError("interrupted", "A throughput run can't be gone on with: start it again.")
        return steps

    interleave(
        [trainer.phase(name) for name in throughput_phases(plan.ranks, config.bn_stats)],
        run_segment,
        Limits(config.max_seconds, config.target_ci, plan.warmup_steps, config.warmup),
        trainer.ranks.any,
        config.prefetch,
    )


def _recorder(record: RunRecord, files: RunFiles, rank: int) -> AbstractContextManager[Recorder]:
    if rank:
        return nullcontext(NoRecorder())
    return open_recorder(files, record.plan.device == "gpu", record.config.telemetry_interval, os.environ)


def run_rank(record_path: Path) -> int:
    """Run this process's rank; an error a person can act on is left for the launching process to report."""
    record, files = read_record(record_path), RankFiles.of(os.environ)
    # The other nodes may take longer to come than a step may.
    wait = record.config.rendezvous_timeout if record.plan.nodes > 1 else 0.0
    watchdog.arm(record.config.stall_timeout, None if files is None else files.pulse, first_seconds=wait)
    try:
        run_worker(record, record_path.parent)
    except Exception as error:
        said = out_of_memory(error)
        if said is not None:
            traceback.print_exc()
            failure: ActionableError = memory_error(record.plan, int(os.environ.get("PADDLE_TRAINER_ID", "0")), said)
        elif isinstance(error, ActionableError):
            failure = error
        else:
            raise
        if files is not None:
            leave_failure(files, failure)
        print(f"error: {failure.message}", file=sys.stderr)
        return failure.exit_code
    return 0
