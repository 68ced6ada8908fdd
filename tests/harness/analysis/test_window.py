"""A run's figures from known steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.analysis.window import PhaseFigures, final_accuracy, mark_window, measure_phase, measured_steps
from harness.artifacts.schema import COMPUTE, EPOCHS, EVALUATE, PIPELINE, STEPS, TRAIN
from harness.artifacts.tables import TableWriter, read_table
from harness.errors import TrainingError

USUAL = {"phase": TRAIN, "data_wait_seconds": 0.0, "slowest_rank": 0, "rank_skew_seconds": 0.0, "transition": None}


def steps_table(path: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a run writes them: whether one belongs to the warm-up is unknown unless said."""
    file = path / "steps.csv"
    file.unlink(missing_ok=True)
    with TableWriter(file, STEPS) as writer:
        for number, row in enumerate(rows, 1):
            writer.write({"step": number, **USUAL, **row})
    return read_table(file, STEPS)


def measured(path: Path, rows: list[dict[str, Any]], given_warmup: int = 0, phase: str = TRAIN) -> PhaseFigures:
    return measure_phase(mark_window(steps_table(path, rows), given_warmup=given_warmup)[0], phase)


def test_fps_is_the_windows_images_over_its_seconds(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"images": 64, "step_seconds": 9.0},
        {"images": 64, "step_seconds": 7.0},
        {"images": 64, "step_seconds": 0.5, "data_wait_seconds": 0.1, "gpu_util_percent": 40.0},
        {"images": 64, "step_seconds": 1.5, "data_wait_seconds": 0.3, "gpu_util_percent": 80.0},
        {"images": 50, "step_seconds": 9.0, "phase": EVALUATE},
        {"images": 32, "step_seconds": 1.0, "gpu_util_percent": None},
    ]
    window = measured(tmp_path, rows, given_warmup=2)
    assert window.images == 160
    assert window.window_seconds == 3.0
    assert window.fps == 160 / 3.0  # neither the mean of the steps' rates (85.3) nor with the warm-up
    assert (window.window_steps, window.warmup_steps) == (3, 2)
    assert window.step_seconds_p50 == 1.0
    assert window.step_seconds_sd == 0.5
    assert window.data_wait_share == pytest.approx(0.4 / 3.0)
    assert window.gpu_util_percent == pytest.approx((40 * 0.5 + 80 * 1.5) / 2.0)
    assert window.cpu_util_percent is None


@pytest.mark.parametrize(
    ("steps", "p50", "p95", "p99"),
    [
        (19, 1.0, None, None),
        (20, 1.05, 1.905, None),
        (21, 1.1, 2.0, None),
        (99, 5.0, 9.41, None),
        (100, 5.05, 9.505, 9.901),
        (101, 5.1, 9.6, 10.0),
    ],
)
def test_percentiles_of_enough_steps(
    tmp_path: Path, steps: int, p50: float, p95: float | None, p99: float | None
) -> None:
    window = measured(tmp_path, [{"images": 1, "step_seconds": k / 10} for k in range(1, steps + 1)])
    assert window.step_seconds_p50 == pytest.approx(p50)
    assert window.step_seconds_p95 == (None if p95 is None else pytest.approx(p95))
    assert window.step_seconds_p99 == (None if p99 is None else pytest.approx(p99))


def test_fewer_than_ten_steps_have_no_interval(tmp_path: Path) -> None:
    window = measured(tmp_path, [{"images": 8, "step_seconds": 0.5 + k % 3 / 10} for k in range(9)])
    assert window.window_steps == 9
    unknown = (window.fps_low, window.fps_high, window.relative_standard_error, window.degrees_of_freedom)
    assert unknown == (None, None, None, None)
    assert window.autocorrelation is None
    assert window.fps == pytest.approx(8 * 9 / (3 * 1.8))


def test_ten_steps_have_an_interval_around_their_rate(tmp_path: Path) -> None:
    window = measured(tmp_path, [{"images": 8, "step_seconds": 0.5 + k % 2 / 100} for k in range(10)])
    assert window.fps == pytest.approx(8 / 0.505)
    assert window.fps_low is not None
    assert window.fps_high is not None
    assert 0.9 * window.fps < window.fps_low < window.fps < window.fps_high < 1.1 * window.fps
    # It is symmetric in the step time, of which a rate is the inverse.
    assert window.fps / window.fps_low - 1 == pytest.approx(1 - window.fps / window.fps_high)


def test_steps_that_are_all_alike_have_an_interval_of_no_width(tmp_path: Path) -> None:
    window = measured(tmp_path, [{"images": 8, "step_seconds": 0.25}] * 12)
    assert (window.fps_low, window.fps, window.fps_high) == (32.0, 32.0, 32.0)
    assert (window.relative_standard_error, window.degrees_of_freedom, window.step_seconds_sd) == (0.0, 11.0, 0.0)


def test_one_step_has_a_rate_and_no_deviation(tmp_path: Path) -> None:
    window = measured(tmp_path, [{"images": 8, "step_seconds": 0.25}])
    assert (window.fps, window.window_steps, window.step_seconds_sd) == (32.0, 1, None)


def test_the_slowest_rank_is_the_one_that_was_slowest_most_often(tmp_path: Path) -> None:
    rows = [{"images": 8, "step_seconds": 1.0, "slowest_rank": rank, "rank_skew_seconds": skew}
            for rank, skew in ((0, 0.1), (3, 0.2), (1, 0.0), (3, 0.3))]  # fmt: skip
    window = measured(tmp_path, rows)
    assert window.slowest_rank == 3
    # rank 3 was slowest by 0.5 s in all, and 0.1 s behind others
    assert window.rank_skew_share == pytest.approx(0.4 / 4)


def segment(number: int, phase: str, seconds: float, count: int, transition: int = 0) -> list[dict[str, Any]]:
    """A block of count steps behind some that settle and take 5 s each."""
    usual = {"segment": number, "phase": phase, "images": 32}
    return [{**usual, "step_seconds": 5.0, "transition": True}] * transition + [
        {**usual, "step_seconds": seconds}
    ] * count


def phases_in_turn(warm_steps: int, rounds: int) -> list[dict[str, Any]]:
    """Training at 80 images/s for a block, then rounds of pipeline-only at 320, training, and compute-only at 160."""
    rows = segment(1, TRAIN, 0.4, warm_steps)
    for number in range(2, 2 + 3 * rounds, 3):
        rows += segment(number, PIPELINE, 0.1, 5, transition=3)
        rows += segment(number + 1, TRAIN, 0.4, 8, transition=1)
        rows += segment(number + 2, COMPUTE, 0.2, 6, transition=1)
    return rows


def test_every_phase_is_measured_for_itself_without_its_settling_steps(tmp_path: Path) -> None:
    marked, state = mark_window(steps_table(tmp_path, phases_in_turn(4, 3)), given_warmup=2)
    assert state.steady is True
    found = {phase: measure_phase(marked, phase) for phase in (PIPELINE, TRAIN, COMPUTE)}
    assert {phase: figures.fps for phase, figures in found.items()} == pytest.approx(
        {PIPELINE: 320.0, TRAIN: 80.0, COMPUTE: 160.0}
    )
    assert {phase: figures.window_steps for phase, figures in found.items()} == {PIPELINE: 15, TRAIN: 26, COMPUTE: 18}
    assert {phase: figures.warmup_steps for phase, figures in found.items()} == {PIPELINE: 9, TRAIN: 5, COMPUTE: 3}
    assert found[TRAIN].window_seconds == pytest.approx(26 * 0.4)


def test_every_row_is_marked(tmp_path: Path) -> None:
    table = steps_table(tmp_path, phases_in_turn(4, 2))
    assert table["transition"].isna().sum() == 4 + 2 * 19
    marked, _ = mark_window(table, given_warmup=4)
    assert set(marked["warmup"]) == {0, 1}
    assert marked["warmup"].sum() == 4 + 2 * 5
    assert list(marked.columns) == STEPS.header
    # The table that was given is as it was.
    assert table["warmup"].isna().all()


@pytest.mark.parametrize("breaks", [(), (5,), (3, 3), (2, 6)])
def test_marking_a_marked_table_changes_nothing(tmp_path: Path, breaks: tuple[int, ...]) -> None:
    """Settling marks stay apart from what is found, so neither can be taken for the other."""
    once, state = mark_window(steps_table(tmp_path, phases_in_turn(14, 3)), min_warmup=2, breaks=breaks)
    assert 0 < once["warmup"].sum() < len(once)
    twice, again = mark_window(once, min_warmup=2, breaks=breaks)
    pd.testing.assert_frame_equal(twice, once)
    assert again == state


def resumed_run() -> list[dict[str, Any]]:
    """Attempts of 40, 8 and 60 training steps at 80 images/s, the first 4 of each slow, with evaluations."""
    evaluation: dict[str, Any] = {"images": 32, "step_seconds": 0.2, "phase": EVALUATE}
    rows: list[dict[str, Any]] = []
    # The second attempt's evaluation lies between its third step and its fourth.
    for first_segment, epochs in ((1, (20, 20)), (5, (3, 5)), (9, (30, 30))):
        made = 0
        for segment, count in enumerate(epochs):
            for _ in range(count):
                seconds = 2.0 if made < 4 else 0.4 + (made % 2 - 0.5) / 1000
                rows.append({"images": 32, "step_seconds": seconds, "segment": first_segment + 2 * segment})
                made += 1
            rows += [{**evaluation, "segment": first_segment + 2 * segment + 1}] * 2
    return rows


@pytest.mark.parametrize("given", [None, 4])
def test_every_attempt_of_a_resumed_run_has_the_warm_up_of_the_first(tmp_path: Path, given: int | None) -> None:
    marked, state = mark_window(steps_table(tmp_path, resumed_run()), given_warmup=given, breaks=[5, 9])
    assert (state.warmup_steps, state.steady) == (4, True)
    train = marked[marked["phase"] == TRAIN]
    assert list(train["warmup"]) == [1] * 4 + [0] * 36 + [1] * 4 + [0] * 4 + [1] * 4 + [0] * 56
    figures = measure_phase(marked)
    assert figures.fps == pytest.approx(80.0, rel=1e-3)
    assert (figures.window_steps, figures.warmup_steps) == (96, 12)
    # The evaluation inside the second attempt's warm-up is no part of the window either.
    evaluations = marked[marked["phase"] == EVALUATE]
    assert list(evaluations["warmup"]) == [0] * 4 + [1] * 2 + [0] * 6


def test_an_attempt_that_never_left_its_warm_up_is_none_of_the_window(tmp_path: Path) -> None:
    marked, state = mark_window(steps_table(tmp_path, resumed_run()), given_warmup=10, breaks=[5, 9])
    assert state.warmup_steps == 10
    assert set(marked[marked["segment"].between(5, 8)]["warmup"]) == {1}
    assert measure_phase(marked).window_steps == 30 + 50


@pytest.mark.parametrize("breaks", [(1,), (1, 1), (99,)])
def test_attempts_without_a_row_change_nothing(tmp_path: Path, breaks: tuple[int, ...]) -> None:
    """A run that was stopped before its first checkpoint begins again with block 1."""
    table = steps_table(tmp_path, resumed_run()[:50])
    one, state = mark_window(table)
    more, of_more = mark_window(table, breaks=breaks)
    assert list(more["warmup"]) == list(one["warmup"])
    assert of_more == state
    assert state.warmup_steps == 4


def test_a_drift_from_attempt_to_attempt_is_no_steady_state(tmp_path: Path) -> None:
    rows = [{"images": 32, "step_seconds": 0.4 + 0.1 * (k // 100), "segment": 1 + k // 100} for k in range(300)]
    state = mark_window(steps_table(tmp_path, rows), given_warmup=5, breaks=[2, 3])[1]
    assert (state.warmup_steps, state.steady) == (5, False)
    # The straight line through three equal stairs rises by 8 / 3 of a stair, which is a fifth of the mean.
    assert state.drift == pytest.approx(8 / 3 / 5, rel=0.01)
    assert state.reason.count("changes by") == 1
    # An attempt that drifts in itself is told as that of all, once.
    rows = [{"images": 32, "step_seconds": 0.4 + k % 100 / 1000, "segment": 1 + k // 100} for k in range(300)]
    state = mark_window(steps_table(tmp_path, rows), given_warmup=5, breaks=[2, 3])[1]
    assert state.reason.startswith("warm-up given by --warmup")
    assert state.reason.count("changes by") <= 1


def test_the_other_phases_windows_begin_with_trainings(tmp_path: Path) -> None:
    """A warm-up that ends in the second round: what was measured before it doesn't count."""
    marked, state = mark_window(steps_table(tmp_path, phases_in_turn(4, 3)), given_warmup=14)
    assert state.warmup_steps == 14  # 4, then 8 of the first round's, and 2 of the second's
    training = marked[marked["phase"] == TRAIN]
    assert list(training["warmup"]) == [1] * 4 + [1] * 9 + [1] * 3 + [0] * 6 + [1] + [0] * 8
    assert sorted(set(measured_steps(marked, TRAIN)["segment"])) == [6, 9]
    # Pipeline-only precedes training in its round, compute-only follows it.
    assert list(measured_steps(marked, PIPELINE)["segment"]) == [8] * 5
    assert list(measured_steps(marked, COMPUTE)["segment"]) == [7] * 6 + [10] * 6
    assert measure_phase(marked, PIPELINE).warmup_steps == 3 + 2 * 8


def test_a_phase_with_nothing_behind_the_warm_up_keeps_its_last_block(tmp_path: Path) -> None:
    marked, _ = mark_window(steps_table(tmp_path, phases_in_turn(4, 3)), given_warmup=22)
    assert list(measured_steps(marked, TRAIN)["segment"]) == [9] * 6
    assert list(measured_steps(marked, PIPELINE)["segment"]) == [8] * 5
    assert list(measured_steps(marked, COMPUTE)["segment"]) == [10] * 6


def test_the_end_of_the_warm_up_is_found_in_the_step_times(tmp_path: Path) -> None:
    rows = [{"images": 32, "step_seconds": 1.0 if k < 12 else 0.4} for k in range(60)]
    marked, state = mark_window(steps_table(tmp_path, rows))
    assert (state.warmup_steps, state.steady) == (12, True)
    assert measure_phase(marked).fps == pytest.approx(80.0)
    marked, state = mark_window(steps_table(tmp_path, rows), min_warmup=20)
    assert (state.warmup_steps, state.steady) == (20, True)
    assert measure_phase(marked).window_steps == 40


def test_a_run_that_never_left_its_warm_up_has_no_figure(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="after 3 steps of phase train, before any step was measured") as caught:
        measured(tmp_path, [{"images": 64, "step_seconds": 1.0}] * 3, given_warmup=3)
    assert "--max-seconds" in caught.value.cure
    assert "--warmup" in caught.value.cure


def test_a_phase_that_only_settled_has_no_figure(tmp_path: Path) -> None:
    rows = [{"images": 64, "step_seconds": 1.0, "phase": COMPUTE, "transition": True}] * 2
    with pytest.raises(TrainingError, match="after 2 steps of phase compute"):
        measured(tmp_path, rows, phase=COMPUTE)


def test_an_interval_that_reaches_a_step_time_of_0_has_no_upper_end(tmp_path: Path) -> None:
    # one step of 1000 s among short ones: the mean step time of 100 s may as well be 0
    window = measured(tmp_path, [{"images": 8, "step_seconds": 1000.0 if k == 5 else 1e-3} for k in range(10)])
    assert window.fps_low is not None
    assert window.fps_low < window.fps == pytest.approx(80 / math.fsum([1000.0, 9e-3]))
    assert window.fps_high is None


def test_the_final_accuracy_is_the_last_epochs(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "epochs.csv", EPOCHS) as writer:
        assert final_accuracy(read_table(tmp_path / "epochs.csv", EPOCHS)) == {
            "top1": None, "top5": None, "val_images": None, "epochs": 0
        }  # fmt: skip
        writer.write({"epoch": 1, "top1": 0.9, "top5": 0.99})
        writer.write({"epoch": 2, "top1": 0.7062, "top5": 0.8991, "val_images": 49_997})
    accuracy = final_accuracy(read_table(tmp_path / "epochs.csv", EPOCHS))
    assert accuracy == {"top1": 0.7062, "top5": 0.8991, "val_images": 49_997, "epochs": 2}
