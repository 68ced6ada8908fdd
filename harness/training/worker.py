"""One rank of a run, started by Paddle's launcher with the path of the run's record: what each kind of run does."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from harness.artifacts.atomic import disk_errors
from harness.artifacts.bad_image import BadImage
from harness.artifacts.checkpoint import read_checkpoint
from harness.artifacts.record import RunFiles, RunRecord, read_record, write_record
from harness.errors import InterruptedRunError
from harness.launch import signals, watchdog
from harness.launch.failures import memory_error
from harness.launch.memory import out_of_memory
from harness.launch.rank_files import RankFiles, leave_failure
from harness.machine.device import local_rank, open_device
from harness.machine.device_kinds import device_kind
from harness.machine.placement.core_lists import parse_cores
from harness.machine.placement.pinning import pin
from harness.machine.placement.shares import PIN
from harness.machine.telemetry import telemetry_of
from harness.machine.tracing import TracedClock, open_trace
from harness.plan.kinds import EPOCHS, EVALUATION, THROUGHPUT, RunKind
from harness.plan.nodes import check_signatures, run_signature
from harness.training.epochs import Saver, evaluate_alone, train_epochs
from harness.training.loop import GlobalStep
from harness.training.phases import Done, InTransition, Phase, interleave
from harness.training.ranks import join
from harness.training.recorder import NoRecorder, Recorder, open_recorder, open_steps_recorder
from harness.training.startup import Startup, rank_startup
from harness.training.state import Progress, restore_state
from harness.training.stop_signal import StopRequest
from harness.training.trainer import Trainer, open_trainer, throughput_phases
from models.errors import ActionableError
from pipelines.layout import TRAIN_SPLIT


def run_worker(record: RunRecord, folder: Path, lists: Path, startup: Startup) -> None:
    """Do this rank's part of the run, with the lists of images in a folder; startup has its start's stages so far."""
    rendezvous(record)
    # A checkpoint contains the weights; the file that they began with may be gone by then.
    trainer = open_trainer(record.plan, lists, record.pretrained if record.checkpoint is None else None, startup)
    files = RunFiles(folder, record.run)
    stop = StopRequest.on_signals()
    trainer.patience.check = stop.check
    with _recorder(record, files, trainer.ranks.rank) as recorder:
        trainer.bad.record = recorder.bad_image
        # Rank 0 decides: another node may not have the files.
        name = record.checkpoint if trainer.ranks.rank == 0 else None
        progress = restore_state(trainer, None if name is None else read_checkpoint(files.checkpoints, name))
        if local_rank() == 0:
            # Each node has inspected its own files.
            trainer.bad.unshared += [BadImage(**values) for values in record.bad_images]
        known = trainer.bad.of(TRAIN_SPLIT)
        trainer.bad.share()
        # What was found before this start, such as a file that is missing now; the others know what they leave out.
        trainer.leave_out(trainer.bad.of(TRAIN_SPLIT) - known)
        window_end = RUNS[record.plan.kind](Session(trainer, recorder, progress, files, stop))
    if trainer.ranks.rank == 0:
        ended = replace(
            read_record(files.record).started_in(startup.seconds),
            effective_settings=trainer.effective_settings,
            window_end=window_end,
        )
        write_record(files.record, _with_end_of_trace(ended, trainer))


def _with_end_of_trace(record: RunRecord, trainer: Trainer) -> RunRecord:
    """The record with a warning if the run ended before all steps of --profile were traced; saves what was."""
    if trainer.traced is None:
        return record
    made, asked = trainer.traced.close() // record.plan.training.accumulation_steps, record.plan.operation.profile
    return record if made == asked else record.warned(f"--profile {asked}: the run ended after {made} traced steps")


def rendezvous(record: RunRecord) -> None:
    """Join the other ranks, those of other nodes included, and check that all were started for the same run.

    Raises UsageError when they were not.
    """
    plan = record.plan
    if plan.nodes > 1:
        open_device(plan.device, local_rank())
        ranks = join()
        own = json.dumps({"node": record.config.node_rank, **run_signature(record.config, plan)})
        signatures = [json.loads(text) for text in ranks.exchange(own)]
        nodes = [values.pop("node") for values in signatures]
        try:
            check_signatures(signatures, nodes)
        finally:
            # A rank that ends closes its connections, while another rank may still be receiving through them.
            with suppress(Exception):
                ranks.barrier()
        if (files := RankFiles.of(os.environ)) is not None:
            files.joined.touch()
        watchdog.progress()


def measure_throughput(trainer: Trainer, recorder: Recorder, stop: StopRequest) -> str:
    """Run the phases in rounds until the throughput is precise or time is up.

    Returns which of the two ended it, see `interleave`. Raises InterruptedRunError.
    """
    plan = trainer.plan

    def run_segment(phase: Phase, done: Done, in_transition: InTransition) -> list[GlobalStep]:
        steps = trainer.run(phase, recorder, lambda step: done(step) or stop.requested, in_transition=in_transition)
        if trainer.ranks.any(stop.requested):
            raise InterruptedRunError("interrupted", "A throughput run can't be resumed: start it again.")
        return steps

    return interleave(
        [trainer.phase(name) for name in throughput_phases(plan)],
        run_segment,
        plan.window,
        trainer.ranks.any,
    )


@dataclass(frozen=True, slots=True)
class Session:
    """What a rank's part of a run works with."""

    trainer: Trainer
    recorder: Recorder
    progress: Progress
    files: RunFiles
    stop: StopRequest

    def trace_after(self, skipped: int) -> None:
        """Let rank 0 trace the plan's number of training steps, after some steps that it doesn't."""
        plan, trainer = self.trainer.plan, self.trainer
        if trainer.ranks.rank or plan.operation.profile is None:
            return
        with disk_errors(self.files.traces):
            self.files.traces.mkdir(exist_ok=True)
        batches, trace = plan.training.accumulation_steps, open_trace(self.files.traces / "rank0.json", os.environ)
        trainer.traced = TracedClock(trainer.clock, trace, skipped * batches, plan.operation.profile * batches)


def _epochs(session: Session) -> str:
    session.trace_after(session.trainer.plan.window.warmup_steps)
    saver = Saver(session.trainer, session.recorder, session.files.checkpoints)
    train_epochs(session.trainer, session.recorder, session.progress, saver, session.stop)
    return "epochs"


def _throughput(session: Session) -> str:
    trainer = session.trainer
    # The warm-up is a segment that isn't traced; the first step after it waits for an empty queue.
    session.trace_after(1)
    return measure_throughput(trainer, session.recorder, session.stop)


def _evaluation(session: Session) -> None:
    evaluate_alone(session.trainer, session.recorder, session.stop)


# What a rank does for each kind of run; each returns what ended the measured window.
RUNS: Mapping[RunKind, Callable[[Session], str | None]] = {
    EPOCHS: _epochs,
    THROUGHPUT: _throughput,
    EVALUATION: _evaluation,
}


def _recorder(record: RunRecord, files: RunFiles, rank: int) -> AbstractContextManager[Recorder]:
    if rank:
        # Another node's launching process follows a table of its own.
        return nullcontext(NoRecorder()) if local_rank() else open_steps_recorder(files)
    plan, operation = record.plan, record.plan.operation
    telemetry = telemetry_of(device_kind(plan.device), operation.telemetry_library, plan.ranks_per_node)
    return open_recorder(files, telemetry, operation.telemetry_interval, os.environ)


def _end_now(code: int) -> NoReturn:
    """End this process: libraries that are unloaded may wait for a device that failed, or for other ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_rank(record_path: Path) -> None:
    """Run this process's rank, and leave an error that a person can act on for the launching process to report.

    A rank that failed ends its process with the error's exit code.
    """
    record, files = read_record(record_path), RankFiles.of(os.environ)
    assert files is not None, "ranks are started by Paddle's launcher"
    startup = rank_startup(record.attempts[-1])
    limits = record.plan.operation
    watchdog.arm(
        limits.stall_timeout,
        files.pulse,
        start_seconds=limits.start_seconds(record.plan.nodes),
    )
    try:
        if record.plan.placement.affinity == PIN:
            pin(set(parse_cores(record.plan.placement.rank_cores[local_rank()])))
        run_worker(record, record_path.parent, files.lists, startup)
        # An interpreter that ends would die of them.
        signals.ignore()
    except Exception as error:
        shortage = out_of_memory(error)
        if shortage is not None:
            traceback.print_exc()
            rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
            failure: ActionableError = memory_error(record.plan, rank, shortage)
        elif isinstance(error, ActionableError):
            failure = error
        else:
            traceback.print_exc()
            _end_now(1)
        leave_failure(files, failure)
        print(f"error: {failure.message}", file=sys.stderr)
        _end_now(failure.exit_code)
