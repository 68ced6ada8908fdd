"""What a measurement leaves: its table, its record, and what is read back of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.comparing.compare import compare
from harness.analysis.latency.figures import Turn
from harness.analysis.latency.job import Job, read_job, write_job
from harness.analysis.latency.stored import (
    LatencyRecord,
    find_latency,
    read_latency,
    side_of,
    turn_values,
    unlike,
    write_latency,
)
from harness.analysis.latency.table import LATENCY, rows_of
from harness.artifacts.record import RunFiles, write_record
from harness.artifacts.tables import read_table
from harness.errors import UsageError
from tests.support.latency import JOB, ONEDNN, PLAIN, TRUTH, a_record, a_turn, spread, turns_of
from tests.support.plans import a_record as a_run_record


def written(folder: Path, record: LatencyRecord) -> RunFiles:
    files = RunFiles(folder, record.name)
    write_latency(files, record)
    return files


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = a_record(warnings=("disturbed",), meter="RAPL, processor packages")
    assert read_latency(written(tmp_path, record).record) == record


def test_the_table_has_a_row_for_each_size_and_engine(tmp_path: Path) -> None:
    files = written(tmp_path, a_record())
    assert {path.name for path in tmp_path.iterdir()} == {"it.json", "it.latency.csv"}
    table = read_table(files.table("latency"), LATENCY)
    assert list(zip(table["model"], table["engine"], strict=True)) == list(JOB.pairs)
    assert table["median_ms"].tolist() == [TRUTH[pair] for pair in JOB.pairs]
    assert table["ratio"].tolist() == pytest.approx([1.0, 2.5, 1.0, 5.0], rel=1e-3)
    assert table["images_per_second"].tolist() == [500.0, 200.0, 200.0, 40.0]
    assert table["top1_per_ms"].tolist() == pytest.approx([25.93, 10.372, 14.264, 2.853], abs=1e-3)
    assert table["published_ms"].tolist() == [1.74, 1.74, 2.46, 2.46]
    assert (table["macs"] / 1e6).round(2).tolist() == [16.77, 16.77, 155.70, 155.70]
    assert table["parameters"].tolist() == [1_521_184, 1_521_184, 2_952_520, 2_952_520]
    assert table["calls"].tolist() == [400] * 4
    assert table["images_per_joule"].isna().all()
    assert (table["disturbed"] == "none").all()


def test_rows_count_all_images_of_a_call() -> None:
    job = replace(JOB, batch_size=8, sizes=("x1_0",), engines=(ONEDNN,))
    (row,) = rows_of(job, turns_of("x1_0", ONEDNN, [20.0] * 10), {})
    assert row["images_per_second"] == 400.0
    assert row["gmacs_per_second"] == pytest.approx(400 * 0.1557, rel=1e-4)


def test_a_failure_has_a_row_without_figures(tmp_path: Path) -> None:
    turns = [turn for pair in JOB.pairs for turn in turns_of(*pair, [TRUTH[pair]] * 10)]
    rows = rows_of(JOB, turns, {("x1_0", PLAIN): "crashed by SIGSEGV"})
    files = written(tmp_path, replace(a_record(), rows=tuple(rows)))
    with files.table("latency").open(newline="", encoding="utf-8") as stream:
        row = list(csv.DictReader(stream))[3]
    assert (row["model"], row["engine"], row["failure"]) == ("x1_0", PLAIN, "crashed by SIGSEGV")
    assert (row["median_ms"], row["calls"], row["ratio"], row["disturbed"]) == ("", "", "", "")
    assert row["published_ms"] == "2.46"
    record = read_latency(files.record)
    assert record.row("x1_0", PLAIN) is None
    assert record.measured == (("x0_25", ONEDNN), ("x0_25", PLAIN), ("x1_0", ONEDNN))


@pytest.mark.parametrize(
    ("unsteady", "marks"),
    [
        (1, ["unsteady", "none", "none", "foreign_cpu"]),
        (2, ["unsteady", "unsteady", "others_unsteady", "foreign_cpu|others_unsteady"]),
        (3, ["unsteady", "unsteady", "unsteady", "foreign_cpu|others_unsteady"]),
    ],
)
def test_where_half_of_the_rows_are_unsteady_the_others_are_doubtful(unsteady: int, marks: list[str]) -> None:
    """A neighbour that slows every call of a large network evenly shows in the small ones alone."""
    turns: list[Turn] = []
    for place, pair in enumerate(JOB.pairs):
        share, found = (0.1 if place < unsteady else 0.001), (("foreign_cpu",) if place == 3 else ())
        turns += turns_of(*pair, spread(TRUTH[pair], share), disturbed=found)
    assert [row["disturbed"] for row in rows_of(JOB, turns, {})] == marks


def test_where_the_first_engine_failed_the_others_have_no_ratio() -> None:
    rows = rows_of(JOB, turns_of("x1_0", PLAIN, [25.0] * 10), {("x1_0", ONEDNN): "no"})
    assert [row.get("ratio") for row in rows if row["model"] == "x1_0"] == [None, None]


def test_a_record_keeps_a_turns_figures_and_not_its_calls() -> None:
    (values,) = turn_values([a_turn(disturbed=("cpu_steal", "swap"), joules=3.0, warmup_calls=4)])
    assert values == {
        "size": "x1_0", "engine": ONEDNN, "round": 0, "median_ms": 5.0, "p95_ms": 10.0, "calls": 36,
        "warmup_calls": 4, "disturbed": "cpu_steal|swap", "joules": 3.0,
    }  # fmt: skip


def test_a_job_comes_back_as_it_was(tmp_path: Path) -> None:
    job = Job(("x0_5",), (ONEDNN, PLAIN), "cpu", threads=2, cores=(0, 1), has_weights=True, turn_seconds=0.25)
    write_job(tmp_path / "orders.json", job)
    assert read_job(tmp_path / "orders.json") == job


def test_only_a_measurement_of_latency_is_found(tmp_path: Path) -> None:
    files = written(tmp_path, a_record())
    write_record(tmp_path / "run.json", a_run_record(run="run"))
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    assert find_latency("it", tmp_path) == find_latency(str(files.record), Path()) == files.record
    assert [find_latency(name, tmp_path) for name in ("run", "broken", "none", "x" * 300)] == [None] * 4


def _changed(files: RunFiles, **more: Any) -> Path:
    values = json.loads(files.record.read_text(encoding="utf-8"))
    files.record.write_text(json.dumps({**values, **more}), encoding="utf-8")
    return files.record


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"schema_version": 99}, "it.json has schema version 99; this version reads 1"),
        ({"kind": "run"}, "is not a measurement of latency"),
        ({"job": {"sizes": ["x1_0"]}}, "is not the record of a measurement of latency"),
        ({"claims": [{"engine": "paddle"}]}, "is not the record of a measurement of latency"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    path = _changed(written(tmp_path, a_record()), **more)
    with pytest.raises(UsageError) as caught:
        read_latency(path)
    assert message in caught.value.message
    assert caught.value.cure


def test_sides_are_compared_as_single_runs() -> None:
    """B takes 2 % longer, and each side repeats within a thousandth: beside 1.5 % between runs that is noise."""
    slower = {pair: 1.02 * ms for pair, ms in TRUTH.items()}
    found = compare(side_of(a_record(), "x1_0", ONEDNN), side_of(a_record(truth=slower), "x1_0", ONEDNN))
    assert found.change == pytest.approx(-0.0196, abs=1e-4)
    assert found.verdict == "equal"
    twice = {pair: 1.2 * ms for pair, ms in TRUTH.items()}
    found = compare(side_of(a_record(), "x1_0", ONEDNN), side_of(a_record(truth=twice), "x1_0", ONEDNN))
    assert found.verdict == "slower"


def test_other_jobs_are_told() -> None:
    other = replace(JOB, threads=2, batch_size=4)
    assert unlike(a_record(), a_record()) == []
    assert unlike(a_record(), a_record(other)) == ["threads (1, 2)", "batch size (1, 4)"]
