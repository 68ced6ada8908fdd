"""Throughput runs on the CPU: every phase, and series of runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts.shared_schema import SCALING, SUMMARY
from harness.artifacts.tables import read_table
from tests.support.run_checks import buckets_make_wall, parts_make_steps, settings_in_force
from tests.support.runs import Run, fork, run

pytestmark = pytest.mark.whole_run

SMALL = ("--device", "cpu", "--model", "x0_25", "--image-size", "32", "--batch-size", "4")
PHASES = {1: ("pipeline", "train", "compute"), 2: ("pipeline", "train", "compute", "compute_no_sync")}


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def throughput(
    request: pytest.FixtureRequest, colours: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Run]:
    """The number of ranks, and a throughput run on them."""
    ranks: int = request.param
    options = ("--data", str(colours), "--throughput-only", "--warmup", "2", "--max-seconds", "5")
    folder = tmp_path_factory.mktemp("throughput")
    return ranks, run(folder, *SMALL, "--gpus", str(ranks), *options, "--telemetry-interval", "0.1")


def test_throughput_only_measures_every_phase_in_turn_and_ends_by_itself(throughput: tuple[int, Run]) -> None:
    ranks, made = throughput
    assert made.code == 0, made.err
    assert made.err == ""
    steps = made.table("steps")
    assert set(steps["phase"]) == set(PHASES[ranks])
    assert steps["epoch"].isna().all()
    assert made.table("epochs").empty
    # The warm-up is a block of training, then whole rounds.
    segments = steps.groupby("segment")["phase"].agg(["first", "nunique"])
    assert set(segments["nunique"]) == {1}
    order = list(segments["first"])
    assert order == ["train", *PHASES[ranks] * (len(order) // len(PHASES[ranks]))]
    assert list(segments.index) == list(range(1, len(order) + 1))
    for phase in PHASES[ranks]:
        numbers = list(steps[steps["phase"] == phase]["step"])
        assert numbers == list(range(1, len(numbers) + 1))
    assert set(steps[steps["phase"] != "pipeline"]["images"]) == {4 * ranks}
    parts_make_steps(steps)


def test_its_steps_are_marked_once_it_is_over(throughput: tuple[int, Run]) -> None:
    _, made = throughput
    steps = made.table("steps")
    assert steps["warmup"].notna().all()
    assert set(steps["warmup"]) == {0, 1}
    train = steps[steps["phase"] == "train"]
    assert list(train["warmup"])[:3] == [1, 1, 0] or list(train["warmup"])[:4] == [1, 1, 1, 0]
    # After --warmup 2 only the steps are out in which phases change: 3 of pipeline-only, with 2 batches ready.
    # Compute-only may need more than one to let DALI fill its queue.
    for segment, rows in steps[steps["segment"] > 1].groupby("segment"):
        transition = int(rows["warmup"].sum())
        expected = {"pipeline": (3,), "train": (1,)}.get(rows["phase"].iloc[0], range(1, len(rows)))
        assert transition in expected, segment
        assert list(rows["warmup"]) == [1] * transition + [0] * (len(rows) - transition), segment


def test_its_rates_can_be_computed_again_from_its_steps(throughput: tuple[int, Run]) -> None:
    ranks, made = throughput
    steps = made.table("steps")
    record = made.record
    assert set(record["phases"]) == set(PHASES[ranks])
    for phase, figures in record["phases"].items():
        measured = steps[(steps["phase"] == phase) & (steps["warmup"] == 0)]
        assert figures["window_steps"] == len(measured)
        assert figures["images"] == measured["images"].sum()
        assert figures["fps"] == pytest.approx(measured["images"].sum() / measured["step_seconds"].sum(), rel=1e-6)
    row = read_table(made.folder / "summary.csv", SUMMARY).iloc[0]
    train = steps[(steps["phase"] == "train") & (steps["warmup"] == 0)]
    assert row["images"] / row["window_seconds"] == pytest.approx(
        train["images"].sum() / train["step_seconds"].sum(), rel=1e-6
    )
    assert row["fps"] == pytest.approx(row["images"] / row["window_seconds"], rel=1e-6)
    assert row["pipeline_fps"] == pytest.approx(record["phases"]["pipeline"]["fps"], abs=1e-6)
    assert row["compute_fps"] == pytest.approx(record["phases"]["compute"]["fps"], abs=1e-6)
    assert row["accelerator_util"] == pytest.approx(row["fps"] / row["compute_fps"], abs=1e-4)
    assert np.isnan(row["exposed_communication_share"]) == (ranks == 1)
    assert np.isnan(row["top1"])
    assert (row["epochs"], row["devices"]) == (0, ranks)
    assert row["window_end"] == "max_seconds"  # 6 s are fewer than a precise window has


def test_its_record_has_a_verdict_a_ledger_and_the_settings_in_force(throughput: tuple[int, Run]) -> None:
    ranks, made = throughput
    record = made.record
    assert record["status"] == "finished"
    assert record["verdict"]["bottleneck"] in ("pipeline", "compute", "communication", "shared", "uncertain")
    assert record["verdict"]["bottleneck"] == record["summary"]["bottleneck"]
    rates = {name: figures["fps"] for name, figures in record["phases"].items()}
    assert record["verdict"]["data_gain"]["value"] == pytest.approx(rates["compute"] / rates["train"])
    assert record["verdict"]["training_gain"]["value"] == pytest.approx(rates["pipeline"] / rates["train"])
    assert (record["verdict"]["communication_gain"] is None) == (ranks == 1)
    assert re.search(rf"^ +bottleneck +{record['verdict']['bottleneck']}\b", made.out, re.MULTILINE)
    settings_in_force(record, ranks=ranks)
    ledger = record["ledger"]
    buckets_make_wall(ledger)
    assert (ledger["evaluation_seconds"], ledger["checkpoint_seconds"], ledger["compute_seconds"]) == (0.0, 0.0, 0.0)
    # The other phases are no part of the training's window.
    assert ledger["wall_seconds"] == pytest.approx(record["phases"]["train"]["window_seconds"], rel=0.005)


def test_scaling_measures_the_same_job_on_more_ranks(colours: Path, tmp_path: Path) -> None:
    options = [option for option in SMALL if option not in ("--batch-size", "4")]
    made = run(
        tmp_path, *options, "--data", str(colours), "--throughput-only", "--device-counts", "1,2", "--max-seconds", "3",
        "--warmup", "2",
    )  # fmt: skip
    assert made.code == 0, made.err
    table = read_table(tmp_path / "it.scaling.csv", SCALING)
    assert table["devices"].tolist() == [1, 2]
    assert table["run"].tolist() == ["it.n1", "it.n2"]
    assert table["efficiency"][0] == 1.0
    first, second = (json.loads((tmp_path / f"it.n{ranks}.json").read_text()) for ranks in (1, 2))
    assert table["efficiency"][1] == pytest.approx(second["summary"]["fps"] / first["summary"]["fps"] / 2, abs=1e-4)
    for part, name in (("pipeline", "batch_size"), ("training", "compute_threads"), ("pipeline", "decode_threads")):
        assert first["plan"][part][name] == second["plan"][part][name]
    summary = read_table(tmp_path / "summary.csv", SUMMARY)
    assert summary["series"].tolist() == ["it", "it"]
    series = made.record
    assert (series["kind"], series["status"], series["runs"]) == ("scaling", "finished", ["it.n1", "it.n2"])


def test_another_vendors_library_reports_on_the_devices_of_a_run(colours: Path, tmp_path: Path, libixml: Path) -> None:
    """On CPU ranks, whose devices the stand-in's are taken for."""
    made = run(
        tmp_path, *SMALL, "--gpus", "2", "--data", str(colours), "--throughput-only", "--max-seconds", "2",
        "--warmup", "2", "--telemetry-interval", "0.1", "--telemetry-library", str(libixml),
    )  # fmt: skip
    assert made.code == 0, made.err
    assert made.record["plan"]["operation"]["telemetry_library"] == str(libixml)
    assert not [warning for warning in made.record["warnings"] if "telemetry" in warning or "GPU" in warning]
    rows = made.table("devices")
    # Energy alone is read as a segment begins and a burst of steps ends.
    alone = rows["util_percent"].isna() & rows["energy_joules"].notna()
    assert {name: set(energy) for name, energy in rows[alone].groupby("device")["energy_joules"]} == {
        "gpu0": {1000.125}, "gpu1": {2000.125}
    }  # fmt: skip
    devices = rows[~alone].groupby("device")
    assert {name: set(rows["util_percent"]) for name, rows in devices if name != "cpu"} == {"gpu0": {10}, "gpu1": {20}}
    assert made.table("steps")["gpu_util_percent"].dropna().eq(15.0).all()
    assert made.record["summary"]["gpu_util_percent"] == pytest.approx(15.0)


def test_repeats_are_compared_as_one(colours: Path, tmp_path: Path) -> None:
    made = run(
        tmp_path, *SMALL, "--gpus", "1", "--data", str(colours), "--throughput-only", "--repeats", "2",
        "--max-seconds", "3", "--warmup", "2",
    )  # fmt: skip
    assert made.code == 0, made.err
    series = made.record
    rates = [json.loads((tmp_path / f"it.r{k}.json").read_text())["summary"]["fps"] for k in (1, 2)]
    assert series["fps"] == pytest.approx(np.sqrt(rates[0] * rates[1]))
    compared = fork("compare", "it", "it.r1", "--results", str(tmp_path)).end()
    assert compared.code == 0, compared.err
    assert "A and B share runs" in compared.out
