"""The verdict's arithmetic and its doubts; which bottleneck it finds is in test_simulation.py."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.verdict import Setting, judge
from harness.analysis.window import PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN

GPU = Setting("gpu", 1, 64, 8, 8, 2, from_storage=False)
CPU = Setting("cpu", 2, 2, 1, 1, 2, from_storage=False)


def figures(fps: float, error: float | None = 0.002, **changes: Any) -> PhaseFigures:
    usual: dict[str, Any] = {
        "images": 1000, "window_seconds": 1000 / fps, "window_steps": 100, "warmup_steps": 5, "fps": fps,
        "fps_low": fps * 0.99, "fps_high": fps * 1.01, "relative_standard_error": error, "degrees_of_freedom": 50.0,
        "autocorrelation": 0.0, "step_seconds_p50": 0.1, "step_seconds_p95": 0.1, "step_seconds_p99": 0.1,
        "step_seconds_sd": 0.0, "data_wait_share": 0.0, "rank_skew_share": 0.0, "slowest_rank": 0,
        "gpu_util_percent": None, "cpu_util_percent": None,
    }  # fmt: skip
    return PhaseFigures(**{**usual, **changes})


def phases(
    pipeline: float, compute: float, train: float, alone: float | None = None, **of_train: Any
) -> dict[str, PhaseFigures]:
    found = {PIPELINE: figures(pipeline), COMPUTE: figures(compute), TRAIN: figures(train, **of_train)}
    return found if alone is None else {**found, COMPUTE_NO_SYNC: figures(alone)}


@pytest.mark.parametrize(
    ("rates", "setting", "bottleneck"),
    [
        (phases(3000, 1000, 990), GPU, "compute"),
        (phases(3000, 1000, 900), GPU, "compute"),
        (phases(3000, 1000, 899), GPU, "shared"),
        (phases(1000, 3000, 990), GPU, "pipeline"),
        (phases(1000, 3000, 800, data_wait_share=0.7), GPU, "pipeline"),
        (phases(1000, 3000, 800, data_wait_share=0.1), GPU, "shared"),
        (phases(3000, 800, 790, 1001), GPU, "communication"),
        (phases(3000, 801, 790, 1000), GPU, "compute"),
        (phases(1200, 35, 34), CPU, "compute"),
        # decoding takes 3 % of the cores' time and can't be what slows a training by 14 %
        (phases(1200, 35, 30), CPU, "compute"),
        (phases(1200, 35, 20, data_wait_share=0.4), CPU, "pipeline"),
        (phases(200, 35, 30), CPU, "shared"),
        (phases(100, 100, 55, data_wait_share=0.4), CPU, "shared"),
        (phases(10, 1500, 9.9, data_wait_share=0.99), CPU, "pipeline"),
    ],
)
def test_the_bound(rates: dict[str, PhaseFigures], setting: Setting, bottleneck: str) -> None:
    assert judge(rates, setting).bottleneck == bottleneck


def test_a_ratio_whose_interval_holds_the_limit_is_uncertain() -> None:
    assert judge(phases(3000, 1000, 990), GPU).certain
    assert not judge(phases(3000, 1000, 904), GPU).certain
    assert not judge(phases(3000, 1000, 990, error=0.05), GPU).certain
    assert not judge(phases(3000, 1000, 990, error=None), GPU).certain
    assert not judge(phases(3000, 802, 790, 1000), GPU).certain
    assert not judge(phases(1000, 3000, 902), GPU).certain
    assert not judge(phases(1200, 35, 30), CPU).certain


def test_ceiling_share_and_what_nobody_explains() -> None:
    verdict = judge(phases(2000, 1000, 700), GPU)
    assert (verdict.ceiling_low_fps, verdict.ceiling_high_fps) == (1000, 1000)
    assert verdict.share_of_ceiling == pytest.approx(0.7)
    assert verdict.unexplained_share == pytest.approx(0.3)
    verdict = judge(phases(2000, 1000, 700), CPU)
    assert verdict.ceiling_low_fps == pytest.approx(2000 / 3)
    assert verdict.unexplained_share == 0.0
    assert judge(phases(2000, 1000, 600), CPU).unexplained_share == pytest.approx(0.1)


def test_communication_is_what_exchanging_gradients_adds() -> None:
    verdict = judge(phases(3000, 900, 890, 1000), GPU)
    assert verdict.exposed_communication_share == pytest.approx(0.1)
    assert judge(phases(3000, 900, 890), GPU).exposed_communication_share is None


def test_remedies_name_flags_and_fit_the_setting() -> None:
    def remedies(rates: dict[str, PhaseFigures], **setting: Any) -> str:
        usual = {
            "device": "gpu",
            "ranks": 4,
            "cores": 64,
            "compute_threads": 1,
            "decode_threads": 4,
            "prefetch": 3,
            "from_storage": False,
        }
        return "\n".join(judge(rates, Setting(**{**usual, **setting})).remedies)

    starved = phases(1000, 3000, 990)
    assert "--decode-threads" in remedies(starved)
    assert "cores are left" not in remedies(starved, decode_threads=16)
    assert "--hw-decoder-load" in remedies(starved)
    assert "--hw-decoder-load" not in remedies(starved, device="cpu")
    assert "storage" in remedies(starved, from_storage=True)
    assert "storage" not in remedies(starved)
    assert "--prefetch 6 evens" in remedies(phases(1000, 3000, 800, data_wait_share=0.7))
    assert "--batch-size" in remedies(phases(3000, 700, 690, 1000))
    assert "--model" in remedies(phases(3000, 1000, 990))
    skewed = {**phases(3000, 1000, 990), COMPUTE_NO_SYNC: figures(1010, rank_skew_share=0.2, slowest_rank=3)}
    verdict = judge(skewed, GPU)
    assert verdict.slowest_rank == 3
    assert any("rank 3" in line for line in verdict.evidence)
    assert any("devices.csv" in line for line in verdict.remedies)
