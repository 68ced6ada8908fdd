from __future__ import annotations

import pytest

from harness.analysis.latency.table import LATENCY
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS, Table
from harness.artifacts.shared_schema import BAD_FILES, SCALING, SUMMARY, reference_table
from tests.support.plans import a_record, a_throughput_record

TABLES = (STEPS, DEVICES, EPOCHS, BAD_IMAGES, SCALING, SUMMARY, reference_table("BI", 4), BAD_FILES, LATENCY)
SCOPES = {"global", "per device", "rank 0's host", "run", "rank that got its batch last"}


def test_columns_of_the_steps_table() -> None:
    assert STEPS.header == [
        *("phase", "segment", "epoch", "step", "time_unix_seconds", "images", "step_seconds", "fps"),
        *(
            "data_wait_seconds",
            "storage_wait_seconds",
            "copy_seconds",
            "compute_seconds",
            "forward_seconds",
            "backward_seconds",
            "optimizer_seconds",
        ),
        *("recording_seconds", "exchange_seconds", "slowest_rank", "rank_skew_seconds", "loss", "learning_rate"),
        *("gpu_util_percent", "gpu_util_min_percent", "gpu_util_max_percent", "cpu_util_percent"),
        *("jpeg_util_percent", "sm_util_percent", "foreign_cpu_percent", "overflow", "transition"),
        *("warmup", "interference"),
    ]


def test_columns_of_the_devices_table() -> None:
    assert DEVICES.header == [
        *("time_unix_seconds", "device", "name", "uuid", "util_percent", "memory_used_bytes", "memory_total_bytes"),
        *("power_watts", "temperature_celsius", "sm_clock_mhz", "memory_clock_mhz", "throttle_reasons"),
        *("jpeg_util_percent", "sm_util_percent", "dram_util_percent", "energy_joules", "processes"),
        *("foreign_util_percent", "steal_percent", "swap_bytes", "storage_read_bytes", "quota_throttled_seconds"),
    ]


def test_columns_of_the_epochs_table() -> None:
    assert EPOCHS.header == [
        *("epoch", "images", "seconds", "fps", "train_loss", "val_loss", "top1", "top5", "learning_rate"),
        *("val_images", "evaluation_seconds"),
    ]


def test_columns_of_the_bad_images_table() -> None:
    assert BAD_IMAGES.header == ["split", "path", "label", "reason", "rank", "epoch"]


def test_columns_of_the_summary() -> None:
    assert SUMMARY.header == [
        *("run", "series", "model", "dataset", "crop_size", "device", "device_name", "devices", "batch_size", "amp"),
        *(
            "fps",
            "fps_low",
            "fps_high",
            "fps_per_device",
            "steady",
            "window_end",
            "interference",
            "bottleneck",
            "verdict_doubts",
        ),
        *("data_gain", "data_gain_low", "data_gain_high"),
        *("training_gain", "training_gain_low", "training_gain_high"),
        *("communication_gain", "communication_gain_low", "communication_gain_high"),
        "pipeline_fps",
        *("compute_fps", "accelerator_util", "exposed_communication_share", "images", "window_seconds"),
        *("window_steps", "warmup_steps", "step_seconds_p50", "step_seconds_p95", "step_seconds_p99"),
        *("outlier_steps", "overflow_steps", "interference_steps", "data_wait_share", "top1", "top5", "val_images"),
        *("epochs", "left_out_train_images", "left_out_val_images"),
        *("gpu_util_percent", "cpu_util_percent", "model_flops_util", "images_per_joule"),
    ]


def test_columns_of_the_scaling_table() -> None:
    assert SCALING.header == [
        *(
            "devices",
            "run",
            "fps",
            "fps_low",
            "fps_high",
            "efficiency",
            "superlinear",
            "bottleneck",
            "exposed_communication_share",
        ),
        *("slowest_rank", "rank_skew_share"),
    ]


def test_the_records_that_tests_share_have_the_columns_of_the_summary() -> None:
    for record in (a_record(), a_throughput_record()):
        assert set(record.summary) == set(SUMMARY.header)


def test_the_mirrored_table_has_the_header_of_the_reference() -> None:
    assert reference_table("BI", 4).header == ["Method", "Crop Size", "FPS (BI x 4)", "TOP1 Accuracy"]
    assert reference_table("CPU", 2).header == ["Method", "Crop Size", "FPS (CPU x 2)", "TOP1 Accuracy"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_no_two_columns_of_a_table_share_a_name(table: Table) -> None:
    assert len(set(table.header)) == len(table.columns) == len(table.header)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_of_a_kind_that_can_be_written_and_says_its_scope(table: Table) -> None:
    assert table.row
    for column in table.columns:
        assert column.kind in (int, float, bool, str), column.name
        assert column.scope in SCOPES, column.name
        assert column.digits >= 0, column.name


@pytest.mark.parametrize(
    ("ending", "unit"),
    [
        ("_seconds", "s"),
        ("_percent", "%"),
        ("_bytes", "bytes"),
        ("_watts", "W"),
        ("_celsius", "°C"),
        ("_mhz", "MHz"),
        ("_joules", "J"),
        ("_fps", "images/s"),
        ("_share", "fraction"),
    ],
)
def test_a_unit_in_the_name_is_the_unit_declared(ending: str, unit: str) -> None:
    named = [column for table in TABLES for column in table.columns if column.name.endswith(ending)]
    assert named
    assert {column.unit for column in named} == {unit}


def test_accuracies_are_fractions_of_four_decimals_as_in_the_reference() -> None:
    accuracies = [
        column for table in TABLES for column in table.columns if column.name in ("top1", "top5", "TOP1 Accuracy")
    ]
    assert len(accuracies) == 6
    assert {(column.unit, column.digits) for column in accuracies} == {("fraction", 4)}
