"""Simulated throughput runs that stand still for 8 s in one of their phases, as a stopped process does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.summarize import RunFigures
from harness.analysis.verdict import MEASURE_AGAIN
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, STEPS, TRAIN
from harness.artifacts.tables import read_table
from tests.support.simulation import BATCH, Simulation, ar1

STOP = 8.0
NOISE = ar1(0.5, 20_000, 0.003, seed=1)


def machine(ranks: int, max_seconds: float = 20.0) -> Simulation:
    """Ranks that compute for 0.1 s a step and decode in a fifth of that."""
    return Simulation(
        decode=lambda rank, batch: 0.02,
        compute=lambda rank, step: 0.1 + float(NOISE[step]),
        ranks=ranks,
        exchange_seconds=0.01,
        options={"max_seconds": max_seconds},
    )


def stopped(folder: Path, phase: str, ranks: int = 1) -> tuple[RunFigures, RunFigures]:
    """The run with and without a stop of its last rank in the middle of a phase's measured steps."""
    quiet = machine(ranks)
    (folder / "quiet").mkdir()
    undisturbed, files = quiet.run(folder / "quiet")
    steps = read_table(files.table(STEPS.name), STEPS)
    # What counts the rank's batches is counted by the rows of the phases that take them.
    users = (TRAIN, PIPELINE) if phase == PIPELINE else (TRAIN, COMPUTE, COMPUTE_NO_SYNC)
    rows = steps[steps["phase"].isin(users)].reset_index(drop=True)
    measured = rows[(rows["phase"] == phase) & (rows["warmup"] == 0)]
    # A few batches are read ahead or cached: in the middle of a segment, the count may be off by these.
    segment = measured.index[measured["segment"] == measured["segment"].min()]
    at = int(segment[len(segment) // 2])

    def still(seconds: float, rank: int, number: int) -> float:
        return seconds + STOP * (rank == ranks - 1 and number == at)

    if phase == PIPELINE:
        run = replace(quiet, decode=lambda rank, batch: still(quiet.decode(rank, batch), rank, batch))
    else:
        run = replace(quiet, compute=lambda rank, step: still(quiet.compute(rank, step), rank, step))
    return run.run(folder)[0], undisturbed


@pytest.mark.parametrize(
    ("phase", "ranks"), [(COMPUTE, 1), (PIPELINE, 1), (TRAIN, 1), (COMPUTE, 2), (COMPUTE_NO_SYNC, 2)]
)
def test_a_stop_is_found_in_the_phase_that_it_fell_into(tmp_path: Path, phase: str, ranks: int) -> None:
    found, undisturbed = stopped(tmp_path, phase, ranks)
    outliers = found.phases[phase].outliers
    assert (outliers.count, outliers.isolated_steps) == (1, 1)
    assert outliers.excess_seconds == pytest.approx(STOP, rel=0.02)
    assert found.phases[phase].fps < 0.7 * undisturbed.phases[phase].fps
    assert outliers.usual_fps == pytest.approx(undisturbed.phases[phase].fps, rel=0.02)
    assert {name for name, figures in found.phases.items() if figures.outliers.count} == {phase}
    assert found.outliers == found.phases[TRAIN].outliers
    assert found.verdict is not None
    assert not found.verdict.certain
    assert found.verdict.remedies[0] == MEASURE_AGAIN
    assert f"{phase}_disturbed" in found.summary["verdict_doubts"].split("|")
    assert undisturbed.verdict is not None
    assert undisturbed.verdict.certain
    assert undisturbed.summary["verdict_doubts"] == "none"


def test_no_stage_is_named_after_a_stop_of_compute_only(tmp_path: Path) -> None:
    """Row 62 of the trial: a utilisation of four times what there is, beside a bottleneck that looked certain."""
    found, _ = stopped(tmp_path, COMPUTE)
    assert found.verdict is not None
    assert found.verdict.accelerator_util > 4
    assert found.verdict.bottleneck == found.summary["bottleneck"] == "uncertain"
    assert found.summary["verdict_doubts"] == "compute_disturbed|compute_too_slow"
    assert found.verdict.remedies == (MEASURE_AGAIN,)


def test_slow_storage_is_no_disturbance(tmp_path: Path) -> None:
    """Every 20th batch takes as long as 50 others: that is how fast the data are."""
    slow = replace(machine(1, 60.0), decode=lambda rank, batch: 1.0 if batch % 20 == 0 else 0.02)
    found, _ = slow.run(tmp_path)
    assert found.phases[PIPELINE].outliers.count >= 5
    assert found.summary["verdict_doubts"] == "none"
    assert found.phases[PIPELINE].fps == pytest.approx(BATCH / (1.38 / 20), rel=0.2)
