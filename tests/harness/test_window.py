"""A run's figures from known steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.window import final_accuracy, measure_window
from harness.errors import TrainingError
from harness.tables.files import TableWriter, read_table
from harness.tables.schema import EPOCHS, STEPS


def steps_file(path: Path, rows: list[dict[str, object]]) -> Path:
    with TableWriter(path, STEPS) as writer:
        for number, row in enumerate(rows, 1):
            writer.write({"phase": "train", "step": number, "data_wait_seconds": 0.0, "warmup": False, **row})
    return path


def test_fps_is_the_windows_images_over_its_seconds(tmp_path: Path) -> None:
    path = steps_file(
        tmp_path / "steps.csv",
        [
            {"images": 64, "step_seconds": 9.0, "warmup": True},
            {"images": 64, "step_seconds": 7.0, "warmup": True},
            {"images": 64, "step_seconds": 0.5, "data_wait_seconds": 0.1, "gpu_util_percent": 40.0},
            {"images": 64, "step_seconds": 1.5, "data_wait_seconds": 0.3, "gpu_util_percent": 80.0},
            {"images": 50, "step_seconds": 9.0, "phase": "evaluate"},
            {"images": 32, "step_seconds": 1.0, "gpu_util_percent": None},
        ],
    )
    window = measure_window(read_table(path, STEPS))
    assert window.images == 160
    assert window.window_seconds == 3.0
    assert window.fps == 160 / 3.0  # neither the mean of the steps' rates (85.3) nor with the warm-up
    assert (window.window_steps, window.warmup_steps) == (3, 2)
    assert window.step_seconds_p50 == 1.0
    assert window.step_seconds_p95 is None
    assert window.data_wait_share == pytest.approx(0.4 / 3.0)
    assert window.gpu_util_percent == pytest.approx((40 * 0.5 + 80 * 1.5) / 2.0)
    assert window.cpu_util_percent is None


def test_percentiles_of_enough_steps(tmp_path: Path) -> None:
    path = steps_file(tmp_path / "steps.csv", [{"images": 1, "step_seconds": k / 10} for k in range(1, 22)])
    window = measure_window(read_table(path, STEPS))
    assert window.step_seconds_p50 == pytest.approx(1.1)
    assert window.step_seconds_p95 == pytest.approx(2.0)


def test_a_run_that_never_left_its_warm_up_has_no_figure(tmp_path: Path) -> None:
    path = steps_file(tmp_path / "steps.csv", [{"images": 64, "step_seconds": 1.0, "warmup": True}] * 3)
    with pytest.raises(TrainingError, match="after 3 warm-up steps, before any was measured"):
        measure_window(read_table(path, STEPS))


def test_the_final_accuracy_is_the_last_epochs(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "epochs.csv", EPOCHS) as writer:
        assert final_accuracy(read_table(tmp_path / "epochs.csv", EPOCHS)) == {"top1": None, "top5": None, "epochs": 0}
        writer.write({"epoch": 1, "top1": 0.9, "top5": 0.99})
        writer.write({"epoch": 2, "top1": 0.7062, "top5": 0.8991})
    accuracy = final_accuracy(read_table(tmp_path / "epochs.csv", EPOCHS))
    assert accuracy == {"top1": 0.7062, "top5": 0.8991, "epochs": 2}
