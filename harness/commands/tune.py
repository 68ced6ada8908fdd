"""`run_bench.py tune`: finds the settings with which this machine trains fastest on the user's data."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole

from harness.analysis.remedies import COMPUTE_STAGE
from harness.analysis.tuning.knobs import KNOB_NAMES, KNOBS, USUAL, Knob, Scope, applies, initial, scope_of
from harness.analysis.tuning.measured import check_steps, trial_of
from harness.analysis.tuning.search import DISTURBED, Trials, Tuned, before_disturbance, tune
from harness.analysis.tuning.stored import TUNING_SUFFIX, Tuning, TuningFiles, read_tuning, write_tuning
from harness.analysis.tuning.trial import HEADSPACE, Candidate, Trial
from harness.artifacts.atomic import check_writable, disk_errors, write_whole
from harness.artifacts.file_names import check_run_name
from harness.artifacts.lock import exclusive_lock
from harness.artifacts.record import NAME_TIME, RunFiles
from harness.commands.inputs import find_inputs
from harness.commands.run import measure
from harness.commands.run_options import NOT_TUNED
from harness.errors import InterruptedRunError, MachineError, TrainingError, UsageError
from harness.launch import signals
from harness.plan.declaration import AUTO, Limits, flag
from harness.plan.option_checks import OF_DALI, OF_OPENCV
from harness.plan.option_groups.measuring import ALL_PHASES, END_TO_END
from harness.plan.options import RunConfig, run_options
from harness.plan.plan import decided_values
from harness.plan.toml_text import toml_text
from harness.report.console import Console
from harness.report.text import ENTRY, command_line
from harness.report.tuning import show_plan, show_trial, show_tuned
from models.errors import ActionableError
from pipelines.settings import BOTH_LOADERS, DALI_RESIZE, OPENCV_LOADER

# Options that ask for several runs, or several machines.
SEVERAL = ("eval_only", "repeats", "device_counts", "nnodes", "node_rank", "master")
# The measured seconds of the first trial, which decides whether there is anything to gain; limits of the others'.
HEADSPACE_SECONDS, MAX_TRIAL_SECONDS = 30.0, 60.0
# Training steps that a trial should have in its window, and the seconds of training that it should have at least.
TRIAL_STEPS, MIN_TRAIN_SECONDS = 30, 5.0
# The share of a trial's time that its window of training has.
TRAIN_SHARE = {ALL_PHASES: 0.4, END_TO_END: 0.8}
# No run is as precise, so that a trial takes all of its seconds.
NEVER_PRECISE = 1e-9
# Errors of a trial that may be its settings' fault; the others are the machine's or the data's, and end the tuning.
OF_SETTINGS = (MachineError, TrainingError, UsageError)


def tune_given(
    given: Mapping[str, Any],
    *,
    vary: str | None,
    minutes: float | None,
    resume: str | None,
    dry_run: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Carry out or resume the tuning that a command line asks for, or print its plan. Raises ActionableError."""
    results = Path(given.get("results", RunConfig().results))
    if minutes is not None:
        Limits(above=0).check("minutes", minutes)
    if resume is not None:
        _resume(TuningFiles(results, resume), given, vary, minutes, environment)
        return
    config = _config(given)
    if config.run_name is not None:
        check_run_name(config.run_name)
    name = config.run_name or f"{time.strftime(NAME_TIME)}-{config.model}"
    tuning = Tuning(name, dict(given), parse_vary(vary), 20.0 if minutes is None else minutes)
    files, console = TuningFiles(results, name), Console()
    work = _Work.prepare(tuning, files, environment, console)
    if dry_run:
        show_plan(console, tuning, work.knobs, work.default, work.scope)
        return
    check_writable(results)
    with disk_errors(files.folder):
        try:
            files.folder.mkdir()
        except FileExistsError:
            raise UsageError(
                f"{files.folder} exists already",
                f"Give another --run-name, or continue that one: {_resume_command(files)}",
            ) from None
    with _locked(files):
        work.carry_out()


def _resume(
    files: TuningFiles,
    given: Mapping[str, Any],
    vary: str | None,
    minutes: float | None,
    environment: Mapping[str, str],
) -> None:
    if other := [flag(name) for name in given if name != "results"] + ([] if vary is None else ["--vary"]):
        raise UsageError(f"{other[0]} can't be changed by --resume", "Omit it, or begin another tuning.")
    if not files.record.is_file():
        known = sorted(path.name.removesuffix(TUNING_SUFFIX) for path in files.results.glob(f"*{TUNING_SUFFIX}"))
        cure = f"Known there: {', '.join(known)}." if known else "Begin one: omit --resume."
        raise UsageError(f"no tuning {files.name!r} in {str(files.results)!r}", cure)
    tuning = read_tuning(files.record)
    if tuning.status == "finished" and minutes is None and tuning.found["stop"] != DISTURBED:
        print("nothing to resume: the tuning is finished; give --minutes to let it search longer")
        return
    with _locked(files):
        # It may have ended since.
        tuning = read_tuning(files.record)
        tuning = replace(
            tuning,
            minutes=tuning.minutes if minutes is None else minutes,
            trials=before_disturbance(tuning.trials),
        )
        _Work.prepare(tuning, files, environment, Console()).carry_out()


def _locked(files: TuningFiles) -> AbstractContextManager[bool]:
    return exclusive_lock(files.lock, wait=False, held=f"the tuning {files.name!r} is running in another process")


def _resume_command(files: TuningFiles) -> str:
    return command_line("tune", "--resume", files.name, "--results", str(files.results))


def _config(given: Mapping[str, Any]) -> RunConfig:
    """The configuration of the first trial. Raises UsageError for options that a trial can't have."""
    usual = {name: declared.default for name, declared in run_options().items()}
    if several := [flag(name) for name in SEVERAL if given.get(name, usual[name]) != usual[name]]:
        raise UsageError(
            f"a tuning can't have {several[0]}: its trials are throughput runs on this machine", "Omit it."
        )
    config = RunConfig(**{name: value for name, value in given.items() if name not in NOT_TUNED}, throughput_only=True)
    if config.loader == BOTH_LOADERS:
        raise UsageError("--loader dali,opencv is for one run; a tuning tries both loaders in turns", "Omit it.")
    return config


def parse_vary(text: str | None) -> tuple[str, ...]:
    """The names of the settings to vary, from a list with commas. Raises UsageError for an unknown one."""
    if text is None:
        return USUAL
    names = tuple(part.strip().removeprefix("--").replace("-", "_") for part in text.split(","))
    for name in names:
        if name not in KNOB_NAMES:
            known = ", ".join(flag(one)[2:] for one in KNOB_NAMES)
            raise UsageError(f"--vary: unknown setting {name!r}", f"Known: {known}.")
    return names


@dataclass(slots=True)
class _Work:
    """A tuning that is carried out.

    base is the configuration of all trials, with what the plan decided written out. made is the number of trials that
    the search has asked for; the tuning may have more, of earlier starts, which are not measured again.
    """

    tuning: Tuning
    files: TuningFiles
    environment: Mapping[str, str]
    console: Console
    base: RunConfig
    default: Candidate
    knobs: Sequence[Knob]
    scope: Scope
    made: int = 0

    @classmethod
    def prepare(cls, tuning: Tuning, files: TuningFiles, environment: Mapping[str, str], console: Console) -> _Work:
        """Find the plan to begin with. Raises ActionableError if there can't be one."""
        config = _config(tuning.given)
        plan = find_inputs(config, console, environment).plan
        values = decided_values(config, plan)
        base = replace(config, results=str(files.folder), batch_size=plan.pipeline.batch_size)
        return cls(
            replace(tuning, status="running", found={}),
            files,
            environment,
            console,
            base,
            initial({**values, "resize": DALI_RESIZE if config.resize == DALI_RESIZE else AUTO}),
            [knob for knob in KNOBS if knob.name in tuning.vary],
            scope_of(plan),
        )

    def carry_out(self) -> None:
        """Search, and conclude; an error is recorded before it is raised."""
        show_plan(self.console, self.tuning, self.knobs, self.default, self.scope)
        write_tuning(self.files, self.tuning)
        try:
            found = tune(self.default, self.knobs, self.scope, Trials(self.run, 60 * self.tuning.minutes))
        except BaseException as error:
            reported = self._ended(error)
            if reported is error:
                raise
            raise reported from error
        self._conclude(found)

    def run(self, candidate: Candidate, purpose: str) -> Trial:
        """The next trial: a stored one, or a run. Raises what isn't the settings' fault."""
        known = self.tuning.trials
        if self.made < len(known) and known[self.made].purpose != purpose:
            # With another --minutes the confirmation begins sooner or later.
            known = known[: self.made]
        if self.made == len(known):
            signals.check()
            known = (*known, self._measured(candidate, purpose))
            self.tuning = replace(self.tuning, trials=known)
            write_tuning(self.files, self.tuning)
        trial = known[self.made]
        if trial.candidate != candidate:
            raise UsageError(
                f"trial {trial.number} of {self.files.name!r} is not the one that would follow here: the machine, the"
                " packages or this version differ from those that it was begun with",
                "Tune again, under another --run-name.",
            )
        self.made += 1
        show_trial(self.console, trial, self.default)
        return trial

    def _measured(self, candidate: Candidate, purpose: str) -> Trial:
        number = self.made + 1
        name = f"t{number:03}"
        self._clear(name)
        phases = self._phases(purpose)
        own: dict[str, Any] = {
            "run_name": name, "max_seconds": self._seconds(purpose, phases), "target_ci": NEVER_PRECISE,
            "phases": phases,
        }  # fmt: skip
        config = replace(self.base, **self._options(candidate), **own)
        began = time.monotonic()
        with self._quiet(name) as console:
            try:
                record = measure(config, console, self.environment, series=self.files.name, page=False)
            except InterruptedRunError:
                raise
            except OF_SETTINGS as error:
                if purpose == HEADSPACE:
                    raise
                return Trial(number, purpose, candidate, time.monotonic() - began, failure=error.message)
        headspace = self.tuning.trials[0] if self.tuning.trials else None
        trial = trial_of(record, number, purpose, candidate, time.monotonic() - began, headspace)
        if purpose == HEADSPACE and "max_seconds" in self.tuning.given and not trial.is_fed:
            check_steps(trial, record, self.base.max_seconds)
        return trial

    def _options(self, candidate: Candidate) -> dict[str, Any]:
        """A candidate's options: its values, and the defaults of those that have no effect with them."""
        names = dict.fromkeys((*OF_DALI, *OF_OPENCV, *KNOB_NAMES))
        declared, values = run_options(), candidate.as_dict()
        return {
            name: declared[name].default
            if self._is_unused(name, candidate)
            else values.get(name, getattr(self.base, name))
            for name in names
        }

    def _is_unused(self, name: str, candidate: Candidate) -> bool:
        """Whether an option has no effect with a candidate, so that a run with both may be refused."""
        if name in (OF_DALI if candidate["loader"] == OPENCV_LOADER else OF_OPENCV):
            return True
        return name in KNOB_NAMES and not applies(name, candidate, self.scope)

    def _phases(self, purpose: str) -> str:
        """What a trial measures: how fast computing alone is must be known once, and again if that is varied, too."""
        varies_compute = any(knob.stage == COMPUTE_STAGE for knob in self.knobs)
        return ALL_PHASES if purpose == HEADSPACE or varies_compute else END_TO_END

    def _seconds(self, purpose: str, phases: str) -> float:
        """The measured seconds of a trial: those asked for, or enough steps at the first trial's pace."""
        if "max_seconds" in self.tuning.given:
            return self.base.max_seconds
        if purpose == HEADSPACE:
            return HEADSPACE_SECONDS
        step = self.tuning.trials[0].step_seconds_p50 or 0.0
        return min(max(TRIAL_STEPS * step, MIN_TRAIN_SECONDS) / TRAIN_SHARE[phases], MAX_TRIAL_SECONDS)

    def _clear(self, name: str) -> None:
        """Remove what an interrupted trial of that name left."""
        for path in RunFiles(self.files.folder, name).existing():
            if path.is_file():
                path.unlink()

    @contextmanager
    def _quiet(self, name: str) -> Iterator[Console]:
        """A console that prints into the trial's log."""
        log = self.files.folder / f"{name}.log"
        with disk_errors(log), log.open("w", encoding="utf-8") as stream:
            yield Console(RichConsole(file=stream, highlight=False, width=120))

    def _ended(self, error: BaseException) -> BaseException:
        """Record that the tuning ended with an error. Returns the error, with the command that resumes it."""
        stopped = isinstance(error, (KeyboardInterrupt, InterruptedRunError))
        status = "interrupted" if stopped else "failed"
        # A full disk, which may be what ended it, must not replace the first error.
        with suppress(ActionableError):
            write_tuning(self.files, replace(self.tuning, status=status))
        hint = f"To resume:\n  {_resume_command(self.files)}"
        if stopped:
            return InterruptedRunError("interrupted", hint)
        if isinstance(error, ActionableError) and self.tuning.trials:
            error.cure = f"{error.cure}\n{hint}" if error.cure else hint
        return error

    def _conclude(self, found: Tuned) -> None:
        """Write and print what was found."""
        changed = found.best.changes(self.default)
        add = {name: value for name, value in changed.items() if not self._is_unused(name, found.best)}
        # With these a run would be refused.
        omit = [name for name in self.tuning.given if self._is_unused(name, found.best)]
        own = ("run_name", "results", "max_seconds", *omit)
        options = {**{name: value for name, value in self.tuning.given.items() if name not in own}, **add}
        heading = f"# {ENTRY} tune, {self.files.name}: {found.stop}, {found.outcome}\n"
        write_whole(self.files.options, heading + toml_text(options))
        # Of what an earlier start measured, only what the search asked for belongs to what it found.
        trials = self.tuning.trials[: self.made]
        self.tuning = replace(self.tuning, trials=trials, status="finished", found=found.as_stored())
        write_tuning(self.files, self.tuning)
        show_tuned(self.console, self.tuning, found, self.files, add, omit)
