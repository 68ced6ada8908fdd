"""`tune` as a command: its options, its files, what a trial is run with, and resumption. The runs are stood in for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import harness.commands.tune
from harness.analysis.tuning.knobs import USUAL
from harness.analysis.tuning.search import CONFIRMED, DISTURBED, NO_BETTER_SETTING, OUT_OF_TIME
from harness.analysis.tuning.stored import TuningFiles, read_tuning
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import TRAIN
from harness.artifacts.shared_schema import TRIALS
from harness.artifacts.tables import read_table
from harness.cli import main, parse
from harness.commands.tune import parse_vary
from harness.errors import OutOfMemoryError, UsageError
from harness.plan.options import RunConfig
from harness.report.console import Console
from tests.support.plans import a_throughput_record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BASE = (
    "--device",
    "cpu",
    "--gpus",
    "1",
    "--decode-threads",
    "1",
    "--prefetch",
    "1",
    "--vary",
    "decode-threads,prefetch",
)


def by_threads_and_prefetch(config: RunConfig) -> float:
    ahead = {1: 0.9, 2: 1.0}.get(config.prefetch, 1.0)
    return 100.0 * ahead * {1: 0.6, 2: 1.0, 3: 0.9, 4: 0.8}[config.decode_threads or 0]


class Runs:
    """Stand in for the runs: the rate follows from decode threads and prefetch; `fail` may raise instead."""

    def __init__(self, fail: Callable[[RunConfig, int], None] = lambda *_: None) -> None:
        self.configs: list[RunConfig] = []
        self.fail = fail
        self.step_seconds = 0.05
        self.error: float | None = 0.001
        self.sleep = 0.0
        self.disturbed: Callable[[int], tuple[str, ...]] = lambda _: ()
        self.rate = by_threads_and_prefetch

    def __call__(self, config: RunConfig, console: Console, _: object, *, series: str, page: bool) -> RunRecord:
        assert not page
        assert series in ("it", "other")
        self.configs.append(config)
        self.fail(config, len(self.configs))
        console.notice("a run")
        time.sleep(self.sleep)
        fps = self.rate(config)
        record = a_throughput_record(run=config.run_name, config=config)
        train = {
            **record.phases[TRAIN],
            "fps": fps,
            "relative_standard_error": self.error,
            "degrees_of_freedom": 30.0,
            "step_seconds_p50": self.step_seconds,
        }
        verdict = {**(record.verdict or {}), "compute_fps": 1000.0, "bottleneck": "pipeline", "doubts": ()}
        verdict["data_gain"] = {"value": 1000.0 / fps, "low": None, "high": None}
        interference = {**record.interference, "reasons": self.disturbed(len(self.configs))}
        settings = {"decode_threads": config.decode_threads, "prefetch": config.prefetch}
        return replace(
            record, phases={**record.phases, TRAIN: train}, verdict=verdict, interference=interference,
            effective_settings=settings,
        )  # fmt: skip


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(harness.commands.tune, "measure", made)
    return made


def tune(folder: Path, *arguments: str) -> int:
    return main(["tune", *arguments, "--results", str(folder)])


def test_it_finds_the_settings_and_writes_how_to_use_them(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(tmp_path, *BASE, "--run-name", "it") == 0
    files = TuningFiles(tmp_path, "it")
    tuning = read_tuning(files.record)
    assert (tuning.status, tuning.found["outcome"], tuning.found["stop"]) == ("finished", CONFIRMED, NO_BETTER_SETTING)
    assert (tuning.found["best"]["decode_threads"], tuning.found["best"]["prefetch"]) == (2, 2)
    options = tomllib.loads(files.options.read_text())
    assert options == {"device": "cpu", "gpus": 1, "decode_threads": 2, "prefetch": 2}
    given, _ = parse(["--config", str(files.options)])
    assert RunConfig(**given).decode_threads == 2
    out = capsys.readouterr().out
    assert "add --decode-threads 2 --prefetch 2" in out
    assert "+85.2 % compared with the settings to begin with" in out


def test_its_table_has_every_trial_with_the_settings_that_were_in_force(tmp_path: Path, runs: Runs) -> None:
    tune(tmp_path, *BASE, "--run-name", "it")
    table = read_table(TuningFiles(tmp_path, "it").trials, TRIALS)
    assert table["trial"].tolist() == list(range(1, len(runs.configs) + 1))
    assert table["run"].tolist() == [config.run_name for config in runs.configs]
    assert table["decode_threads"].tolist() == [config.decode_threads for config in runs.configs]
    assert table["prefetch"].tolist() == [config.prefetch for config in runs.configs]
    assert set(table["purpose"]) == {"headspace", "search", "confirmation"}
    assert (tmp_path / "it.tuning" / "t001.log").read_text().strip() == "note: a run"


def test_a_trial_is_a_throughput_run_beside_the_table(tmp_path: Path, runs: Runs) -> None:
    tune(tmp_path, *BASE, "--run-name", "it", "--epochs", "7")
    first, second = runs.configs[:2]
    assert first.throughput_only
    assert first.results == str(tmp_path / "it.tuning")
    assert (first.max_seconds, second.max_seconds) == (30.0, 6.25)
    # What the plan decides is the same in all, and said.
    assert {config.batch_size for config in runs.configs} == {16}


@pytest.mark.parametrize(("step", "seconds"), [(0.5, 18.75), (3.0, 60.0)])
def test_trials_of_slow_steps_are_longer(tmp_path: Path, runs: Runs, step: float, seconds: float) -> None:
    runs.step_seconds = step
    tune(tmp_path, *BASE, "--run-name", "it")
    assert {config.max_seconds for config in runs.configs[1:]} == {seconds}


def test_seconds_that_are_asked_for_are_those_of_every_trial(tmp_path: Path, runs: Runs) -> None:
    tune(tmp_path, *BASE, "--run-name", "it", "--max-seconds", "3")
    assert {config.max_seconds for config in runs.configs} == {3.0}


def test_seconds_that_leave_too_few_steps_are_refused(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials of two steps once made a tuner report a setting that was a tenth slower than the best."""
    runs.error = None
    assert tune(tmp_path, *BASE, "--run-name", "it", "--max-seconds", "3") == 2
    error = capsys.readouterr().err
    assert "--max-seconds 3 leaves a trial 437 steps of training to measure, too few" in error
    assert "Omit it" in error
    assert len(runs.configs) == 1
    assert tune(tmp_path, *BASE, "--run-name", "other") == 0


def test_a_candidate_that_fails_is_recorded_and_the_search_goes_on(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: RunConfig, _: int) -> None:
        if config.decode_threads == 2:
            raise OutOfMemoryError("rank 0: out of memory", "Use less.")

    runs.fail = fail
    assert tune(tmp_path, *BASE, "--run-name", "it") == 0
    failed = [trial for trial in read_tuning(TuningFiles(tmp_path, "it").record).trials if trial.failure]
    assert [trial.failure for trial in failed] == ["rank 0: out of memory"] * 2
    assert "failed: rank 0: out of memory" in capsys.readouterr().out


def test_settings_to_begin_with_that_fail_end_it_with_their_own_message(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: RunConfig, __: int) -> None:
        raise OutOfMemoryError("rank 0: out of memory", "Use less.")

    runs.fail = fail
    assert tune(tmp_path, *BASE, "--run-name", "it") == 5
    error = capsys.readouterr().err
    assert error.splitlines() == ["error: rank 0: out of memory", "  Use less."]


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_an_interrupted_tuning_is_resumed_without_measuring_anything_again(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def fail(_: RunConfig, made: int) -> None:
        if made == number:
            raise KeyboardInterrupt

    runs.fail = fail
    assert tune(tmp_path / "a", *BASE, "--run-name", "it") == 75
    assert f"tune --resume it --results {tmp_path / 'a'}" in capsys.readouterr().err
    assert read_tuning(TuningFiles(tmp_path / "a", "it").record).status == "interrupted"
    runs.fail = lambda *_: None
    assert tune(tmp_path / "a", "--resume", "it") == 0
    resumed = read_tuning(TuningFiles(tmp_path / "a", "it").record)
    in_all = len(runs.configs)
    assert tune(tmp_path / "b", *BASE, "--run-name", "it") == 0
    undisturbed = read_tuning(TuningFiles(tmp_path / "b", "it").record)
    assert in_all == len(undisturbed.trials) + 1
    assert resumed.found == undisturbed.found
    assert [replace(one, seconds=0.0) for one in resumed.trials] == [
        replace(one, seconds=0.0) for one in undisturbed.trials
    ]


def test_more_minutes_continue_a_search_whose_time_was_over(tmp_path: Path, runs: Runs) -> None:
    assert tune(tmp_path, *BASE, "--run-name", "it", "--minutes", "1e-9") == 0
    files = TuningFiles(tmp_path, "it")
    assert read_tuning(files.record).found["stop"] == OUT_OF_TIME
    made = len(runs.configs)
    assert tune(tmp_path, "--resume", "it", "--minutes", "20") == 0
    assert read_tuning(files.record).found["stop"] == NO_BETTER_SETTING
    assert len(runs.configs) > made == 1
    assert read_tuning(files.record).trials[0].run == "t001"


def test_a_finished_tuning_has_nothing_to_resume(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(tmp_path, *BASE, "--run-name", "it")
    made = len(runs.configs)
    assert tune(tmp_path, "--resume", "it") == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert len(runs.configs) == made


def test_trials_of_another_machine_are_not_mixed_in(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(tmp_path, *BASE, "--run-name", "it", "--minutes", "1e-9")
    files = TuningFiles(tmp_path, "it")
    files.record.write_text(
        files.record.read_text().replace('"prefetch",\n            1', '"prefetch",\n            3')
    )
    assert tune(tmp_path, "--resume", "it", "--minutes", "20") == 2
    assert "trial 1 of 'it' is not the one that would follow here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message", "cure"),
    [
        (("--vary", "batch"), "--vary: unknown setting 'batch'", "batch-size"),
        (("--minutes", "0"), "--minutes is 0.0; it must be above 0", ""),
        (("--minutes", "nan"), "--minutes is nan; it must be finite", ""),
        (("--resume", "no"), "no tuning 'no' in", "Begin one"),
        (("--resume", "it", "--prefetch", "3"), "--prefetch can't be changed by --resume", "Omit it"),
        (("--resume", "it", "--vary", "prefetch"), "--vary can't be changed by --resume", "Omit it"),
        (("--loader", "dali,opencv"), "--loader dali,opencv is for one run", "Omit it"),
        (("--run-name", "a.tuning"), "can't be the name of a run", "another --run-name"),
        (("--prefetch", "0"), "--prefetch is 0; it must be at least 1", ""),
    ],
)
def test_what_it_can_not_do_gets_one_line_and_a_cure(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, cure: str
) -> None:
    assert tune(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert cure in error
    assert not runs.configs
    assert not list(tmp_path.iterdir())


def test_options_for_several_runs_in_a_file_are_refused(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.toml"
    file.write_text("repeats = 3\n")
    assert tune(tmp_path, "--config", str(file)) == 2
    assert "a tuning can't have --repeats" in capsys.readouterr().err


def test_a_name_that_is_taken_is_not_written_over(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(tmp_path, *BASE, "--run-name", "it", "--minutes", "1e-9")
    before = TuningFiles(tmp_path, "it").record.read_text()
    assert tune(tmp_path, *BASE, "--run-name", "it") == 2
    assert "exists already" in capsys.readouterr().err
    assert TuningFiles(tmp_path, "it").record.read_text() == before


def test_a_dry_run_prints_what_would_be_tried_and_writes_nothing(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(tmp_path, *BASE, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "--decode-threads   [1], 2" in out
    assert "--prefetch         [1], 2, 3, 4, 6, 8, 12" in out
    assert not runs.configs
    assert not list(tmp_path.iterdir())


def test_usual_settings_change_speed_alone() -> None:
    assert parse_vary(None) == USUAL
    assert not {"batch_size", "amp", "layout"} & set(USUAL)
    assert parse_vary("batch-size, --amp") == ("batch_size", "amp")
    with pytest.raises(UsageError):
        parse_vary("")


def test_more_minutes_continue_a_search_that_had_confirmed_what_it_had_found_by_then(
    tmp_path: Path, runs: Runs
) -> None:
    """The confirmation of the first start stands where the second one goes on searching."""
    # Each trial counts as long as it took here, so that the time is that of eight trials.
    runs.sleep = 0.2
    assert tune(tmp_path, *BASE, "--run-name", "it", "--minutes", str(9 * 0.2 / 60)) == 0
    files = TuningFiles(tmp_path, "it")
    first = read_tuning(files.record)
    assert first.found["stop"] == OUT_OF_TIME
    assert first.trials[-1].purpose == "confirmation"
    runs.sleep = 0.0
    assert tune(tmp_path, "--resume", "it", "--minutes", "20") == 0
    second = read_tuning(files.record)
    assert (second.found["stop"], second.found["outcome"]) == (NO_BETTER_SETTING, CONFIRMED)
    searched = [trial for trial in first.trials if trial.purpose != "confirmation"]
    assert list(second.trials[: len(searched)]) == searched


def test_a_tuning_that_was_disturbed_is_resumed_as_it_says(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.disturbed = lambda number: ("foreign_cpu",) if number > 3 else ()
    assert tune(tmp_path, *BASE, "--run-name", "it") == 0
    files = TuningFiles(tmp_path, "it")
    assert read_tuning(files.record).found["stop"] == DISTURBED
    assert "--resume continues when the machine is idle" in capsys.readouterr().out
    runs.disturbed = lambda _: ()
    assert tune(tmp_path, "--resume", "it") == 0
    tuning = read_tuning(files.record)
    assert (tuning.found["stop"], tuning.found["outcome"]) == (NO_BETTER_SETTING, CONFIRMED)
    assert not any(trial.disturbed for trial in tuning.trials)


@pytest.mark.parametrize(
    ("given", "faster", "left"),
    [
        (("--decode-threads", "1", "--decode-region", "on", "--resize", "dali"), "opencv", {"loader": "opencv"}),
        (("--loader", "opencv", "--workers", "2"), "dali", {"loader": "dali"}),
    ],
)
def test_options_that_the_other_loader_has_no_use_for_are_left_out(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], faster: str, left: object
) -> None:
    """A run with both would be refused."""
    runs.rate = lambda config: 100.0 if config.loader == faster else 50.0
    arguments = ("--device", "cpu", "--gpus", "1", "--vary", "loader", *given)
    assert tune(tmp_path, *arguments, "--run-name", "it") == 0
    options = tomllib.loads(TuningFiles(tmp_path, "it").options.read_text())
    assert options == {"device": "cpu", "gpus": 1, **left}  # type: ignore[dict-item]
    RunConfig(**parse(["--config", str(TuningFiles(tmp_path, "it").options)])[0])
    out = capsys.readouterr().out
    assert f"add --loader {faster}, without {given[0] if faster == 'opencv' else '--workers'}" in out
    # No trial was refused.
    assert not any(trial.failure for trial in read_tuning(TuningFiles(tmp_path, "it").record).trials)


@pytest.mark.parametrize(("vary", "phases"), [("decode-threads", "end_to_end"), ("decode-threads,layout", "all")])
def test_computing_alone_is_measured_once_unless_it_is_varied(
    tmp_path: Path, runs: Runs, vary: str, phases: str
) -> None:
    tune(tmp_path, *BASE, "--run-name", "it", "--vary", vary)
    first, *others = runs.configs
    assert first.phases == "all"
    assert {config.phases for config in others} == {phases}
    trials = read_tuning(TuningFiles(tmp_path, "it").record).trials
    assert {trial.compute_fps for trial in trials} == {1000.0}
