"""A comparison in words and tables."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from harness.analysis.comparing.compare import Difference, compare
from harness.analysis.comparing.stored_result import StoredResult
from harness.artifacts.record import RunRecord
from harness.report.comparison import change_line, show_comparison, warnings
from harness.report.console import Console
from tests.support.compared_runs import (
    A_RATES,
    ENVIRONMENT,
    PLAN,
    planned,
    record,
    run_compare,
    save,
    save_series,
    summarised,
    told,
)
from tests.support.plans import a_published_plan


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
    """Case A4: of how many images a top-1 is, and that some were left out."""
    none = {"left_out_train_images": 0, "left_out_val_images": None}
    after = summarised(
        record("after", 90.0), top1=0.95333, val_images=355, left_out_train_images=0, left_out_val_images=45
    )
    save(tmp_path, summarised(record("before", 100.0), **none), after)
    assert run_compare(tmp_path, "before", "after") == 0
    lines = told(capsys)
    assert lines[0] == "comparison"
    assert lines[1] == "A B"
    assert lines[3:] == [
        "name before after",
        "runs 1; interval within its window 1; interval within its window",
        "throughput 100.0 images/s (99.2 to 100.8), all devices 90.0 images/s (89.3 to 90.7), all devices",
        "per device 50.0 images/s 45.0 images/s",
        "devices 2 CPU ranks on Xeon 6148 2 CPU ranks on Xeon 6148",
        "top-1 - 0.9533 of 355 images",
        "bottleneck compute compute",
        "B is 10.0 % slower than A (95 % interval 6.0 to 13.8 % slower, p < 0.0001)",
        "based on: A: its window's standard error, and 1.5 % assumed between runs;"
        " B: its window's standard error, and 1.5 % assumed between runs",
        "what differs",
        "A B",
        lines[-2],
        "files left_out_val_images - 45",
    ]


@pytest.mark.usefixtures("wide")
def test_runs_alike_differ_in_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("before", 100.0), record("after", 100.0))
    assert run_compare(tmp_path, "before", "after") == 0
    assert told(capsys)[-1] == "The settings and everything recorded about files and machine are the same."


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
@pytest.mark.parametrize(
    ("changed", "standing"),
    [
        ({}, ["May top-1 0.7101 stand beside the reference's 0.7062? Yes: the data and recipe are the same."]),
        (
            {"epochs": 1, "lr_warmup_epochs": 1, "label_smoothing": 0.0},
            [
                "May top-1 0.7101 stand beside the reference's 0.7062? NO:",
                "method: reference as published, this run 1 epoch, label smoothing 0",
            ],
        ),
    ],
)
def test_the_reference_as_a(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], standing: list[str]
) -> None:
    """Case A9: the list of differences has every departure from the published training."""
    plan = a_published_plan(**changed)
    save(tmp_path, summarised(record("mine", 5074.0, plan=plan), device_name="H100", top1=0.7101, val_images=50_000))
    assert run_compare(tmp_path, "bi_v100", "mine") == 0
    lines = told(capsys)
    assert lines[3:] == [
        "name bi_v100 mine",
        "runs the published row 1; interval within its window",
        "throughput 2537.0 images/s (no interval), all devices 5074.0 images/s (5033.3 to 5115.4), all devices",
        "per device 634.2 images/s 1268.5 images/s",
        "devices 4 x BI-V100 4 x H100",
        "top-1 0.7062 0.7101 of 50,000 images",
        "bottleneck - compute",
        "B is 100.0 % faster than A (95 % interval 94.0 to 106.2 % faster, p < 0.0001)",
        "based on: A: published without an interval, assumed exact; B: its window's standard error, and 1.5 %"
        " assumed between runs; only B's uncertainty counts",
        *(line.strip() for line in standing),
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
        "B: disturbed by foreign_cpu, swap; run it again while nothing disturbs it"
    )
    assert warned(summarised(record("b", 1.0), steady=False, window_end="max_seconds")) == (
        "B: no steady state, so the throughput depends on when the run ended; raise --warmup or --max-seconds"
    )
    stopped = record("b", 1.0)
    stopped.phases["train"]["outliers"] = {"isolated_share": 0.4}
    assert warned(stopped) == (
        "B: a few steps took much of its time, and its figure depends on how many of them it has; run it again"
    )
    too_few = (
        "B: no interval, or not known whether its steps are steady: too few of them, or too noisy; raise"
        " --max-seconds or --epochs, and use nothing else on the machine"
    )
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
        "A (s.r2, s.r4): disturbed by cpu_steal, swap; run it again while nothing disturbs it"
    ]
    assert warnings(StoredResult("s", tuple(runs[::2])), StoredResult("t", tuple(runs[:1]))) == [
        "A and B share runs, which hides their difference: s.r1; compare different runs"
    ]


def test_a_copy_of_a_record_is_the_same_run_whatever_it_is_called() -> None:
    """What an adversary found: a record under another name was compared as another run."""
    began = ({"started_unix_seconds": 1.5, "process": {"pid": 7}},)
    run, other = (
        dataclasses.replace(record("a", 100.0), attempts=began),
        dataclasses.replace(record("b", 100.0), attempts=()),
    )
    copied = dataclasses.replace(run, run="copy", warnings=("edited",))
    assert warnings(StoredResult("a", (run,)), StoredResult("copy", (copied,))) == [
        "A and B share runs, which hides their difference: a; compare different runs"
    ]
    assert warnings(StoredResult("a", (run,)), StoredResult("b", (other,))) == []


@pytest.mark.usefixtures("wide")
def test_warnings_come_before_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, record("a", 100.0), summarised(record("b", 90.0), interference="swap"))
    assert run_compare(tmp_path, "a", "b") == 0
    lines = told(capsys)
    at = lines.index("note: B: disturbed by swap; run it again while nothing disturbs it")
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
    assert message.startswith(f"error: {name!r} compared with 'a': B is 10.0 % slower")
