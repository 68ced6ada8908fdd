"""Two loaders in turns within one run: the simulation's own rates come out, whatever the queues hold at a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.comparing.loaders import LoaderRatio, loader_ratios
from harness.artifacts.record import read_record
from harness.artifacts.reference_table import of_other_loader, reference_row
from harness.artifacts.schema import STEPS
from harness.artifacts.tables import read_table
from tests.support.plans import a_plan, figures
from tests.support.simulation import BATCH, Simulation

LOADERS = {"loader": "dali,opencv", "max_seconds": 120.0}


def measured(tmp_path: Path, decode: float, other: float, compute: float) -> tuple[LoaderRatio, LoaderRatio, Path]:
    """End to end and pipeline only, with seconds per batch of each loader and per step of training."""
    simulation = Simulation(
        decode=lambda _, __: decode, other=lambda _, __: other, compute=lambda _, __: compute, options=LOADERS
    )
    found, files = simulation.run(tmp_path)
    end_to_end, pipeline = found.loaders
    return end_to_end, pipeline, files.record


@pytest.mark.parametrize(
    ("decode", "other", "compute", "ratio"),
    [(0.1, 0.25, 0.05, 2.5), (0.02, 0.03, 0.2, 1.0), (0.1, 0.3, 0.2, 1.5), (0.3, 0.1, 0.05, 1 / 3)],
    ids=["both bound by data", "both bound by training", "one of each", "the other is faster"],
)
def test_the_rates_that_were_put_in_come_out(
    tmp_path: Path, decode: float, other: float, compute: float, ratio: float
) -> None:
    end_to_end, pipeline, _ = measured(tmp_path, decode, other, compute)
    assert (end_to_end.phase, pipeline.phase) == ("end to end", "pipeline only")
    assert (end_to_end.loader, end_to_end.beside_loader) == ("dali", "opencv")
    assert end_to_end.fps == pytest.approx(BATCH / max(decode, compute), rel=1e-3)
    assert end_to_end.beside_fps == pytest.approx(BATCH / max(other, compute), rel=1e-3)
    assert end_to_end.ratio == pytest.approx(ratio, rel=1e-3)
    assert (pipeline.fps, pipeline.beside_fps) == pytest.approx((BATCH / decode, BATCH / other), rel=1e-3)
    for found in (end_to_end, pipeline):
        assert found.ratio_low is not None
        assert found.ratio_high is not None
        assert found.ratio_low < found.ratio < found.ratio_high


def test_compute_only_waits_until_both_queues_are_full(tmp_path: Path) -> None:
    """Of the other loader 8 batches of 0.25 s: what of compute-only lies in the 2 s before doesn't count."""
    _, _, record = measured(tmp_path, 0.1, 0.25, 0.05)
    steps = read_table(record.with_name(f"simulated.{STEPS.name}.csv"), STEPS)
    assert steps["phase"].drop_duplicates().tolist() == [
        *("train", "pipeline", "pipeline_beside", "train_beside", "compute")
    ]
    for _, segment in steps[steps["phase"] == "compute"].groupby("segment"):
        early = segment["step_seconds"].cumsum() - segment["step_seconds"] < 2.0 - 1e-6
        assert (segment.loc[early, "transition"] == 1).all()
        assert segment.loc[~early, "transition"].iloc[1:].isna().all()


def test_the_verdict_is_on_the_run_s_own_loader(tmp_path: Path) -> None:
    for name in ("alone", "both"):
        (tmp_path / name).mkdir()
    alone, _ = Simulation(decode=lambda _, __: 0.1, compute=lambda _, __: 0.05).run(tmp_path / "alone")
    both, _ = Simulation(
        decode=lambda _, __: 0.1, other=lambda _, __: 0.25, compute=lambda _, __: 0.05, options=LOADERS
    ).run(tmp_path / "both")
    assert alone.verdict is not None
    assert both.verdict is not None
    assert both.verdict.bottleneck == alone.verdict.bottleneck == "pipeline"
    assert both.summary["fps"] == pytest.approx(alone.summary["fps"], rel=1e-3)


def test_a_run_with_one_loader_has_no_ratios() -> None:
    assert loader_ratios({"train": figures()}, a_plan()) == ()


def test_each_loader_has_its_row_under_the_reference_s_header(tmp_path: Path) -> None:
    simulation = Simulation(
        decode=lambda _, __: 0.1, other=lambda _, __: 0.25, compute=lambda _, __: 0.05, options=LOADERS
    )
    found, files = simulation.run(tmp_path)
    record = read_record(files.record)
    for name, value in found.as_record().items():
        object.__setattr__(record, name, value)
    other = of_other_loader(record)
    assert other is not None
    rows = [reference_row(one).cells for one in (record, other)]
    assert [float(row[2]) for row in rows] == pytest.approx([BATCH / 0.1, BATCH / 0.25], rel=1e-2)
    assert [row[0].endswith("OpenCV loader") for row in rows] == [False, True]
    assert of_other_loader(other) is None
