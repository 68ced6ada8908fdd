"""The harness against runs whose truth was put in: each figure within 1 %, each bottleneck by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.analysis.summarize import summarize
from harness.artifacts.record import read_record
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, EPOCHS, PIPELINE, STEPS, TRAIN
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.tables import read_table
from harness.errors import InvariantError, TrainingError
from harness.plan.plan import WindowPlan
from harness.training.phases import is_precise
from tests.support.simulation import BATCH, ONE_CORE, START, Simulation, ar1

LONG = {"max_seconds": 2000.0, "target_ci": 1e-6}


def half_as_long(rank: int, batch: int) -> float:
    """Decoding that keeps up; at a tenth of a step, as usual, most of a long simulation would be steps of it."""
    return 0.05


def test_each_phase_runs_at_its_own_rate(tmp_path: Path) -> None:
    concluded, _ = Simulation(ranks=2, exchange_seconds=0.01).run(tmp_path)
    rates = {name: figures.fps for name, figures in concluded.phases.items()}
    assert rates == pytest.approx(
        {
            TRAIN: 2 * BATCH / 0.11,
            PIPELINE: 2 * BATCH / 0.01,
            COMPUTE: 2 * BATCH / 0.11,
            COMPUTE_NO_SYNC: 2 * BATCH / 0.1,
        }
    )
    assert concluded.verdict is not None
    assert concluded.verdict.exposed_communication_share == pytest.approx(0.01 / 0.11)
    assert concluded.verdict.accelerator_util == pytest.approx(1.0)
    assert concluded.summary["window_end"] == "target_ci"


def test_every_second_lies_in_one_bucket(tmp_path: Path) -> None:
    concluded, _ = Simulation(decode=lambda rank, batch: 0.15).run(tmp_path)
    ledger, steps = concluded.ledger, concluded.phases[TRAIN].window_steps
    assert ledger.wall_seconds == pytest.approx(0.15 * steps, rel=1e-4)
    assert ledger.data_wait_seconds == pytest.approx(0.05 * steps, rel=1e-4)
    parts = (ledger.forward_seconds, ledger.backward_seconds, ledger.optimizer_seconds)
    assert parts == pytest.approx((0.025 * steps, 0.05 * steps, 0.025 * steps), rel=1e-4)
    assert abs(ledger.rest_seconds) < 1e-4 * ledger.wall_seconds
    assert concluded.phases[TRAIN].data_wait_share == pytest.approx(1 / 3, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("warmup", [30, 60, 120])
def test_the_warm_up_is_cut_where_it_ends(tmp_path: Path, warmup: int) -> None:
    noise = ar1(0.5, 100_000, 0.003, seed=warmup)

    def compute(rank: int, step: int) -> float:
        return (0.1 if step >= warmup else 0.25) + float(noise[step])

    concluded, files = Simulation(decode=half_as_long, compute=compute, options={**LONG, "max_seconds": 500.0}).run(
        tmp_path
    )
    steps = read_table(files.table(STEPS.name), STEPS)
    training = steps[steps["phase"] == TRAIN]
    # Other phases' steps are over in the meantime too.
    slow = int((training["step_seconds"] > 0.2).sum())
    assert concluded.steady.warmup_steps == pytest.approx(slow, rel=0.1)
    assert concluded.steady.steady is True
    assert concluded.phases[TRAIN].fps == pytest.approx(BATCH / 0.1, rel=0.01)
    assert steps["warmup"].notna().all()
    assert concluded.summary["warmup_steps"] == (training["warmup"] == 1).sum()


def test_a_given_warm_up_is_taken_as_it_is(tmp_path: Path) -> None:
    concluded, _ = Simulation(options={"warmup": 7}).run(tmp_path)
    assert concluded.steady.warmup_steps == 7


@pytest.mark.slow
def test_noise_is_told_as_it_was_put_in(tmp_path: Path) -> None:
    """AR(1) noise of 4 % with phi 0.8."""
    noise = ar1(0.8, 100_000, 0.004, seed=3)
    series = 0.1 + noise

    def compute(rank: int, step: int) -> float:
        return float(series[step])

    concluded, files = Simulation(decode=half_as_long, compute=compute, options=LONG).run(tmp_path)
    train = concluded.phases[TRAIN]
    table = read_table(files.table(STEPS.name), STEPS)
    window = table[(table["phase"] == TRAIN) & (table["warmup"] == 0)]
    assert train.fps == pytest.approx(BATCH / 0.1, rel=0.01)
    # The window's steps are some of those that were put in, and the figures are theirs, which differ from the 0.004 s
    # and the 0.8 that a series was drawn with.
    measured = window["step_seconds"].to_numpy()
    put_in = np.sort(series)
    above = np.clip(np.searchsorted(put_in, measured), 1, len(put_in) - 1)
    assert np.minimum(abs(put_in[above] - measured), abs(put_in[above - 1] - measured)).max() < 2e-9
    assert train.step_seconds_sd == pytest.approx(np.std(measured, ddof=1), rel=0.01)
    assert train.step_seconds_sd == pytest.approx(0.004, rel=0.06)
    assert train.autocorrelation == pytest.approx(np.corrcoef(measured[:-1], measured[1:])[0, 1], rel=0.01)
    assert train.autocorrelation == pytest.approx(0.8, rel=0.02)
    # The true standard error of a mean of n AR(1) values.
    truth = 0.004 * np.sqrt((1 + 0.8) / (1 - 0.8) / len(window)) / 0.1
    assert train.relative_standard_error == pytest.approx(truth, rel=0.1)
    assert train.fps_low is not None
    assert train.fps_high is not None
    assert train.fps_low < BATCH / 0.1 < train.fps_high


def test_periodic_stalls_are_counted_and_their_cause_is_named(tmp_path: Path) -> None:
    concluded, files = Simulation(
        # every 50th batch takes so long that DALI's queue runs dry
        decode=lambda rank, batch: 1.0 if batch % 50 == 49 else 0.01,
        options={**LONG, "max_seconds": 600.0},
    ).run(tmp_path)
    outliers = concluded.outliers
    steps = read_table(files.table(STEPS.name), STEPS)
    window = steps[(steps["phase"] == TRAIN) & (steps["warmup"] == 0)]
    assert outliers.count == (window["data_wait_seconds"] > 0.5).sum() > 30
    assert set(outliers.causes) == {"data wait"}
    # of the 1.0 s the queue's two batches and the step's own time hide 0.2 to 0.3
    assert outliers.excess_seconds / outliers.count == pytest.approx(0.8, rel=0.01)
    assert outliers.excess_share == pytest.approx(0.8 * outliers.count / window["step_seconds"].sum(), rel=0.01)


@pytest.mark.parametrize("drift", [0.2, -0.2])
def test_a_drift_is_no_steady_state_and_its_size_is_told(tmp_path: Path, drift: float) -> None:
    total = 3_200  # optimizer steps of this run, of all phases

    def compute(rank: int, step: int) -> float:
        return 0.1 * (1 + drift * step / total)

    concluded, files = Simulation(
        decode=half_as_long, compute=compute, options={**LONG, "max_seconds": 400.0, "warmup": 3}
    ).run(tmp_path)
    table = read_table(files.table(STEPS.name), STEPS)
    window = table[(table["phase"] == TRAIN) & (table["warmup"] == 0)]["step_seconds"]
    assert concluded.steady.steady is False
    # the other phases' blocks make it a staircase; test_steady.py has the straight line, within 1 %
    assert concluded.steady.drift == pytest.approx((window.iloc[-1] - window.iloc[0]) / window.mean(), rel=0.15)
    assert concluded.summary["window_end"] == "max_seconds"
    assert concluded.summary["steady"] is False


def test_a_window_grows_until_it_is_precise(tmp_path: Path) -> None:
    noise = ar1(0.0, 100_000, 0.03, seed=5)
    steps = {}
    for precision in (0.05, 0.01):
        simulation = Simulation(
            decode=half_as_long,
            compute=lambda rank, step: 0.2 + float(noise[step]),
            options={"target_ci": precision, "max_seconds": 2000.0},
        )
        (tmp_path / str(precision)).mkdir()
        concluded, _ = simulation.run(tmp_path / str(precision))
        assert concluded.summary["window_end"] == "target_ci"
        train = concluded.phases[TRAIN]
        assert train.fps_low is not None
        assert train.fps / train.fps_low - 1 <= precision
        steps[precision] = train.window_steps
    assert steps[0.05] < steps[0.01]


def test_time_ends_a_window_that_does_not_become_precise(tmp_path: Path) -> None:
    noise = ar1(0.0, 100_000, 0.03, seed=5)
    options = {"target_ci": 0.001, "max_seconds": 60.0}
    concluded, files = Simulation(compute=lambda rank, step: 0.2 + float(noise[step]), options=options).run(tmp_path)
    assert concluded.summary["window_end"] == "max_seconds"
    measured = read_table(files.table(STEPS.name), STEPS)["step_seconds"].sum()
    assert 45 <= measured <= 61


@pytest.mark.parametrize(("prefetch", "seconds"), [(64, 50.0), (100, 60.0)])
def test_what_ended_the_loop_is_recorded_though_the_steps_are_precise(
    tmp_path: Path, prefetch: int, seconds: float
) -> None:
    """Case E3: with a long queue a round takes so long that time is up before there are as many as phases need."""
    options = {"prefetch": prefetch, "max_seconds": seconds, "target_ci": 0.05}
    concluded, files = Simulation(decode=lambda rank, batch: 0.09, options=options).run(tmp_path)
    steps = read_table(files.table(STEPS.name), STEPS)
    settled = steps[(steps["phase"] == TRAIN) & (steps["transition"] != 1)]["step_seconds"].tolist()
    assert is_precise(settled, WindowPlan(3, False, 0.05, seconds))
    assert concluded.summary["window_end"] == read_record(files.record).window_end == "max_seconds"


def test_a_window_that_is_too_short_to_be_precise_was_ended_by_time(tmp_path: Path) -> None:
    """Its steps are all alike, but 10 s are asked for and the run has 8."""
    concluded, _ = Simulation(options={"max_seconds": 8.0, "target_ci": 0.5}).run(tmp_path)
    assert concluded.phases[TRAIN].window_seconds < 8.0
    assert concluded.summary["window_end"] == "max_seconds"


def test_the_phases_are_interleaved(tmp_path: Path) -> None:
    """A machine that becomes half as fast hits all phases alike; one after the other, they would differ by a third."""

    def compute(rank: int, step: int) -> float:
        return 0.1 * (1 + step / 3000)

    concluded, files = Simulation(decode=half_as_long, compute=compute, options={**LONG, "max_seconds": 400.0}).run(
        tmp_path
    )
    steps = read_table(files.table(STEPS.name), STEPS)
    order = steps.drop_duplicates("segment")["phase"].tolist()
    assert order[:7] == [TRAIN, PIPELINE, TRAIN, COMPUTE, PIPELINE, TRAIN, COMPUTE]
    assert concluded.verdict is not None
    assert concluded.verdict.accelerator_util == pytest.approx(1.0, abs=0.03)


BOTTLENECKS = {
    "slow decoding": (Simulation(decode=lambda rank, batch: 0.5), "pipeline"),
    "slow storage on every tenth batch": (
        Simulation(decode=lambda rank, batch: 2.0 if batch % 10 == 0 else 0.02), "pipeline"
    ),
    "slow compute": (Simulation(compute=lambda rank, step: 2.0), "compute"),
    "decoding keeps up": (Simulation(decode=lambda rank, batch: 0.08), "compute"),
    "decoding just keeps up": (Simulation(decode=lambda rank, batch: 0.098), "shared"),
    "decoding fails to": (Simulation(decode=lambda rank, batch: 0.13), "pipeline"),
    "decoding slows the device down": (
        Simulation(decode=lambda rank, batch: 0.08, beside=(1 / 1.4, 1.0)), "compute"
    ),
    "gradients take two thirds": (Simulation(ranks=4, exchange_seconds=0.2), "communication"),
    "gradients take half": (Simulation(ranks=4, exchange_seconds=0.1), "shared"),
    "gradients take a third": (Simulation(ranks=4, exchange_seconds=0.05), "compute"),
    "gradients that hardly matter": (Simulation(ranks=4, exchange_seconds=0.01), "compute"),
    "one slow rank": (Simulation(ranks=4, compute=lambda rank, step: 0.14 if rank == 2 else 0.1), "compute"),
    "one rank with slow storage": (
        Simulation(ranks=4, decode=lambda rank, batch: 0.3 if rank == 1 else 0.01), "pipeline"
    ),
    "one core, alike": (
        Simulation(decode=lambda rank, batch: 0.1, device="cpu", beside=ONE_CORE), "shared"
    ),
    "one core, some decoding": (
        Simulation(decode=lambda rank, batch: 0.05, device="cpu", beside=ONE_CORE), "compute"
    ),
    "one core, hardly any decoding": (
        Simulation(decode=lambda rank, batch: 0.004, device="cpu", beside=ONE_CORE), "compute"
    ),
    "one core, mostly decoding": (
        Simulation(decode=lambda rank, batch: 2.0, device="cpu", beside=ONE_CORE), "pipeline"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_a_bottleneck_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    simulation, bottleneck = BOTTLENECKS[name]
    concluded, _ = simulation.run(tmp_path)
    assert concluded.verdict is not None
    assert concluded.verdict.bottleneck == bottleneck
    # Where both stages keep pace with one another, neither alone brings anything.
    assert bool(concluded.verdict.remedies) == (name != "decoding just keeps up")
    assert concluded.summary["bottleneck"] == bottleneck
    assert set(concluded.summary) == set(SUMMARY.header)


def test_compute_only_waits_until_dali_rests(tmp_path: Path) -> None:
    """Behind a training that waits for data, DALI fills its queue for 4 s and takes half of the device meanwhile."""
    simulation = Simulation(decode=lambda rank, batch: 1.0, beside=(1 / 1.5, 1.0), options={"prefetch": 4})
    concluded, _ = simulation.run(tmp_path)
    assert concluded.phases[COMPUTE].fps == pytest.approx(BATCH / 0.1, rel=0.01)
    assert concluded.verdict is not None
    assert concluded.verdict.bottleneck == "pipeline"


def test_equal_ranks_with_jitter_have_no_slow_one(tmp_path: Path) -> None:
    """Of four ranks one is slowest in every step; by chance, it is not always the same."""
    noise = [ar1(0.0, 20_000, 0.004, seed) for seed in range(4)]
    slow = Simulation(
        ranks=4, decode=half_as_long, compute=lambda rank, step: 0.1 + float(noise[rank][step]) + 0.03 * (rank == 1)
    )
    equal = Simulation(ranks=4, decode=half_as_long, compute=lambda rank, step: 0.1 + float(noise[rank][step]))
    for name, simulation in (("equal", equal), ("slow", slow)):
        (tmp_path / name).mkdir()
        verdict = simulation.run(tmp_path / name)[0].verdict
        assert verdict is not None
        assert verdict.slowest_rank == (None if name == "equal" else 1)
        assert verdict.rank_skew_share == pytest.approx(0.0 if name == "equal" else 0.034 / 0.13, abs=0.02)


def test_a_warm_up_longer_than_the_run_measures_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="before any step was measured") as caught:
        Simulation(options={"warmup": 10_000, "max_seconds": 20.0}).run(tmp_path)
    assert "--max-seconds" in caught.value.cure


def test_figures_that_contradict_one_another_leave_the_table_as_it_was(tmp_path: Path) -> None:
    _, files = Simulation().run(tmp_path)
    path = files.table(STEPS.name)
    lines = path.read_text(encoding="utf-8").splitlines()
    row = lines[10].split(",")
    assert row[STEPS.header.index("phase")] == TRAIN
    row[STEPS.header.index("data_wait_seconds")] = "7.0"
    path.write_text("\n".join([*lines[:10], ",".join(row), *lines[11:], ""]), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(InvariantError, match="the parts of 1 step don't add up to step_seconds"):
        summarize(files, read_record(files.record))
    assert path.read_bytes() == before


def test_a_throughput_run_that_is_concluded_again_says_the_same(tmp_path: Path) -> None:
    """The phases' settling marks are what the warm-up is told apart from, in a table that has it filled in too."""
    concluded, files = Simulation(ranks=2, options={"warmup": 7}).run(tmp_path)
    path = files.table(STEPS.name)
    filled = path.read_bytes()
    steps = read_table(path, STEPS)
    assert 0 < (steps["transition"] == 1).sum() < (steps["warmup"] == 1).sum()
    again = summarize(files, read_record(files.record))
    assert again.as_record() == concluded.as_record()
    assert again.steady.warmup_steps == 7
    assert path.read_bytes() == filled


def test_a_setting_that_is_not_in_force_ends_the_run_with_its_first_block(tmp_path: Path) -> None:
    with pytest.raises(InvariantError, match="image_size 225 was asked for, 224 was in force"):
        Simulation(options={"image_size": 225}).run(tmp_path)
    assert len(set(pd.read_csv(tmp_path / "simulated.steps.csv")["segment"])) == 1


def test_the_slow_rank_is_named(tmp_path: Path) -> None:
    concluded, _ = BOTTLENECKS["one slow rank"][0].run(tmp_path)
    assert concluded.verdict is not None
    assert concluded.verdict.slowest_rank == 2
    assert concluded.verdict.rank_skew_share == pytest.approx(0.04 / 0.14)


def test_what_each_stage_for_nothing_would_bring(tmp_path: Path) -> None:
    """Of a step of 0.15 s on one core, which decodes for 0.05 s of it; and of one of 0.3 s whose gradients take 0.2."""
    (tmp_path / "core").mkdir()
    core = Simulation(decode=lambda rank, batch: 0.05, device="cpu", beside=ONE_CORE)
    verdict = core.run(tmp_path / "core")[0].verdict
    assert verdict is not None
    assert verdict.data_gain.value == pytest.approx(0.15 / 0.1, rel=0.01)
    assert verdict.training_gain.value == pytest.approx(0.15 / 0.05, rel=0.01)
    assert (verdict.communication_gain, verdict.computation_gain) == (None, None)
    assert verdict.unexplained_share == pytest.approx(0.0, abs=0.01)
    verdict = Simulation(ranks=2, exchange_seconds=0.2).run(tmp_path)[0].verdict
    assert verdict is not None
    assert verdict.communication_gain is not None
    assert verdict.computation_gain is not None
    assert verdict.communication_gain.value == pytest.approx(3.0, rel=0.01)
    assert verdict.computation_gain.value == pytest.approx(1.5, rel=0.01)
    assert verdict.training_gain.value == pytest.approx(30.0, rel=0.01)


def host_rows(seconds: int, **columns: float) -> list[dict[str, Any]]:
    """Samples of the host, one a second over the simulated run; the offset to the time of day is the recorder's."""
    import time

    offset = time.time() - time.perf_counter() + START
    usual = {"util_percent": 95.0, "foreign_util_percent": 1.0, "steal_percent": 0.0, "swap_bytes": 0,
             "storage_read_bytes": 0, "quota_throttled_seconds": 0.0}  # fmt: skip
    return [{"time_unix_seconds": offset + second, "device": "cpu", **usual, **columns} for second in range(seconds)]


@pytest.mark.parametrize(
    ("columns", "interference"),
    [
        ({}, "none"),
        ({"foreign_util_percent": 50.0}, "foreign_cpu"),
        ({"foreign_util_percent": 50.0, "util_percent": 60.0}, "none"),
        ({"steal_percent": 20.0}, "cpu_steal"),
        ({"swap_bytes": 4096}, "swap"),
        ({"quota_throttled_seconds": 0.3, "steal_percent": 20.0}, "cpu_quota|cpu_steal"),
        ({"storage_read_bytes": 32e6}, "cold_data"),  # 320 images/s of 100 kB
        ({"storage_read_bytes": 1e6}, "none"),
    ],
)
def test_what_disturbs_a_run_is_told(tmp_path: Path, columns: dict[str, float], interference: str) -> None:
    concluded, files = Simulation(device="cpu", device_rows=host_rows(200, **columns)).run(tmp_path)
    assert concluded.summary["interference"] == interference
    assert {figures.interference for figures in concluded.phases.values()} == {interference}
    steps = read_table(files.table(STEPS.name), STEPS)
    measured = steps[steps["step_seconds"] > 0]
    assert {frozenset(text.split("|")) for text in measured["interference"]} == {frozenset(interference.split("|"))}


def test_a_run_without_telemetry_is_neither_tainted_nor_clean(tmp_path: Path) -> None:
    concluded, files = Simulation().run(tmp_path)
    assert concluded.interference.reasons is None
    assert concluded.summary["interference"] is None
    assert set(read_table(files.table(STEPS.name), STEPS)["interference"]) == {""}


def test_the_tables_hold_what_was_concluded(tmp_path: Path) -> None:
    """Anybody can compute the throughput again from steps.csv."""
    concluded, files = Simulation().run(tmp_path)
    steps = pd.read_csv(files.table(STEPS.name))
    window = steps[(steps["phase"] == TRAIN) & (steps["warmup"] == 0)]
    assert window["images"].sum() / window["step_seconds"].sum() == pytest.approx(concluded.summary["fps"], abs=1e-6)
    assert read_table(files.table(EPOCHS.name), EPOCHS).empty
