"""One run, from the name of its files to its row in the summary; its record says how it ended in any case."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.analysis.summarize import summarize, summarize_evaluation
from harness.artifacts.atomic import check_writable
from harness.artifacts.bad_image import found_so_far
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.file_names import LOCK, SUMMARY_FILE
from harness.artifacts.liveness import own_process
from harness.artifacts.record import NAME_TIME, RunFiles, RunRecord, read_record, write_record
from harness.artifacts.reference_table import append_reference_row, of_other_loader, reference_table_file
from harness.artifacts.run_claim import claimed, exclusive_run_lock
from harness.artifacts.shared_schema import LOADERS, SUMMARY
from harness.artifacts.shared_tables import append_row
from harness.artifacts.tables import TableWriter
from harness.commands.inputs import Inputs, described_weights, inspect_inputs
from harness.commands.memory import keep_in_memory
from harness.commands.resume import (
    back_to_epoch_start,
    check_same_run,
    find_resumption,
    how_to_go_on,
    truncate_to_checkpoint,
)
from harness.errors import INTERRUPTED_EXIT_CODE, InterruptedRunError, OutOfMemoryError, UsageError
from harness.launch import signals
from harness.launch.launcher import run_workers
from harness.launch.meeting import Meeting
from harness.launch.private_folder import private_folder
from harness.plan.decisions import make_plan, run_name
from harness.plan.kinds import EVALUATION
from harness.plan.nodes import Node, run_signature
from harness.plan.option_groups.loading import RAM
from harness.plan.options import RunConfig
from harness.plan.plan import RunPlan
from harness.report.console import Console
from harness.report.extras import write_extras
from harness.report.live.feed import Feed
from harness.report.live.shown import Shown
from models.errors import ActionableError
from models.notes import Note
from pipelines.image_lists import ImageList

# Files of the same names can't be told apart by the lists.


@dataclass(slots=True)
class Run:
    """A run to carry out: what was asked for, what it uses, and where it records.

    meeting is this node's part in the agreement of all nodes on the run. folder is where the tables are; on a node that
    doesn't record it is a private one. begun_unix_seconds is when the command, or a series' member, was started.
    page: it ends with a page to look at. notices are those that are still to be recorded. splits are the ranks' lists.
    """

    config: RunConfig
    inputs: Inputs
    meeting: Meeting
    folder: Path
    environment: Mapping[str, str]
    console: Console
    begun_unix_seconds: float
    page: bool = True
    notices: list[str] = field(default_factory=list)
    splits: Mapping[str, ImageList] = field(init=False)

    def __post_init__(self) -> None:
        self.splits = self.inputs.dataset.splits

    @property
    def node(self) -> Node:
        """The machine's place among the nodes."""
        return self.meeting.node

    def carry_out(self, series: str | None = None) -> RunRecord:
        """Begin or resume the run, train and conclude. Returns its finished record. Raises ActionableError."""
        # Where none can be made, nothing takes the run's name, under which the cure starts it again.
        with private_folder("check"):
            pass
        with ExitStack() as stack:
            check_writable(self.folder, self._shared_tables())
            if self.config.resume is not None:
                files = RunFiles(self.folder, self.config.resume)
                check_writable(files.folder, [path for path in files.existing() if path.is_file()])
                stack.enter_context(exclusive_run_lock(files))
                record = self._resumed_record(files)
            else:
                usual, lock = run_name(self.inputs.plan, time.strftime(NAME_TIME)), self.config.kind.resumable
                files = stack.enter_context(claimed(self.folder, self.config.run_name, usual, lock=lock))
                record = self._new_record(files, series)
            self.console.plan(record.plan, f"run {files.run}")
            self.console.left_out(found_so_far(files, record), files)
            if self.config.cache == RAM:
                self.splits, record = keep_in_memory(self.splits, record, files, stack, self.console, self._note)
            return self._execute(files, record)

    def _shared_tables(self) -> list[Path]:
        """The files, shared with other runs, that the run will add rows to, and their lock."""
        if not self.node.records:
            return []
        names = [LOCK, SUMMARY_FILE]
        if self.config.kind is not EVALUATION:
            names.append(reference_table_file(self.inputs.plan))
        return [self.folder / name for name in names]

    def _new_record(self, files: RunFiles, series: str | None) -> RunRecord:
        """Write and return the record of a run that has no step yet."""
        inputs = self.inputs
        found = inspect_inputs(inputs, files.folder, self.environment, self._note)
        self.meeting.meet(run_signature(self.config, inputs.plan))
        record = RunRecord(
            run=files.run,
            status="running",
            config=self.config,
            plan=inputs.plan,
            environment=found.environment,
            profile=found.profile,
            series=series,
            warnings=(*inputs.notices, *inputs.plan.notes),
            attempts=(self._attempt(1, 0),),
            bad_images=found.bad_images,
            pretrained=None if inputs.pretrained is None else asdict(inputs.pretrained),
            decoding=None if inputs.decoding is None else asdict(inputs.decoding),
        )
        write_record(files.record, record)
        return record

    def _resumed_record(self, files: RunFiles) -> RunRecord:
        """Cut the tables back to the run's newest checkpoint. Writes and returns the record of the resumed run."""
        before, plan = find_resumption(files), self.inputs.plan
        if self.node.place is not None:
            before, lost = back_to_epoch_start(before, files, plan)
            for note in lost:
                self._note(note)
        notes = check_same_run(before, self.config, plan)
        # Without a checkpoint the run begins again with the file of weights, which must be the same.
        if before.checkpoint is None and before.record.pretrained is not None and not self.config.node_rank:
            found_weights = described_weights(self.config, plan.data.num_classes)
            if found_weights is None or asdict(found_weights) != before.record.pretrained:
                raise UsageError(
                    f"{plan.training.pretrained} is not the file that run {files.run!r} began with",
                    "Start another run.",
                )
        found = inspect_inputs(self.inputs, files.folder, self.environment, self._note)
        self.meeting.meet(run_signature(self.config, plan))
        sizes = (before.record.profile.get("sizes_sha256"), found.profile.get("sizes_sha256"))
        if before.checkpoint is not None and None not in sizes and sizes[0] != sizes[1]:
            note = Note(
                "the image files have other sizes than when the run began, or others of them can't be read: its steps"
                " so far used other images",
                "Put the former files back, or start another run.",
            )
            self.console.notice(note)
            notes = (*notes, note)
        truncate_to_checkpoint(files, before.checkpoint, before.rows)
        record = replace(
            before.record,
            status="running",
            config=replace(self.config, resume=None, run_name=before.record.config.run_name),
            plan=plan,
            environment=found.environment,
            profile=found.profile,
            decoding=None if self.inputs.decoding is None else asdict(self.inputs.decoding),
            warnings=(*before.record.warnings, *notes),
            attempts=(*before.record.attempts, self._attempt(before.first_segment, before.step)),
            bad_images=found.bad_images,
            checkpoint=before.checkpoint,
            effective_settings=before.values.get("effective_settings", {}),
        )
        write_record(files.record, record)
        return record

    def _attempt(self, first_segment: int, step: int) -> dict[str, Any]:
        """Returns what the record has of this start, from a segment on, after a number of training steps."""
        plan = self.inputs.plan
        return {
            "first_segment": first_segment,
            "step": step,
            "begun_unix_seconds": self.begun_unix_seconds,
            "started_unix_seconds": time.time(),
            "ranks": plan.ranks,
            "epochs": plan.training.epochs,
            "process": own_process(),
            "started_by": None if self.node.place is None else self.node.place.as_record(),
            "startup": {},
        }

    def _execute(self, files: RunFiles, record: RunRecord) -> RunRecord:
        """Run the ranks and conclude. Returns the finished record; an error is recorded before it is raised.

        A request to end reaches the ranks, but doesn't cut this process short, which records how the run ended.
        """
        with signals.polled():
            return self._executed(files, record)

    def _executed(self, files: RunFiles, record: RunRecord) -> RunRecord:
        try:
            self.meeting.start()
            self._train(files, record.plan, record.attempts[-1]["step"])
            record = self._noticed(read_record(files.record))
            if not self.node.records:
                self.console.notice(
                    Note(
                        f"node {self.node.rank} is done; node 0 ({self.node.master[0]}) has the tables in its"
                        " --results",
                        "Look there.",
                    )
                )
                return replace(record, status="finished")
            conclude = {EVALUATION: self._conclude_evaluation}.get(record.plan.kind, self._conclude)
            record = conclude(files, record)
        except BaseException as error:
            reported = error if record.series is not None else _add_resume_hint(error, files, record.config)
            stopped = isinstance(reported, ActionableError) and reported.exit_code == INTERRUPTED_EXIT_CODE
            status = "interrupted" if stopped or isinstance(reported, KeyboardInterrupt) else "failed"
            # A full disk, which may be what ended the run, must not replace the first error.
            with suppress(ActionableError):
                failed = self._noticed(read_record(files.record)).warned(f"{status}: {error}" if str(error) else status)
                write_record(files.record, replace(failed, status=status))
            if reported is error:
                raise
            raise reported from error
        show = {EVALUATION: self.console.evaluation}.get(record.plan.kind, self.console.conclusion)
        show(record, files)
        write_extras(self.console, files, record, with_page=self.page)
        return record

    def _note(self, notice: str) -> None:
        """Print a notice, and keep it for the record, which the ranks write while they run."""
        self.console.notice(notice)
        self.notices.append(notice)

    def _noticed(self, record: RunRecord) -> RunRecord:
        """The record with the notices that it doesn't have yet."""
        return replace(record, warnings=tuple(dict.fromkeys((*record.warnings, *self.notices))))

    def _conclude(self, files: RunFiles, record: RunRecord) -> RunRecord:
        """Compute what training measured, and add its rows to the shared tables. Returns the finished record."""
        breaks, first_segment = record.breaks()
        record = replace(record, status="finished", **summarize(files, record, breaks, first_segment).as_record())
        if not self.node.is_alone:
            # The energy is that of node 0's GPUs, but the images are those of all nodes.
            record = replace(record, summary={**record.summary, "images_per_joule": None})
        # Only a run that is concluded again has a row already; an earlier run of the same name keeps its row.
        unique = ("run",) if len(record.attempts) > 1 else ()
        is_first = append_row(files.folder / SUMMARY_FILE, SUMMARY, record.summary, unique)
        for measured in (record, of_other_loader(record)):
            if measured is not None:
                append_reference_row(files.folder, measured, once=not is_first)
        if record.loaders:
            with TableWriter(files.table(LOADERS.name), LOADERS) as table:
                for row in record.loaders:
                    table.write(row)
        write_record(files.record, record)
        return record

    def _conclude_evaluation(self, files: RunFiles, record: RunRecord) -> RunRecord:
        """Add an evaluation's figures to the summary. Returns the finished record."""
        record = replace(record, status="finished", summary=summarize_evaluation(files, record))
        append_row(files.folder / SUMMARY_FILE, SUMMARY, record.summary)
        write_record(files.record, record)
        return record

    def _train(self, files: RunFiles, plan: RunPlan, made: int) -> None:
        """Run the ranks; with --auto-batch, halve the batch and repeat while it does not fit into memory.

        made are the training steps that a resumed run has made already. A run keeps its batch once it has a checkpoint.
        Until then what it recorded is removed with a changed batch, so that all steps of a run have the same one.
        """
        # Nodes may share the folder.
        mark = "" if self.node.is_alone else f".node{self.node.rank}"
        kept = Path(self.config.results) / f"{files.run}{mark}.logs"
        while True:
            try:
                feed = Feed(plan, files, self.begun_unix_seconds)
                feed.resume(made)
                with Shown(self.console, feed) as shown:
                    run_workers(
                        files,
                        self.inputs.devices,
                        plan,
                        self.environment,
                        shown.poll,
                        splits=self.splits,
                        meanwhile=_load_analysis,  # ranks that start leave a processor idle
                        node=self.node,
                        say=self.console.notice,
                        note=self._note,
                        kept=kept,
                    )
                return
            except OutOfMemoryError as error:  # noqa: PERF203 - each pass is a run
                batch = plan.pipeline.batch_size
                if not self.config.auto_batch or batch == 1:
                    raise
                if newest_checkpoint(files.checkpoints) is not None:
                    error.cure = (
                        "The run keeps its batch, as it has a checkpoint. Start another with a smaller --batch-size."
                    )
                    raise
                warning = Note(
                    f"--auto-batch: {batch} images per device did not fit into memory, trying {batch // 2}"
                    f" ({error.message.partition(': ')[2]})",
                    "--batch-size with a smaller batch needs no trials.",
                )
                truncate_to_checkpoint(files, None, {})
                halved = replace(self.config, batch_size=batch // 2)
                plan = make_plan(
                    halved,
                    self.inputs.devices,
                    self.inputs.plan.data,
                    self.environment,
                    self.inputs.decoding,
                    self.inputs.pretrained,
                )
                write_record(files.record, replace(read_record(files.record).warned(warning), plan=plan))
                self.console.notice(warning)
                self.console.plan(plan, f"run {files.run}, with a smaller batch")


def _load_analysis() -> None:
    """Load what the conclusion needs, now rather than at the end, when an update may have replaced the packages."""
    for name in ("pandas", "scipy.special"):
        import_module(name)


def _add_resume_hint(error: BaseException, files: RunFiles, config: RunConfig) -> BaseException:
    """The error that ended a run; if there is a checkpoint, or it was interrupted, with the command that resumes it."""
    if not isinstance(error, (ActionableError, KeyboardInterrupt)):
        return error
    stopped = isinstance(error, (KeyboardInterrupt, InterruptedRunError))
    has_checkpoint = newest_checkpoint(files.checkpoints) is not None
    if not has_checkpoint and (not stopped or not files.record.exists()):
        return error
    if not has_checkpoint and isinstance(error, InterruptedRunError) and error.cure:
        return error
    hint = how_to_go_on(files, config)
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError("interrupted", hint)
    error.cure = f"{error.cure}\n{hint}" if error.cure else hint
    return error
