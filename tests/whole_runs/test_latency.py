"""`run_bench.py latency` as a user starts it, with two small sizes at 32 pixels."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.latency.stored import read_latency
from harness.analysis.latency.table import LATENCY
from harness.artifacts.tables import read_table
from tests.support.runs import launch

pytestmark = pytest.mark.whole_run


def test_two_small_sizes_with_both_of_paddles_engines(tmp_path: Path) -> None:
    ended = launch(
        "latency", "--model", "x0_25,x0_35", "--engine", "paddle-onednn,paddle", "--image-size", "32",
        "--seconds", "0.3", "--rounds", "6", "--results", str(tmp_path), "--name", "it",
    ).end()  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert "round 6/6" in ended.out
    record = read_latency(tmp_path / "it.json")
    table = read_table(tmp_path / "it.latency.csv", LATENCY)
    assert list(zip(table["model"], table["engine"], strict=True)) == list(record.job.pairs) == list(record.measured)
    assert (table["median_ms"] > 0).all()
    assert (table["median_low_ms"] <= table["median_ms"]).all()
    assert (table["median_ms"] <= table["median_high_ms"]).all()
    assert (table["p95_ms"] >= table["median_ms"]).all()
    assert table["logits_error"].max() < 1e-4
    assert (table["calls"] >= 6 * 15).all()
    assert len(record.turns) == 24
    assert [claim.sizes for claim in record.claims] == [("x0_25", "x0_35")] * 2
    kernels = {(one.size, one.engine): {use.primitive for use in one.kernels} for one in record.profiles}
    assert kernels["x0_25", "paddle-onednn"] >= {"convolution", "inner_product"}
    assert kernels["x0_25", "paddle"] == set()
    # What depends on the processor and on what else it does is in the record, and asserted nowhere.
    assert record.environment["cpu"]
    assert b"Accuracy over latency" in (tmp_path / "it.html").read_bytes()
