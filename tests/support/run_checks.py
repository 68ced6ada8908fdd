"""What holds for the tables and the record of every run."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from harness.machine.host import allowed_cores
from harness.machine.placement.core_lists import format_cores


def settings_in_force(record: dict[str, Any], ranks: int) -> None:
    """DALI and Paddle report what was planned; a CPU has neither a JPEG engine nor TF32."""
    assert record["effective_settings"] == {
        "loader": "dali", "workers": None,
        "decode_threads": record["plan"]["pipeline"]["decode_threads"], "prefetch": 2,
        "decoder": "cpu", "decode_region": True,
        "hw_decoder_load": None, "width_hint": None, "height_hint": None,
        "batch_size": 4,
        "image_size": 32, "dtype": "float32", "layout": "nchw", "preprocessing": "paddleclas", "antialias": False,
        "resize": "fused", "auto_augment": False, "parameters": "float32", "logits": "float32",
        "network_layout": "nchw",
        "strides": "both", "sync_batch_norm": False, "to_static": False, "accumulation_steps": 1, "ranks": ranks,
        "cudnn_tf32": None,
        "rank_cores": [format_cores(allowed_cores())] * ranks,
    }  # fmt: skip
    assert record["plan"]["pipeline"]["decode_threads"] >= 1


def parts_make_steps(steps: pd.DataFrame) -> None:
    parts = steps[["data_wait_seconds", "copy_seconds", "compute_seconds", "recording_seconds", "exchange_seconds"]]
    assert (parts >= 0).all().all()
    assert list(parts.sum(axis=1)) == pytest.approx(list(steps["step_seconds"]), abs=1e-8)
    told = steps[["forward_seconds", "backward_seconds", "optimizer_seconds"]].dropna()
    assert list(told.sum(axis=1)) == pytest.approx(list(steps.loc[told.index, "compute_seconds"]), abs=1e-8)


def buckets_make_wall(ledger: dict[str, float]) -> None:
    """Every second in one bucket, the rest not counted."""
    buckets = [value for name, value in ledger.items() if name not in ("wall_seconds", "rest_seconds")]
    assert len(buckets) == 10
    assert sum(buckets) == pytest.approx(ledger["wall_seconds"], rel=0.005)
    assert sum(buckets) + ledger["rest_seconds"] == pytest.approx(ledger["wall_seconds"], rel=1e-9)
