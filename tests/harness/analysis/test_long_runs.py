"""Runs of epochs whose truth was put in: as long as one likes, resumed, and concluded more than once."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.analysis.summarize import RunFigures, summarize
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import DEVICES, STEPS, TRAIN
from harness.artifacts.tables import read_table
from harness.errors import InvariantError
from tests.support.long_runs import (
    BATCH,
    BETWEEN_BLOCKS,
    EVALUATION_SECONDS,
    RANKS,
    SLOW_STEPS,
    STEP_SECONDS,
    WATTS,
    LongRun,
)

# 6 epochs of 200 steps, stopped for three hours behind the second and behind the third; in the fifth a GPU is too hot.
RUN = LongRun(epochs=6, steps_per_epoch=200, resumed_behind=(2, 3), hot_epoch=5)


@pytest.fixture(scope="module")
def concluded(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFigures, RunFiles]:
    files, record = RUN.write(tmp_path_factory.mktemp("long"))
    return summarize(files, record, RUN.breaks), files


def test_a_resumed_run_is_as_fast_as_its_steps(concluded: tuple[RunFigures, RunFiles]) -> None:
    conclusion, files = concluded
    train = conclusion.phases[TRAIN]
    assert train.fps == pytest.approx(RANKS * BATCH / STEP_SECONDS, rel=0.01)
    assert (train.window_steps, train.warmup_steps) == (6 * 200 - 3 * SLOW_STEPS, 3 * SLOW_STEPS)
    assert (conclusion.steady.warmup_steps, conclusion.steady.steady) == (SLOW_STEPS, True)
    assert train.step_seconds_sd == pytest.approx(0.02 * STEP_SECONDS, rel=0.05)
    assert conclusion.summary["window_end"] == "epochs"
    assert (conclusion.summary["top1"], conclusion.summary["epochs"]) == (0.7, 6)
    steps = read_table(files.table(STEPS.name), STEPS)
    warm = steps[(steps["phase"] == TRAIN) & (steps["warmup"] == 1)]
    assert sorted(set(warm["epoch"])) == [1, 3, 4]
    assert (warm["step_seconds"] > 2 * STEP_SECONDS).all()


def test_the_hours_between_attempts_are_in_no_bucket(concluded: tuple[RunFigures, RunFiles]) -> None:
    ledger, train = concluded[0].ledger, concluded[0].phases[TRAIN]
    evaluation = 6 * RUN.evaluation_steps * EVALUATION_SECONDS
    # Six times from training to evaluation, and from an evaluation to the next epoch but where the run was stopped.
    between = (6 + 3) * BETWEEN_BLOCKS
    assert ledger.evaluation_seconds == pytest.approx(evaluation, rel=1e-6)
    assert ledger.wall_seconds == pytest.approx(train.window_seconds + evaluation + between, rel=1e-5)
    assert ledger.exchange_seconds == pytest.approx(0.01 * train.window_seconds + between, rel=1e-4)
    assert ledger.data_wait_seconds == pytest.approx(0.1 * train.window_seconds, rel=1e-4)
    assert abs(ledger.rest_seconds) < 1e-4 * ledger.wall_seconds


def test_without_its_breaks_the_hours_would_count(tmp_path: Path) -> None:
    files, record = RUN.write(tmp_path)
    assert summarize(files, record).ledger.exchange_seconds == pytest.approx(2 * 3 * 3600, rel=0.01)


def test_telemetry_of_a_resumed_run_is_that_of_its_steps(concluded: tuple[RunFigures, RunFiles]) -> None:
    conclusion, files = concluded
    assert conclusion.interference.reasons == ("gpu_throttled",)
    # Samples come every half second, steps every 0.8 s.
    assert conclusion.interference.interference_steps == pytest.approx(200, abs=1)
    assert conclusion.summary["images_per_joule"] == pytest.approx(BATCH / STEP_SECONDS / WATTS, rel=0.01)
    steps = read_table(files.table(STEPS.name), STEPS)
    assert set(steps[(steps["epoch"] == 5) & (steps["phase"] == TRAIN)]["interference"][:-1]) == {"gpu_throttled"}
    assert (steps["interference"] == "gpu_throttled").sum() == pytest.approx(200, abs=2)
    assert set(steps[steps["epoch"].isin((1, 2, 3, 6))]["interference"]) == {"none"}


@pytest.mark.parametrize("run", [RUN, LongRun(epochs=2, steps_per_epoch=50, hot_epoch=2)])
def test_a_run_that_is_concluded_again_says_the_same(tmp_path: Path, run: LongRun) -> None:
    """As after a kill between the filling of the steps table and the run's end."""
    files, record = run.write(tmp_path)
    table = files.table(STEPS.name)
    raw = table.read_bytes()
    first = summarize(files, record, run.breaks)
    filled = table.read_bytes()
    assert filled != raw
    again = summarize(files, record, run.breaks)
    assert json.dumps(again.as_record()) == json.dumps(first.as_record())
    assert table.read_bytes() == filled


def test_a_run_resumed_after_its_summary_is_summarized_again(tmp_path: Path) -> None:
    """Epochs that a later attempt adds lie in the same table as those whose columns are filled in already."""
    (tmp_path / "whole").mkdir()
    short, whole = LongRun(epochs=4, steps_per_epoch=100), LongRun(epochs=6, steps_per_epoch=100, resumed_behind=(4,))
    files, record = short.write(tmp_path)
    summarize(files, record)
    expected_files, expected_record = whole.write(tmp_path / "whole")
    for name in ("steps", "devices", "epochs"):
        lines = expected_files.table(name).read_bytes().splitlines(keepends=True)
        begun = files.table(name).read_bytes()
        files.table(name).write_bytes(begun + b"".join(lines[begun.count(b"\n") :]))
    expected = summarize(expected_files, expected_record, whole.breaks)
    found = summarize(files, expected_record, whole.breaks)
    assert asdict(found)["phases"] == asdict(expected)["phases"]
    assert found.ledger == expected.ledger
    assert files.table("steps").read_bytes() == expected_files.table("steps").read_bytes()


def test_a_table_is_read_in_part_as_it_is_whole(tmp_path: Path) -> None:
    files, _ = LongRun(epochs=2, steps_per_epoch=200).write(tmp_path)
    path = files.table(DEVICES.name)
    whole = read_table(path, DEVICES)
    part = read_table(path, DEVICES, ("energy_joules", "device", "time_unix_seconds", "processes"))
    assert list(part.columns) == ["time_unix_seconds", "device", "energy_joules", "processes"]
    assert part.equals(whole[list(part.columns)])
    assert len(part) == path.read_bytes().count(b"\n") - 1 > 3000
    assert math.isclose(part["time_unix_seconds"].iloc[-1], 1.75e9 + 2 * 168, rel_tol=1e-7)


def test_a_table_whose_header_lacks_a_column_is_not_read_in_part(tmp_path: Path) -> None:
    files, _ = LongRun(epochs=1, steps_per_epoch=20).write(tmp_path)
    path = files.table(DEVICES.name)
    path.write_bytes(path.read_bytes().replace(b",quota_throttled_seconds", b"", 1))
    with pytest.raises(InvariantError, match="not the header of table devices"):
        read_table(path, DEVICES, ("device",))
