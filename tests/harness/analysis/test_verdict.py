"""Which stage is named, how sure that is, and its interval; whole simulated runs are in test_simulation.py."""

from __future__ import annotations

import pytest

from harness.analysis.gains import gain, without_communication, without_data, without_training
from harness.analysis.interval import mean_estimate
from harness.analysis.remedies import REMEDIES, Setting
from harness.analysis.verdict import judge
from harness.analysis.window import PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN
from harness.machine import device_kinds
from tests.support.plans import GPU_SETTING, rate
from tests.support.simulation import ar1

CPU = Setting(device_kinds.CPU, 2, 2, 2, 1, 1, 2, from_storage=False, decoder="cpu")
# One rank with two compute threads and one decode thread on two cores.
ONE_DECODE_THREAD = Setting(device_kinds.CPU, 1, 1, 2, 2, 1, 2, from_storage=False, decoder="cpu")


def phases(
    pipeline: float, compute: float, train: float, alone: float | None = None, error: float | None = 0.002
) -> dict[str, PhaseFigures]:
    rates = {PIPELINE: pipeline, COMPUTE: compute, TRAIN: train}
    rates |= {} if alone is None else {COMPUTE_NO_SYNC: alone}
    return {name: rate(fps, error) for name, fps in rates.items()}


@pytest.mark.parametrize(
    ("rates", "bottleneck"),
    [
        (phases(33.6, 195, 27.6), "pipeline"),
        (phases(1274, 34.2, 33.3), "compute"),
        (phases(1274, 34.2, 33.3, 35.2), "compute"),
        (phases(3000, 1000, 700), "compute"),
        (phases(1000, 3000, 800), "pipeline"),
        (phases(100, 100, 55), "shared"),
        (phases(1000, 1000, 1000), "shared"),
        # exchanging gradients takes a fifth, a half and three quarters of the time
        (phases(3000, 800, 790, 1000), "compute"),
        (phases(3000, 500, 495, 1000), "shared"),
        (phases(3000, 250, 248, 1000), "communication"),
        # the pipeline's own pace leaves communication nothing to bring
        (phases(200, 250, 198, 1000), "pipeline"),
        # one after the other on the same cores: decoding and computing 0.1 s an image, gradients 0.15 s
        (phases(10, 4, 1 / 0.35, 10), "communication"),
    ],
)
def test_the_stage_whose_removal_brings_most_is_named(rates: dict[str, PhaseFigures], bottleneck: str) -> None:
    assert judge(rates, CPU).bottleneck == bottleneck
    assert judge(rates, GPU_SETTING).bottleneck == bottleneck


def test_a_small_change_of_a_rate_never_turns_the_answer_round() -> None:
    """From a pipeline half as fast as compute-only to one twice as fast, in steps of 1 %: shared lies between."""
    names = [judge(phases(1000 * 1.01**step, 1000, 450), GPU_SETTING).bottleneck for step in range(-70, 71)]
    assert list(dict.fromkeys(names)) == ["pipeline", "shared", "compute"]


def test_the_case_of_one_decode_thread() -> None:
    """12-megapixel JPEGs: a core is left for decoding, which leaves training waiting for 69 % of the time."""
    rates = phases(33.6, 195, 27.6)
    rates[TRAIN] = rate(27.6, data_wait_share=0.69)
    verdict = judge(rates, ONE_DECODE_THREAD)
    assert (verdict.bottleneck, verdict.certain) == ("pipeline", True)
    assert verdict.data_gain.value == pytest.approx(7.07, abs=0.01)
    assert verdict.training_gain.value == pytest.approx(1.22, abs=0.01)
    assert verdict.remedies[0] == (
        "Decoding leaves cores idle. Raise --decode-threads (this run: 1 per rank, 2 cores)."
    )
    assert not [line for line in verdict.remedies if "prefetch" in line or "compute-threads" in line]


def test_communication_counts_end_to_end() -> None:
    """Compute-only would gain 4 x without it; end to end also waits for data, and the pipeline has its own pace."""
    assert gain(without_communication, phases(3000, 250, 250, 1000)).value == pytest.approx(3000 / 750 / 1.0)
    assert gain(without_communication, phases(500, 250, 250, 1000)).value == pytest.approx(2.0)
    # 1 ms of 5 is data's and stays
    assert gain(without_communication, phases(3000, 250, 200, 1000)).value == pytest.approx(5 / 2)
    # noise: slower with less to do
    assert gain(without_communication, phases(3000, 250, 251, 249)).value == pytest.approx(249 / 251)


def test_a_gain_has_the_interval_of_its_two_rates() -> None:
    found = gain(without_data, phases(1000, 300, 100, error=0.02))
    assert found.value == pytest.approx(3.0)
    # Student's 2.0086 at 50 degrees of freedom, on the logarithm
    assert found.low is not None
    assert found.high is not None
    assert found.high / found.value == pytest.approx(1.0585, abs=1e-4)
    assert found.value / found.low == pytest.approx(1.0585, abs=1e-4)


def test_a_gain_needs_the_intervals_of_its_own_phases_only() -> None:
    rates = {**phases(1000, 300, 100), PIPELINE: rate(1000, None)}
    assert gain(without_data, rates).low is not None
    assert gain(without_training, rates).low is None
    constant = phases(1000, 300, 100, error=0.0)
    assert gain(without_data, constant).low == gain(without_data, constant).high == pytest.approx(3.0)


def test_the_intervals_hold_the_truth() -> None:
    """300 pairs of series with phi 0.5, of a short run's lengths; docs/methodology.md has more."""
    held = 0
    for seed in range(300):
        rates = {}
        for at, (name, seconds, steps) in enumerate(((TRAIN, 1.0, 60), (COMPUTE, 0.8, 40))):
            estimate = mean_estimate(seconds * (1 + ar1(0.5, steps, 0.05, 2 * seed + at)))
            assert estimate.standard_error is not None
            rates[name] = rate(
                1 / estimate.mean,
                estimate.standard_error / estimate.mean,
                degrees_of_freedom=estimate.degrees_of_freedom,
            )
        found = gain(without_data, rates)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1 / 0.8 <= found.high
    assert 0.92 * 300 <= held <= 0.99 * 300


def test_a_ratio_of_gains_whose_interval_holds_the_factor_is_uncertain() -> None:
    assert judge(phases(3000, 1000, 990), GPU_SETTING).certain
    assert judge(phases(1010, 1000, 990), GPU_SETTING).certain  # shared, and certainly so
    assert not judge(phases(1210, 1000, 990, error=0.01), GPU_SETTING).certain
    assert not judge(phases(1190, 1000, 990, error=0.01), GPU_SETTING).certain
    assert not judge(phases(3000, 1000, 990, error=None), GPU_SETTING).certain
    assert not judge(phases(3000, 500, 495, 1100, error=0.01), GPU_SETTING).certain


def test_time_that_neither_stage_explains() -> None:
    verdict = judge(phases(2000, 1000, 500), GPU_SETTING)
    assert verdict.unexplained_share == pytest.approx(0.25)
    assert verdict.evidence[-1] == (
        "25.0% of end to end's time is beyond the sum of pipeline-only and compute-only: the stages slow one another"
        " down, or something else does."
    )
    assert judge(phases(2000, 1000, 700), GPU_SETTING).unexplained_share == 0.0


def test_communication_is_what_exchanging_gradients_adds() -> None:
    verdict = judge(phases(3000, 900, 890, 1000), GPU_SETTING)
    assert verdict.exposed_communication_share == pytest.approx(0.1)
    alone = judge(phases(3000, 900, 890), GPU_SETTING)
    assert (alone.exposed_communication_share, alone.communication_gain, alone.computation_gain) == (None, None, None)


def test_a_stage_whose_removal_brings_nothing_has_no_remedy() -> None:
    def stages(rates: dict[str, PhaseFigures]) -> list[str]:
        starts = {remedy.text.partition("{")[0]: remedy.stage for remedy in REMEDIES}
        given = judge(rates, CPU).remedies
        return list(dict.fromkeys(stage for line in given for start, stage in starts.items() if line.startswith(start)))

    assert stages(phases(3000, 1000, 990)) == ["compute"]
    assert stages(phases(1000, 3000, 990)) == ["pipeline"]
    assert stages(phases(2000, 1000, 667)) == ["compute", "pipeline"]
    assert stages(phases(1000, 2000, 667)) == ["pipeline", "compute"]
    assert stages(phases(3000, 800, 790, 1000)) == ["compute", "communication"]
    assert stages(phases(3000, 250, 248, 1000)) == ["communication", "compute"]


def test_the_slow_rank_is_named() -> None:
    rates = {**phases(3000, 1000, 990), COMPUTE_NO_SYNC: rate(1010, rank_skew_share=0.2, slowest_rank=3)}
    verdict = judge(rates, Setting(device_kinds.GPU, 4, 4, 64, 8, 8, 2, from_storage=False, decoder="mixed"))
    assert verdict.slowest_rank == 3
    assert "Rank 3 computes longer than the fastest rank, by 20% of a step." in verdict.evidence
    assert verdict.remedies[0].startswith("Rank 3 computes longer than the others, which wait for it.")
