"""Runs in turn: what they say together."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console as RichConsole
from scipy import stats

from harness.analysis.comparing.compare import between_runs
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import COMPUTE_NO_SYNC
from harness.artifacts.shared_schema import SCALING
from harness.artifacts.tables import read_table
from harness.commands.series import run_series, scaling_row, series_members
from harness.errors import TrainingError, UsageError
from harness.plan.options import RunConfig
from harness.report.console import Console
from harness.report.series import show_scaling
from tests.support.plans import a_throughput_record


def test_one_run_is_its_own_series() -> None:
    config = RunConfig(throughput_only=True)
    assert series_members(config) == [config]


def test_members_of_repeats_and_of_scaling() -> None:
    repeats = series_members(RunConfig(repeats=3, epochs=2, lr_warmup_epochs=1))
    assert [(member.repeats, member.epochs) for member in repeats] == [(1, 2)] * 3
    scaling = series_members(RunConfig(throughput_only=True, device_counts="1,2,4"))
    assert [(member.gpus, member.device_counts) for member in scaling] == [(1, None), (2, None), (4, None)]


@pytest.mark.parametrize("text", ["", "1", "2,1", "1,1", "1,x", "0,1", "1,2,"])
def test_device_counts_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--device-counts"):
        RunConfig(throughput_only=True, device_counts=text)


@pytest.mark.parametrize("options", [{"gpus": 2}, {"repeats": 2}, {"throughput_only": False}])
def test_scaling_decides_the_devices_of_throughput_runs(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--device-counts 1,2"):
        RunConfig(**{"throughput_only": True, "device_counts": "1,2", **options})  # type: ignore[arg-type]


def test_the_interval_between_runs_is_students_on_logarithms() -> None:
    rates = [100.0, 102.0, 98.0, 101.0]
    spread = between_runs(rates)
    logs = np.log(rates)
    low, high = np.exp(stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs)))
    assert spread.count == 4
    assert spread.fps == pytest.approx(stats.gmean(rates))
    assert (spread.fps_low, spread.fps_high) == pytest.approx((low, high))
    assert spread.relative_sd == pytest.approx(logs.std(ddof=1))
    assert (between_runs([5.0]).fps, between_runs([5.0]).fps_low) == (5.0, None)
    with pytest.raises(ValueError, match="at least one"):
        between_runs([])


def record_of(run: str, fps: float, ranks: int = 1, skew: float | None = None) -> RunRecord:
    record = a_throughput_record()
    phases = {**record.phases}
    phases.pop(COMPUTE_NO_SYNC, None)
    if skew is not None:
        phases[COMPUTE_NO_SYNC] = {**record.phases["train"], "slowest_rank": 1, "rank_skew_share": skew}
    summary = {**record.summary, "run": run, "fps": fps, "fps_per_device": fps / ranks}
    return replace(record, run=run, plan=replace(record.plan, ranks=ranks), summary=summary, phases=phases)


def test_efficiency_is_per_device_over_the_smallest_number() -> None:
    records = [record_of("a", 100.0), record_of("b", 190.0, 2, 0.05), record_of("c", 420.0, 4, 0.2)]
    rows = [scaling_row(record, records[0]) for record in records]
    assert [row["devices"] for row in rows] == [1, 2, 4]
    assert [row["efficiency"] for row in rows] == pytest.approx([1.0, 0.95, 1.05])
    assert [row["superlinear"] for row in rows] == [False, False, True]
    assert [row["rank_skew_share"] for row in rows] == [None, 0.05, 0.2]
    assert set(rows[0]) == set(SCALING.header)


def printed() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(RichConsole(file=text, width=160)), text


def test_a_series_of_repeats_is_written_and_printed(tmp_path: Path) -> None:
    config = RunConfig(throughput_only=True, repeats=3, results=str(tmp_path), run_name="thrice")
    console, text = printed()
    rates = iter([100.0, 102.0, 98.0])
    asked: list[tuple[str | None, str]] = []

    def measure(member: RunConfig, series: str) -> RunRecord:
        asked.append((member.run_name, series))
        return record_of(str(member.run_name), next(rates))

    run_series(config, series_members(config), measure, console)
    assert asked == [("thrice.r1", "thrice"), ("thrice.r2", "thrice"), ("thrice.r3", "thrice")]
    written = json.loads((tmp_path / "thrice.json").read_text(encoding="utf-8"))
    assert (written["kind"], written["status"], written["runs"]) == ("repeats", "finished", [a for a, _ in asked])
    assert written["fps"] == pytest.approx(100.0, abs=0.02)
    # Student's 4.303 for 2 degrees of freedom, on a standard deviation of 2 %
    assert written["fps_high"] / written["fps"] == pytest.approx(np.exp(4.303 * 0.02 / 3**0.5), rel=1e-3)
    assert "geometric mean of 3 runs: 100.0 images/s, 95 % interval between runs 95.1 to 105.1" in text.getvalue()


def test_a_scaling_series_is_a_table(tmp_path: Path) -> None:
    config = RunConfig(throughput_only=True, device_counts="1,2", results=str(tmp_path), run_name="more")
    console, text = printed()
    records = iter([record_of("more.n1", 100.0), record_of("more.n2", 180.0, 2, 0.01)])
    run_series(config, series_members(config), lambda member, series: next(records), console)
    table = read_table(tmp_path / "more.scaling.csv", SCALING)
    assert table["efficiency"].tolist() == [1.0, 0.9]
    assert "90.0%" in text.getvalue()
    assert json.loads((tmp_path / "more.json").read_text(encoding="utf-8"))["kind"] == "scaling"


@pytest.mark.parametrize(
    ("share", "bottleneck", "cell"),
    [(0.0909, "shared", "9.1%"), (-0.004, "shared", "0.0%"), (-0.3, "uncertain", "(?)")],
)
def test_an_exchange_that_took_less_than_no_time(share: float, bottleneck: str, cell: str) -> None:
    made = record_of("a", 100.0, 2, 0.01)
    changed = {"exposed_communication_share": share, "bottleneck": bottleneck}
    console, text = printed()
    show_scaling(console, "more", [scaling_row(replace(made, summary={**made.summary, **changed}), made)])
    assert cell in text.getvalue()
    assert ("can't be right" in text.getvalue()) == (bottleneck == "uncertain")


@pytest.mark.parametrize("options", [{"repeats": 2}, {"device_counts": "1,2"}])
def test_a_series_whose_first_run_is_refused_leaves_its_name_free(tmp_path: Path, options: dict[str, Any]) -> None:
    """Case E6: as when the data are missing."""
    config = RunConfig(throughput_only=True, results=str(tmp_path), run_name="it", **options)

    def measure(member: RunConfig, series: str) -> RunRecord:
        assert json.loads((tmp_path / "it.json").read_text(encoding="utf-8"))["status"] == "running"
        raise UsageError("no data")

    for _ in range(2):
        with pytest.raises(UsageError, match="no data"):
            run_series(config, series_members(config), measure, printed()[0])
        assert list(tmp_path.iterdir()) == []


def test_a_series_is_refused_before_its_first_run_if_a_later_one_has_a_name_that_is_taken(tmp_path: Path) -> None:
    config = RunConfig(throughput_only=True, repeats=3, results=str(tmp_path), run_name="it")
    (tmp_path / "it.r3.steps.csv").touch()
    measured: list[str] = []

    def measure(member: RunConfig, series: str) -> RunRecord:
        measured.append(series)
        return record_of(str(member.run_name), 100.0)

    with pytest.raises(UsageError, match=r"it\.r3\.steps\.csv exists already"):
        run_series(config, series_members(config), measure, printed()[0])
    assert (measured, [path.name for path in tmp_path.iterdir()]) == ([], ["it.r3.steps.csv"])


def test_a_series_that_fails_keeps_the_runs_it_has(tmp_path: Path) -> None:
    config = RunConfig(throughput_only=True, repeats=3, results=str(tmp_path), run_name="thrice")

    def measure(member: RunConfig, series: str) -> RunRecord:
        if str(member.run_name).endswith("r2"):
            raise TrainingError("rank 0 ended")
        return record_of(str(member.run_name), 100.0)

    with pytest.raises(TrainingError):
        run_series(config, series_members(config), measure, printed()[0])
    written = json.loads((tmp_path / "thrice.json").read_text(encoding="utf-8"))
    assert (written["status"], written["runs"]) == ("failed", ["thrice.r1"])


def test_a_series_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "thrice.json").write_text("{}", encoding="utf-8")
    config = RunConfig(throughput_only=True, repeats=2, results=str(tmp_path), run_name="thrice")
    with pytest.raises(UsageError, match="exists already"):
        run_series(config, series_members(config), lambda member, series: record_of("never", 1.0), printed()[0])
