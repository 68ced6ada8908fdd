from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console as RichConsole
from scipy import stats

from harness.analysis.compare import RUN_TO_RUN, Difference, Side, compare
from harness.analysis.run_diff import Job, SettingDifference, differences, job_of, settings
from harness.analysis.stored_result import StoredResult, find_result
from harness.artifacts.record import SCHEMA_VERSION, RunRecord, write_record
from harness.cli import main
from harness.commands.compare import check_gate, parse_limit
from harness.errors import GateError, UsageError
from harness.plan.config import RunConfig
from harness.plan.kinds import THROUGHPUT
from harness.plan.plan import IMAGENET, DataFacts
from harness.report.comparison import change_line, show_comparison, warnings
from harness.report.console import Console
from pipelines.augmentation import Augmentation
from tests.support.plans import a_plan, with_settings

PLAN = a_plan(
    kind=THROUGHPUT,
    data=DataFacts("photos", "photos", 1024, 128, 1000, Augmentation(), False, True),
    steps_per_epoch=16,
    epochs=360,
    decode_threads=1,
)
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7",
    "platform": "Linux-6.1",
    "cpu_quota_cores": None,
    "gpus": [],
    "packages": {"numpy": "2.3.5", "paddlepaddle": "3.3.1"},
    "git": {"commit": "c0ffee", "dirty": False},
}


def record(run: str, fps: float, error: float | None = 0.004, **changes: Any) -> RunRecord:
    """A finished run; its window's relative standard error has 40 degrees of freedom."""
    reach = None if error is None else 2.021 * error
    made = RunRecord(
        run=run,
        status="finished",
        config=RunConfig(throughput_only=True),
        plan=PLAN,
        environment=ENVIRONMENT,
        profile={"images": 1024, "mean_bytes": 113_287.0, "bits_per_pixel": 5.05, "page_cache": {"state": "warm"}},
        phases={
            "train": {
                "fps": fps,
                "fps_low": None if reach is None else fps / (1 + reach),
                "fps_high": None if reach is None else fps / (1 - reach),
                "relative_standard_error": error,
                "degrees_of_freedom": None if error is None else 40.0,
            }
        },
        summary={
            "device_name": "Xeon 6148",
            "top1": None,
            "bottleneck": "compute",
            "steady": None if error is None else True,
            "window_end": "target_ci",
            "interference": "none",
        },
    )
    return dataclasses.replace(made, **changes)


def summarised(run: RunRecord, **changes: Any) -> RunRecord:
    return dataclasses.replace(run, summary={**run.summary, **changes})


def planned(run: RunRecord, **changes: Any) -> RunRecord:
    return dataclasses.replace(run, plan=with_settings(run.plan, **changes))


def save(folder: Path, *runs: RunRecord) -> None:
    for run in runs:
        write_record(folder / f"{run.run}.json", run)


def save_series(
    folder: Path,
    name: str,
    rates: tuple[float, ...],
    kind: str = "repeats",
    status: str = "finished",
) -> None:
    members = [f"{name}.r{number}" for number in range(1, len(rates) + 1)]
    save(folder, *(record(member, fps) for member, fps in zip(members, rates, strict=True)))
    values = {"schema_version": SCHEMA_VERSION, "kind": kind, "run": name, "status": status, "runs": members}
    (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no line is folded."""
    monkeypatch.setenv("COLUMNS", "250")


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on standard output, blanks folded; there is nothing on standard error."""
    out, err = capsys.readouterr()
    assert err == ""
    return [" ".join(line.split()) for line in out.splitlines() if line.strip()]


def run_compare(folder: Path, *arguments: str) -> int:
    return main(["compare", *arguments, "--results", str(folder)])


# The statistics.

A_RATES = (101.0, 99.5, 100.2, 98.9, 100.7)
B_RATES = (97.1, 95.0, 99.8, 93.2)


def several(*fps: float) -> Side:
    return Side("several", fps, None, None)


def single(fps: float, error: float | None, degrees: float | None = 40.0) -> Side:
    return Side("single", (fps,), error, degrees)


def test_two_series_are_welch_s_test_on_logarithms() -> None:
    found = compare(several(*A_RATES), several(*B_RATES))
    reference = stats.ttest_ind(np.log(B_RATES), np.log(A_RATES), equal_var=False)
    low, high = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-9)
    assert found.change == pytest.approx(stats.gmean(B_RATES) / stats.gmean(A_RATES) - 1, rel=1e-9)
    assert found.change == pytest.approx(-0.0381, abs=1e-4)
    assert found.verdict == "equal"  # p = 0.074: these four runs scatter too widely
    assert found.how == "Welch's t-test on the logarithms of the throughputs of 5 and 4 runs"


def test_two_series_by_hand() -> None:
    """Logarithms 0 and 0.02 against 0.1 and 0.12: s^2 = 0.0002 each, so se^2 = 0.0002 with 2 degrees of freedom."""
    found = compare(several(1.0, math.exp(0.02)), several(math.exp(0.1), math.exp(0.12)))
    reach = 4.302653 * math.sqrt(0.0002)
    assert found.change == pytest.approx(math.expm1(0.1))
    assert found.low == pytest.approx(math.expm1(0.1 - reach), abs=1e-7)
    assert found.high == pytest.approx(math.expm1(0.1 + reach), abs=1e-7)
    # For 2 degrees of freedom the two-sided p is 1 - t / sqrt(2 + t^2), t^2 = 50.
    assert found.p_value == pytest.approx(1 - math.sqrt(50 / 52))
    assert found.verdict == "faster"


def test_two_runs_have_their_windows_errors_and_the_spread_between_runs() -> None:
    assert RUN_TO_RUN == 0.015
    found = compare(single(100.0, 0.01, 20.0), single(90.0, 0.02, 10.0))
    variance = 0.01**2 + 0.02**2 + 2 * 0.015**2
    degrees = variance**2 / (0.01**4 / 20 + 0.02**4 / 10)
    reach = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    assert found.change == pytest.approx(-0.1)
    assert found.low == pytest.approx(math.expm1(math.log(0.9) - reach))
    assert found.high == pytest.approx(math.expm1(math.log(0.9) + reach))
    assert found.p_value == pytest.approx(2 * stats.t.sf(-math.log(0.9) / math.sqrt(variance), degrees))
    assert found.verdict == "slower"
    assert found.how == (
        "A: its window's standard error, and 1.5 % assumed between runs;"
        " B: its window's standard error, and 1.5 % assumed between runs"
    )


def test_a_run_against_a_series() -> None:
    rates = (90.0, 91.0, 89.0)
    found = compare(single(100.0, 0.01, 20.0), several(*rates))
    spread = float(np.var(np.log(rates), ddof=1)) / 3
    variance = 0.01**2 + 0.015**2 + spread
    degrees = variance**2 / (0.01**4 / 20 + spread**2 / 2)
    change = float(np.log(rates).mean()) - math.log(100.0)
    assert found.p_value == pytest.approx(2 * stats.t.cdf(change / math.sqrt(variance), degrees))
    assert found.verdict == "slower"
    assert found.how.endswith("between runs; B: the spread of its 3 runs")
    mirrored = compare(several(*rates), single(100.0, 0.01, 20.0))
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert found.low is not None
    assert mirrored.high == pytest.approx(1 / (1 + found.low) - 1)
    assert mirrored.verdict == "faster"


def test_runs_without_noise_of_their_own_still_differ_between_runs() -> None:
    """Degrees of freedom are infinite then: the interval is a normal one."""
    found = compare(single(100.0, 0.0), single(100.0, 0.0))
    assert found.high == pytest.approx(math.expm1(1.959964 * math.sqrt(2) * 0.015), abs=1e-8)
    assert (found.change, found.p_value, found.verdict) == (0.0, 1.0, "equal")


def test_a_published_figure_counts_as_exact() -> None:
    published = Side("published", (100.0,), None, None, exact=True)
    found = compare(published, single(90.0, 0.01, 20.0))
    variance = 0.01**2 + 0.015**2
    degrees = variance**2 / (0.01**4 / 20)
    assert found.p_value == pytest.approx(2 * stats.t.cdf(math.log(0.9) / math.sqrt(variance), degrees))
    assert found.verdict == "slower"
    assert found.how.startswith("A: published without an interval, assumed exact; B: its window's")
    assert found.how.endswith("; only B's uncertainty counts")
    assert compare(several(100.0, 101.0), published).how.endswith("; only A's uncertainty counts")


@pytest.mark.parametrize("unknown", [single(100.0, None, None), single(100.0, 0.01, None), single(100.0, None, 9.0)])
def test_a_run_too_short_for_an_interval_can_t_be_judged(unknown: Side) -> None:
    """It is no more certain than one that knows its noise."""
    for other in (single(50.0, 0.01, 20.0), several(50.0, 51.0)):
        found = compare(unknown, other)
        assert (found.low, found.high, found.p_value, found.verdict) == (None, None, None, "unknown")
        assert found.how == "A has no interval"
        assert compare(other, unknown).how == "B has no interval"


def test_two_sides_without_an_interval_can_t_be_judged() -> None:
    found = compare(single(100.0, None, None), single(80.0, None, None))
    assert found.change == pytest.approx(-0.2)
    assert dataclasses.replace(found, change=-0.2) == Difference(
        -0.2, None, None, None, "unknown", "neither A nor B has an interval"
    )


def test_series_that_are_all_alike_leave_no_room_for_noise() -> None:
    same = compare(several(100.0, 100.0), several(100.0, 100.0))
    assert (same.change, same.low, same.high, same.p_value, same.verdict) == (0.0, 0.0, 0.0, 1.0, "equal")
    other = compare(several(100.0, 100.0), several(99.0, 99.0))
    assert (other.p_value, other.verdict) == (0.0, "slower")
    assert other.low == other.high == pytest.approx(-0.01)


def test_an_interval_may_reach_to_infinity() -> None:
    found = compare(single(100.0, 100.0, 1.0), single(100.0, 0.01))
    assert (found.low, found.high, found.verdict) == (-1.0, math.inf, "equal")


def test_a_series_own_interval() -> None:
    side = several(*A_RATES)
    logs = np.log(A_RATES)
    low, high = stats.t.interval(0.95, 4, logs.mean(), stats.sem(logs))
    assert side.mean_fps == pytest.approx(math.exp(logs.mean()))
    assert side.spread_interval == pytest.approx((math.exp(low), math.exp(high)))
    assert single(100.0, 0.01).spread_interval is None
    assert single(35.3, 0.01).mean_fps == 35.3


@pytest.mark.parametrize("rates", [(), (0.0,), (-1.0, 2.0), (math.nan,), (math.inf,)])
def test_a_rate_is_positive_and_finite(rates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="each must be positive and finite"):
        several(*rates)


def test_errors_and_degrees_of_freedom_have_limits() -> None:
    for error in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="relative_standard_error is"):
            single(1.0, error)
    for degrees in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="degrees_of_freedom is"):
            single(1.0, 0.1, degrees)


def test_equal_sides_are_told_apart_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(11)
    rates = 100.0 * np.exp(0.02 * rng.standard_normal((1000, 2, 5)))
    wrong = sum(compare(several(*a), several(*b)).verdict != "equal" for a, b in rates.tolist())
    assert 30 <= wrong <= 70


def test_a_tenth_less_is_found() -> None:
    rng = np.random.default_rng(12)
    rates = 100.0 * np.exp(0.02 * rng.standard_normal((1000, 2, 5)))
    found = sum(compare(several(*a), several(*(0.9 * np.array(b)))).verdict == "slower" for a, b in rates.tolist())
    assert found >= 990


def test_the_interval_holds_the_true_ratio_in_95_of_100_comparisons_of_a_run_with_a_series() -> None:
    """A run's rate scatters with its window's error and RUN_TO_RUN, and the error is an estimate itself."""
    rng = np.random.default_rng(13)
    covered = 0
    for _ in range(1000):
        between, within = RUN_TO_RUN * rng.standard_normal(6), 0.01 * rng.standard_normal(6)
        rates = 100.0 * np.exp(between + within)
        error = 0.01 * math.sqrt(rng.chisquare(20) / 20)
        found = compare(single(float(rates[0]), error, 20.0), several(*(0.95 * rates[1:]).tolist()))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= -0.05 <= found.high
    assert 930 <= covered <= 970


# What differs.


def test_runs_alike_differ_in_nothing_and_names_are_no_setting() -> None:
    a, b = record("a", 100.0), record("b", 90.0)
    b = planned(b, notes=("a note",))
    b = dataclasses.replace(b, config=dataclasses.replace(b.config, results="elsewhere", run_name="b"))
    assert differences(a, b) == []


def test_settings_are_what_was_decided() -> None:
    a = record("a", 100.0)
    flat = settings(a)
    assert flat["device"] == "cpu"  # asked for: auto
    assert flat["ranks"] == 2
    assert flat["data.augmentation.crop_area_min"] == 0.08
    assert flat["prefetch"] == 2
    assert not {"gpus", "classes", "data", "run_name", "results", "notes", "crop_area_min"} & set(flat)
    # The same batch, once given and once by default.
    b = dataclasses.replace(a, config=dataclasses.replace(a.config, batch_size=32, gpus=2))
    assert differences(a, b) == []


def test_what_differs_has_its_place_and_dotted_name() -> None:
    a = record("a", 100.0)
    b = planned(a, batch_size=64, prefetch=4, data=dataclasses.replace(PLAN.data, train_images=10))
    b = dataclasses.replace(
        b,
        profile={**a.profile, "images": 10, "page_cache": {"state": "cold"}},
        environment={
            **ENVIRONMENT,
            "platform": "Linux-6.2",
            "cpu_quota_cores": 2.0,
            "gpus": [{"index": 0, "uuid": "GPU-a", "name": "H100", "pci_bus_id": "0"}],
            "packages": {"numpy": "2.2", "paddlepaddle-gpu": "3.3.1"},
            "git": None,
            "recorded_later": 1,
        },
    )
    assert differences(a, b) == [
        SettingDifference("settings", "data.train_images", 1024, 10),
        SettingDifference("settings", "batch_size", 32, 64),
        SettingDifference("settings", "prefetch", 2, 4),
        SettingDifference("files", "page_cache.state", "warm", "cold"),
        SettingDifference("environment", "cpu_quota_cores", None, 2.0),
        SettingDifference("environment", "packages.numpy", "2.3.5", "2.2"),
        SettingDifference("environment", "packages.paddlepaddle", "3.3.1", None),
        SettingDifference("environment", "git.commit", "c0ffee", None),
        SettingDifference("environment", "git.dirty", False, None),
        SettingDifference("environment", "gpus.0.name", None, "H100"),
        SettingDifference("environment", "packages.paddlepaddle-gpu", None, "3.3.1"),
    ]


def test_a_job_is_what_was_trained_on_what() -> None:
    job = job_of(record("a", 100.0))
    assert job == Job("x0_25", 64, "photos", "cpu", 2, 32)
    assert job.unlike(job) == []
    published = Job("x0_25", 64, "photos", "cpu", 2, 32)
    assert job.unlike(published) == []
    others = dataclasses.replace(published, auto_augment=True, preprocessing="dali", mixed_precision="bf16-O1")
    assert published.unlike(others) == [
        "mixed precision (off, bf16-O1)", "auto augment (False, True)", "preprocessing (paddleclas, dali)"
    ]  # fmt: skip
    assert job_of(planned(record("a", 1.0), preprocessing="dali")).preprocessing == "dali"
    other = Job("x1_0", 64, "digits", "cpu", 4, 32)
    assert job.unlike(other) == ["model (x0_25, x1_0)", "data set (photos, digits)", "devices (2, 4)"]
    named = dataclasses.replace(IMAGENET, name="my-imagenet", source="/data")
    assert job_of(planned(record("a", 1.0), data=named)).data_set == "ILSVRC2012"


# Finding what was saved.


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, record("v1.2", 100.0))
    for name in ("v1.2", "v1.2.json", str(tmp_path / "v1.2.json")):
        assert find_result(name, tmp_path) == StoredResult("v1.2", (record("v1.2", 100.0),))
    monkeypatch.chdir(tmp_path)
    assert find_result("v1.2.json", Path("elsewhere")).name == "v1.2"


def test_a_series_is_its_runs(tmp_path: Path) -> None:
    save_series(tmp_path, "five", A_RATES)
    found = find_result("five", tmp_path)
    assert found.name == "five"
    assert [run.run for run in found.records] == ["five.r1", "five.r2", "five.r3", "five.r4", "five.r5"]
    assert found.side == Side("five", A_RATES, None, None)
    assert find_result(str(tmp_path / "five.json"), Path("elsewhere")) == found
    assert find_result("five.r2", tmp_path).side == Side("five.r2", (99.5,), 0.004, 40.0)


def test_a_series_of_one_run_has_that_run_s_uncertainty(tmp_path: Path) -> None:
    save_series(tmp_path, "one", (100.0,))
    assert find_result("one", tmp_path).side == Side("one", (100.0,), 0.004, 40.0)


def test_the_reference_is_found_by_name() -> None:
    side = find_result("bi_v100", Path("nowhere")).side
    assert side == Side("bi_v100", (2537.0,), None, None, exact=True)


@pytest.mark.parametrize(
    ("name", "wrong", "cure"),
    [
        ("befor", "no run or series 'befor' in ", "Did you mean 'before'?"),
        ("x1_0", "no run or series 'x1_0' in ", "Did you mean '20261124-2-x1_0-cpu2' or '20261124-1-x1_0-cpu2'?"),
        (
            "zzz",
            "no run or series 'zzz' in ",
            "Available there: 'scaling', 'running', 'halted', 'gone', 'five.r2' and ",
        ),
        ("..", "no run or series '..' in ", "Available there: "),
        ("", "'' is not the name of a run", "Pass the name of a run in --results, or the path of its record"),
        ("../secret", "'../secret' is not the name of a run", "Pass the name of a run in --results"),
        ("/etc/passwd", "'/etc/passwd' is not the name of a run", "Pass the name of a run in --results"),
        ("n" * 5000, "no run or series 'nnn", "Available there: "),
        ("nowhere/before.json", "no file 'nowhere/before.json'", "That folder does not exist."),
        ("[red]\x1b[31m", "no run or series '[red]\\x1b[31m' in ", "Available there: "),
        ("running", "run 'running' is not finished; its status is 'running'", "Wait for its end."),
        ("halted", "run 'halted' is not finished; its status is 'interrupted'", "Run it again, under another"),
        ("empty", "empty.json' is empty: the run has just started", "Wait for its end, or run it again."),
        ("text", "text.json' is not valid JSON: ", "Name a <run>.json that run_bench.py wrote."),
        ("bytes", "bytes.json' is not valid JSON: ", "Name a <run>.json that run_bench.py wrote."),
        ("list", "list.json' is not the record of a run", "Name a <run>.json that run_bench.py wrote."),
        ("object", "object.json is not a run's record: ", "Name a <run>.json that run_bench.py wrote."),
        ("folder", "folder.json': Is a directory", "Name a <run>.json that can be read."),
        ("later", "later.json has schema version 6, known is 5", "Read it with the version of this project"),
        ("rateless", "rateless.json' has no valid training throughput: 'train'", "Run it again"),
        ("standing", "standing.json' has no valid training throughput: rates are (0.0,)", "Run it again"),
        ("worded", "worded.json' has no valid training throughput: ", "Run it again"),
        (
            "scaling",
            "'scaling' is a series of kind 'scaling'; only the runs of 'repeats' all do the same job",
            "Compare its runs instead: 'scaling.r1' and 'scaling.r2'.",
        ),
        ("gone", "runs of the series 'gone' are missing in ", "Put their files next to the series' file"),
        ("half", "run 'halted' is not finished; its status is 'interrupted'", "Run it again, under another"),
        ("nobody", "the series 'nobody' names no runs: []", "Compare single runs"),
        ("astray", "the series 'astray' names no runs: ['../secret']", "Compare single runs"),
        ("twice", "the series 'twice' names a run twice: 'before' and 'before'", "Measure the series again."),
        ("nested", "five.json is not a run's record: ", "Name a <run>.json that run_bench.py wrote."),
        (
            "ahead",
            "the series 'ahead' has schema version 6; this version reads 5",
            "Read it with the version of this project",
        ),
    ],
)
def test_what_can_t_be_compared_is_one_clear_line_and_its_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, wrong: str, cure: str
) -> None:
    save(tmp_path, record("before", 100.0), record("20261124-1-x1_0-cpu2", 1.0), record("20261124-2-x1_0-cpu2", 1.0))
    save(tmp_path, record("running", 1.0, status="running"), record("halted", 1.0, status="interrupted"))
    save(tmp_path, record("rateless", 1.0, phases={}), record("standing", 1.0, phases={"train": {"fps": 0.0}}))
    save(tmp_path, record("worded", 1.0, phases={"train": {"fps": "fast"}}))
    save_series(tmp_path, "scaling", (1.0, 2.0), kind="scaling")
    save_series(tmp_path, "gone", (1.0, 2.0))
    (tmp_path / "gone.r2.json").unlink()
    save_series(tmp_path, "five", (1.0, 2.0))
    for series, version, runs in (
        ("half", 5, ["before", "halted"]),
        ("nobody", 5, []),
        ("astray", 5, ["../secret"]),
        ("twice", 5, ["before", "before"]),
        ("nested", 5, ["five"]),
        ("ahead", 6, ["before"]),
    ):
        values = {"schema_version": version, "kind": "repeats", "run": series, "status": "finished",
                  "runs": runs}  # fmt: skip
        (tmp_path / f"{series}.json").write_text(json.dumps(values), encoding="utf-8")
    later = json.loads((tmp_path / "before.json").read_text(encoding="utf-8")) | {"schema_version": 6}
    for file, content in (
        ("empty", b" \n"),
        ("text", b"{"),
        ("bytes", b"\xff"),
        ("list", b"[]"),
        ("object", b"{}"),
        ("later", json.dumps(later).encode()),
    ):
        (tmp_path / f"{file}.json").write_bytes(content)
    (tmp_path / "folder.json").mkdir()
    if name == "zzz":  # names are listed from the last to the first
        for path in tmp_path.glob("*.json"):
            if path.stem not in ("scaling", "running", "halted", "gone", "five.r2", "before", "five"):
                path.rename(path.with_suffix(".aside"))
    for arguments in ((name, "before"), ("before", name)):
        assert run_compare(tmp_path, *arguments) == 2
        out, err = capsys.readouterr()
        first, second = err.splitlines()
        assert out == ""
        assert first.startswith("error: ")
        assert wrong in first
        assert second.startswith(f"  {cure}")


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare(tmp_path / "missing", "a", "b") == 2
    assert capsys.readouterr().err == (
        f"error: no run or series 'a' in '{tmp_path}/missing'\n"
        "  That folder does not exist. Pass the folder of the runs with --results.\n"
    )


# The result in words.


def test_the_result_is_one_line() -> None:
    def line(verdict: str, change: float, low: float | None, high: float | None, p_value: float | None) -> str:
        return change_line(Difference(change, low, high, p_value, verdict, "how"))

    assert line("slower", -0.098, -0.124, -0.071, 0.0002) == (
        "B is 9.8 % slower than A (95 % interval 7.1 to 12.4 % slower, p = 0.0002)"
    )
    assert line("faster", 0.098, 0.071, 0.124, 0.00001) == (
        "B is 9.8 % faster than A (95 % interval 7.1 to 12.4 % faster, p < 0.0001)"
    )
    assert line("slower", -0.03, -0.0599, -0.0001, 0.0496) == (
        "B is 3.0 % slower than A (95 % interval 0.0 to 6.0 % slower, p = 0.0496)"
    )
    assert line("equal", -0.004, -0.019, 0.012, 0.613) == (
        "no significant difference: B/A -0.4 % (-1.9 to +1.2 %), p = 0.61"
    )
    assert line("equal", -0.0004, -0.01, 0.01, 0.9) == (
        "no significant difference: B/A +0.0 % (-1.0 to +1.0 %), p = 0.90"
    )
    assert line("unknown", -0.2, None, None, None) == ("B/A -20.0 %, significance unknown: how")


@pytest.mark.usefixtures("wide")
def test_two_runs_are_shown_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("before", 100.0), summarised(record("after", 90.0), top1=0.95333))
    assert run_compare(tmp_path, "before", "after") == 0
    lines = told(capsys)
    assert lines[0] == "comparison"
    assert lines[1] == "A B"
    assert lines[3:] == [
        "name before after",
        "runs 1; interval within its window 1; interval within its window",
        "throughput 100.0 images/s (99.2 to 100.8), all devices 90.0 images/s (89.3 to 90.7), all devices",
        "per device 50.0 images/s 45.0 images/s",
        "devices 2 ranks on Xeon 6148 2 ranks on Xeon 6148",
        "top-1 - 0.9533",
        "bottleneck compute compute",
        "B is 10.0 % slower than A (95 % interval 6.0 to 13.8 % slower, p < 0.0001)",
        "based on: A: its window's standard error, and 1.5 % assumed between runs;"
        " B: its window's standard error, and 1.5 % assumed between runs",
        "The settings and everything recorded about files and machine are the same.",
    ]


@pytest.mark.usefixtures("wide")
def test_another_job_and_what_differs_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = planned(record("after", 90.0), batch_size=64, learning_rate=0.0250000001)
    save(tmp_path, record("before", 100.0), dataclasses.replace(other, environment={**ENVIRONMENT, "python": "3.12.1"}))
    assert run_compare(tmp_path, "before", "after") == 0
    lines = told(capsys)
    result = next(number for number, line in enumerate(lines) if line.startswith("B is 10.0 % slower"))
    assert lines[result - 1] == "NOT THE SAME JOB (A, B): batch size (32, 64)"
    assert lines[result + 2] == "what differs"
    assert lines[result + 5 :] == [
        "settings batch_size 32 64",
        "learning_rate 0.025 0.0250000001",
        "environment python 3.11.7 3.12.1",
    ]


@pytest.mark.usefixtures("wide")
def test_two_series_are_compared_by_their_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_series(tmp_path, "five", A_RATES)
    save_series(tmp_path, "four", tuple(0.9 * fps for fps in A_RATES[:4]))
    save(tmp_path, planned(record("four.r3", 0.9 * A_RATES[2]), seed=3))
    assert run_compare(tmp_path, "five", "four") == 0
    lines = told(capsys)
    assert "runs 5; geometric mean, interval between runs 4; geometric mean, interval between runs" in lines
    assert ("throughput 100.1 images/s (99.0 to 101.1), all devices 89.9 images/s (88.6 to 91.2), all devices") in lines
    assert "based on: Welch's t-test on the logarithms of the throughputs of 5 and 4 runs" in lines
    assert "The runs of B differ among themselves: seed" in lines
    assert not [line for line in lines if line.startswith("The runs of A differ")]


@pytest.mark.usefixtures("wide")
def test_the_reference_as_a(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = with_settings(
        PLAN, model="x1_0", device="gpu", device_name="H100", ranks=4, data=IMAGENET, image_size=224, batch_size=512
    )
    save(tmp_path, summarised(record("mine", 5074.0, plan=plan), device_name="H100", top1=0.7101))
    assert run_compare(tmp_path, "bi_v100", "mine") == 0
    lines = told(capsys)
    assert lines[3:] == [
        "name bi_v100 mine",
        "runs the published row 1; interval within its window",
        "throughput 2537.0 images/s (no interval), all devices 5074.0 images/s (5033.3 to 5115.4), all devices",
        "per device 634.2 images/s 1268.5 images/s",
        "devices 4 x BI-V100 4 x H100",
        "top-1 0.7062 0.7101",
        "bottleneck - compute",
        "B is 100.0 % faster than A (95 % interval 94.0 to 106.2 % faster, p < 0.0001)",
        "based on: A: published without an interval, assumed exact; B: its window's standard error, and 1.5 %"
        " assumed between runs; only B's uncertainty counts",
        "Nothing else is known about the reference's settings and machine.",
    ]


@pytest.mark.usefixtures("wide")
def test_the_reference_s_job_is_the_published_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("mine", 100.0))
    assert run_compare(tmp_path, "bi_v100", "mine") == 0
    assert (
        "NOT THE SAME JOB (A, B): model (x1_0, x0_25), image size (224, 64), data set (ILSVRC2012, photos),"
        " device (gpu, cpu), devices (4, 2), batch size (512, 32)"
    ) in told(capsys)


def test_what_makes_a_figure_doubtful_is_a_warning() -> None:
    good = record("good", 100.0)
    assert warnings(StoredResult("a", (good,)), StoredResult("b", (record("b", 100.0),))) == []

    def warned(run: RunRecord) -> str:
        (line,) = warnings(StoredResult("a", (good,)), StoredResult("b", (run,)))
        return line

    assert warned(summarised(record("b", 1.0), interference="foreign_cpu|swap")) == (
        "B: disturbed by foreign_cpu, swap; run it again while nothing else uses the machine"
    )
    assert warned(summarised(record("b", 1.0), steady=False, window_end="max_seconds")) == (
        "B: no steady state, so the throughput depends on when the run ended; raise --warmup or --max-seconds"
    )
    too_few = "B: too few steps for an interval or a steady state; raise --max-seconds or --epochs"
    assert warned(summarised(record("b", 1.0, error=None), window_end="max_seconds")) == too_few
    assert warned(summarised(record("b", 1.0), steady=None)) == too_few
    assert warned(summarised(record("b", 1.0), window_end="max_seconds")) == (
        "B: ended by --max-seconds before --target-ci was reached; raise --max-seconds"
    )
    assert warned(record("b", 1.0, phases={"train": {"fps": 1.0}}, summary={"fps": 1.0})) == (
        "B: written by an earlier version, without intervals, steady state and interference; run it again"
    )


def test_a_series_warning_names_its_runs() -> None:
    runs = [record(f"s.r{number}", 100.0) for number in range(1, 5)]
    runs[1], runs[3] = summarised(runs[1], interference="swap"), summarised(runs[3], interference="cpu_steal|swap")
    assert warnings(StoredResult("s", tuple(runs)), StoredResult("bi_v100", ())) == [
        "A (s.r2, s.r4): disturbed by cpu_steal, swap; run it again while nothing else uses the machine"
    ]
    assert warnings(StoredResult("s", tuple(runs[::2])), StoredResult("t", tuple(runs[:1]))) == [
        "A and B share runs, which hides their difference: s.r1; compare different runs"
    ]


@pytest.mark.usefixtures("wide")
def test_warnings_come_before_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0), summarised(record("b", 90.0), interference="swap"))
    assert run_compare(tmp_path, "a", "b") == 0
    lines = told(capsys)
    at = lines.index("note: B: disturbed by swap; run it again while nothing else uses the machine")
    assert lines[at + 1].startswith("B is 10.0 % slower")


HOSTILE = ["[red]set[/red]", "[/b]", ":smile:", "\\[b]", "\x1b[31m", "a\nb", "caf\udce9", "\u202e"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_printed_as_they_are(name: str) -> None:
    printed = io.BytesIO()
    stream = io.TextIOWrapper(printed, encoding="utf-8")
    console = Console(RichConsole(file=stream, width=250, highlight=False, force_terminal=False))
    run = planned(record(name, 100.0), data=dataclasses.replace(PLAN.data, name=name), model=name)
    run = summarised(run, device_name=name, bottleneck=name, interference=name)
    run = dataclasses.replace(run, environment={**ENVIRONMENT, "python": name, "packages": {name: name}})
    a, b = StoredResult("a", (record("a", 100.0),)), StoredResult(name, (run, dataclasses.replace(run, environment={})))
    show_comparison(console, a, b, compare(a.side, b.side))
    stream.flush()
    lines = [" ".join(line.split()) for line in printed.getvalue().decode().split("\n")]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert f"name a {shown}" in lines
    assert f"bottleneck compute {shown}" in lines
    assert f"NOT THE SAME JOB (A, B): model (x0_25, {shown}), data set (photos, {shown})" in lines
    assert f"environment python 3.11.7 {shown}" in lines
    assert f"packages.{shown} - {shown}" in lines
    assert [line for line in lines if line.startswith(f"note: B ({shown}, {shown}): disturbed by {shown};")]
    assert "\x1b" not in printed.getvalue().decode()


@pytest.mark.parametrize("name", ["[red]x", "\x1b[31mx", "a\nb", "caf\udce9"])
@pytest.mark.usefixtures("wide")
def test_a_hostile_name_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    save(tmp_path, record(name, 90.0), record("a", 100.0))
    assert run_compare(tmp_path, "a", name) == 0
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert f"name a {shown}" in told(capsys)
    assert run_compare(tmp_path, "a", name, "--fail-if-slower", "5%") == 1
    message, _ = capsys.readouterr().err.splitlines()
    assert message.startswith(f"error: {name!r} against 'a': B is 10.0 % slower")


# The gate.


@pytest.mark.parametrize(
    ("text", "share"),
    [("5%", 0.05), ("5 %", 0.05), ("2.5%", 0.025), ("0.05", 0.05), (".5", 0.5), ("0", 0.0), ("0%", 0.0),
     (" 5.% ", 0.05), ("99.9%", 0.999)],
)  # fmt: skip
def test_a_limit_is_a_percentage_or_a_share(text: str, share: float) -> None:
    assert parse_limit(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text",
    ["", "%", ".", ".%", "5", "1", "100%", "-5%", "-0.05", "+5%", "5%%", "5e-2", "nan", "inf", "five", "5 percent",
     "0,05", "1_0%", "５%", "5%\n5"],
)  # fmt: skip
def test_anything_else_is_no_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    save(tmp_path, record("a", 100.0), record("b", 90.0))
    assert run_compare(tmp_path, "a", "b", f"--fail-if-slower={text}") == 2
    assert capsys.readouterr() == (
        "",
        f"error: --fail-if-slower {text!r} is no slowdown from 0 % to below 100 %\n"
        "  Give a percentage such as 5%, or a share such as 0.05.\n",
    )


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("rates", "limit", "line"),
    [
        # 3 % slower, p = 0.17
        ((97.0,), "2%", "passed, as noise explains the slowdown; longer runs or --repeats would see more"),
        # 10 % slower, p < 0.0001
        ((90.0,), "11%", "passed"),
        ((90.0,), "10%", "passed"),
        ((110.0,), "0%", "passed"),
        ((100.0,), "0%", "passed"),
    ],
)
def test_a_gate_that_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rates: tuple[float, ...], limit: str, line: str
) -> None:
    save(tmp_path, record("a", 100.0), record("b", *rates))
    assert run_compare(tmp_path, "a", "b", "--fail-if-slower", limit) == 0
    assert told(capsys)[-1] == f"note: --fail-if-slower {limit.replace('%', ' %')}: {line}"


@pytest.mark.usefixtures("wide")
def test_a_gate_fails_beyond_the_limit_and_beyond_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0), record("b", 90.0))
    for limit, shown in (("9.9%", "9.9"), ("0.05", "5"), ("0%", "0"), ("7%", "7")):
        assert run_compare(tmp_path, "a", "b", "--fail-if-slower", limit) == 1
        out, err = capsys.readouterr()
        assert "B is 10.0 % slower than A" in out
        assert err == (
            "error: 'b' against 'a': B is 10.0 % slower than A (95 % interval 6.0 to 13.8 % slower, p < 0.0001);"
            f" the limit is {shown} %\n"
            "  What differs between them is listed above. Measured again with --repeats, a difference by chance goes"
            " away.\n"
        )


def test_a_series_that_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0))
    save_series(tmp_path, "b", (100.0, 101.0), status="failed")
    assert run_compare(tmp_path, "a", "b") == 2
    assert capsys.readouterr().err == (
        "error: the series 'b' is not finished; its status is 'failed'\n"
        "  Compare its runs instead: 'b.r1' and 'b.r2'.\n"
    )


@pytest.mark.usefixtures("wide")
def test_a_gate_does_not_judge_different_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0), record("b", 200.0, plan=with_settings(PLAN, model="x1_0", image_size=96)))
    assert run_compare(tmp_path, "a", "b") == 0
    assert run_compare(tmp_path, "a", "b", "--fail-if-slower", "5%") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --fail-if-slower can't be judged: A and B did not do the same job (")
    assert "x1_0" in error


@pytest.mark.usefixtures("wide")
def test_a_gate_that_can_t_judge_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("old", 100.0, error=None), record("short", 90.0, error=None))
    assert run_compare(tmp_path, "old", "short") == 0
    lines = told(capsys)
    assert "B/A -10.0 %, significance unknown: neither A nor B has an interval" in lines
    assert "The settings and everything recorded about files and machine are the same." in lines
    assert run_compare(tmp_path, "old", "short", "--fail-if-slower", "5%") == 2
    assert capsys.readouterr().err == (
        "error: --fail-if-slower 5 % can't be judged: 'short' is 10.0 % below 'old', and neither A nor B has"
        " an interval to tell that from noise\n"
        "  Measure with longer runs (--max-seconds), or several times with --repeats.\n"
    )
    assert run_compare(tmp_path, "old", "short", "--fail-if-slower", "10%") == 0


def test_the_gate_looks_at_change_and_verdict_alone() -> None:
    a, b = StoredResult("a", ()), StoredResult("b", ())

    def gate(change: float, verdict: str) -> str:
        return check_gate(a, b, Difference(change, change, change, 0.01, verdict, ""), 0.05)

    assert gate(-0.05, "slower") == "--fail-if-slower 5 %: passed"
    assert gate(-0.2, "equal").startswith("--fail-if-slower 5 %: passed, as noise explains")
    assert gate(0.5, "faster") == "--fail-if-slower 5 %: passed"
    with pytest.raises(GateError, match=r"B is 5\.1 % slower"):
        gate(-0.051, "slower")
    with pytest.raises(UsageError, match="can't be judged"):
        gate(-0.051, "unknown")
