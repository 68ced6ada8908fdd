"""Shares of the hardware, from rates that can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from harness.analysis.utilisation import (
    PEAKS,
    accelerator_utilisation,
    energy_joules,
    images_per_joule,
    model_flops_utilisation,
    peak_tflops,
)


@pytest.mark.parametrize(
    ("name", "fp32", "fp16", "bf16"),
    [
        ("Tesla V100-SXM2-16GB", 15.7, 125.0, None),
        ("Tesla V100-SXM2-32GB", 15.7, 125.0, None),
        ("Tesla V100-PCIE-32GB", 14.0, 112.0, None),
        ("Tesla T4", 8.1, 65.0, None),
        ("NVIDIA A100-SXM4-40GB", 19.5, 312.0, 312.0),
        ("NVIDIA A100-SXM4-80GB", 19.5, 312.0, 312.0),
        ("NVIDIA A100-PCIE-40GB", 19.5, 312.0, 312.0),
        ("NVIDIA A100 80GB PCIe", 19.5, 312.0, 312.0),
        ("A100-SXM4-40GB", 19.5, 312.0, 312.0),
        ("NVIDIA A800-SXM4-80GB", 19.5, 312.0, 312.0),
        ("NVIDIA A800 80GB PCIe", 19.5, 312.0, 312.0),
        ("NVIDIA A10", 31.2, 125.0, 125.0),
        ("NVIDIA A30", 10.3, 165.0, 165.0),
        ("NVIDIA A40", 37.4, 149.7, 149.7),
        ("NVIDIA RTX A6000", 38.7, 154.8, 154.8),
        ("NVIDIA GeForce RTX 3090", 35.6, 71.0, 71.0),
        ("GeForce RTX 3090", 35.6, 71.0, 71.0),
        ("NVIDIA GeForce RTX 4090", 82.6, 165.2, 165.2),
        ("NVIDIA GeForce RTX 5090", 104.8, 209.5, 209.5),
        ("NVIDIA L4", 30.3, 121.0, 121.0),
        ("NVIDIA L40S", 91.6, 362.05, 362.05),
        ("NVIDIA H100 PCIe", 51.0, 756.5, 756.5),
        ("NVIDIA H100 80GB HBM3", 67.0, 989.5, 989.5),
        ("NVIDIA H100 NVL", 60.0, 835.5, 835.5),
        ("NVIDIA H800", 67.0, 989.5, 989.5),
        ("NVIDIA H800 PCIe", 51.0, 756.5, 756.5),
        ("NVIDIA H20", 44.0, 148.0, 148.0),
        ("NVIDIA H20-3e", 44.0, 148.0, 148.0),
        ("NVIDIA H200", 67.0, 989.5, 989.5),
        ("NVIDIA H200 NVL", 60.0, 835.5, 835.5),
        ("NVIDIA B200", 75.0, 2250.0, 2250.0),
        ("NVIDIA GB200", 90.0, 2500.0, 2500.0),
        ("Iluvatar BI-V100", 37.0, 147.0, 147.0),
    ],
)
def test_peaks_are_the_vendors(name: str, fp32: float, fp16: float, bf16: float | None) -> None:
    found = {precision: peak_tflops(name, precision) for precision in ("fp32", "fp16", "bf16")}
    assert {precision: peak and peak.tflops for precision, peak in found.items()} == {
        "fp32": fp32,
        "fp16": fp16,
        "bf16": bf16,
    }
    assert all(peak.source for peak in found.values() if peak)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "CPU",
        "NVIDIA",
        "NVIDIA A10G",
        "NVIDIA A100X",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A10M",
        "NVIDIA A100",
        "NVIDIA H100 MIG",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA H100 80GB HBM2e",
        "NVIDIA H800 NVL",
        "NVIDIA H20 MIG 1g.12gb",
        "NVIDIA L20",
        "NVIDIA GH200 480GB",
        "NVIDIA GB10",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 5090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA RTX A6000-48Q",
        "Quadro RTX A6000",
        "Tesla V100S-PCIE-32GB",
        "Tesla V100-SXM2-32GB-LS",
        "Tesla V100-SXM3-32GB",
        "nvidia a30",
        "A30\n",
        "Iluvatar MR-V100",
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_another_product_has_no_peak_rather_than_a_wrong_one(name: str, precision: str) -> None:
    assert peak_tflops(name, precision) is None


def test_another_precision_has_no_peak() -> None:
    assert peak_tflops("NVIDIA A100-SXM4-80GB", "fp8") is None
    assert peak_tflops("NVIDIA A100-SXM4-80GB", "FP32") is None


def test_a_name_and_precision_stand_once_in_the_table() -> None:
    assert len({(peak.name, peak.precision) for peak in PEAKS}) == len(PEAKS) == 25 * 3 - 3


def test_training_is_six_operations_per_multiply_accumulate_of_the_forward_pass() -> None:
    # 2,000 images/s x 6 x 156 million = 1.872e12 operations/s, of 156e12.
    assert model_flops_utilisation(2000.0, 156_000_000, 156.0) == pytest.approx(0.012)
    assert model_flops_utilisation(1000.0, 1_000_000_000, 6.0) == pytest.approx(1.0)


def test_accelerator_utilisation_is_the_share_of_time_that_is_not_waiting() -> None:
    # 100 images compute for 0.1 s and take 0.125 s.
    assert accelerator_utilisation(800.0, 1000.0) == 0.8
    assert accelerator_utilisation(1010.0, 1000.0) == 1.01  # noise is shown, not cut off


def test_images_per_joule() -> None:
    assert images_per_joule(5000, 2000.0) == 2.5
    assert images_per_joule(5000, None) is None
    assert images_per_joule(5000, 0.0) is None


def samples(**counters: Sequence[tuple[float, float | None]]) -> pd.DataFrame:
    """Rows of devices.csv: each device's (time, counter)."""
    rows = [
        {"time_unix_seconds": time, "device": device, "energy_joules": joules}
        for device, readings in counters.items()
        for time, joules in readings
    ]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["time_unix_seconds", "device", "energy_joules"])
    frame["energy_joules"] = frame["energy_joules"].astype(float)
    return frame


def test_energy_is_the_counters_rise_over_the_span() -> None:
    rows = samples(gpu0=[(100.0, 5000.0), (101.0, 5200.0), (102.0, 5300.0)])
    assert energy_joules(rows, [(100.0, 102.0)]) == 300.0
    assert energy_joules(rows, [(100.5, 101.5)]) == 150.0  # 100 of the first second, 50 of the other
    assert energy_joules(rows, [(100.0, 100.25), (101.5, 102.0)]) == 100.0
    assert energy_joules(rows, [(101.0, 101.0)]) == 0.0
    assert energy_joules(rows, []) == 0.0


def test_readings_at_the_ends_of_blocks_make_the_energy_of_their_steps_exact() -> None:
    """300 W in steps from 100.3 s to 101.9 s and 50 W around them: 480 J, of which samples alone show 10 % less."""

    def counter(at: float) -> float:
        return 50 * (at - 100.0) + 250 * (min(max(at, 100.3), 101.9) - 100.3)

    sampled, at_ends = [100.0, 100.5, 101.0, 101.5, 102.0, 102.5], [100.3, 101.1, 101.9]
    span = [(100.3, 101.9)]
    assert energy_joules(samples(gpu0=[(at, counter(at)) for at in sampled]), span) == pytest.approx(430.0)
    both = [(at, counter(at)) for at in sampled + at_ends]
    assert energy_joules(samples(gpu0=both), span) == pytest.approx(480.0)


def test_energy_is_that_of_all_gpus_each_with_its_own_clock() -> None:
    rows = samples(
        gpu0=[(0.0, 0.0), (10.0, 1000.0)],
        gpu1=[(1.0, 70.0), (3.0, 90.0), (9.0, 690.0)],
        cpu=[(0.0, None), (10.0, None)],
    )
    # gpu0: 100 W for 4 s. gpu1: 10 W from 2 to 3, then 100 W from 3 to 6.
    assert energy_joules(rows, [(2.0, 6.0)]) == 400.0 + 10.0 + 300.0


def test_rows_need_not_be_in_order_and_a_missed_reading_is_bridged() -> None:
    rows = samples(gpu0=[(2.0, 300.0), (0.0, 100.0), (1.0, None), (4.0, 500.0), (3.0, 400.0)])
    assert energy_joules(rows, [(0.5, 3.5)]) == 300.0


def test_a_span_may_leave_the_samples_by_one_interval() -> None:
    rows = samples(gpu0=[(10.0, 0.0), (11.0, 100.0), (12.0, 200.0), (13.0, 300.0)])
    assert energy_joules(rows, [(9.0, 14.0)]) == 300.0
    assert energy_joules(rows, [(9.5, 10.5)]) == 50.0
    assert energy_joules(rows, [(8.9, 12.0)]) is None
    assert energy_joules(rows, [(12.0, 14.1)]) is None
    assert energy_joules(rows, [(10.0, 12.0), (12.0, 14.1)]) is None
    assert energy_joules(rows, [(9.1, 10.0)]) is None  # nothing of it was sampled
    assert energy_joules(rows, [(13.0, 13.9)]) is None


def test_one_unknown_counter_makes_the_sum_unknown() -> None:
    known = [(0.0, 0.0), (1.0, 100.0), (2.0, 200.0)]
    span = [(0.0, 2.0)]
    assert energy_joules(samples(gpu0=known, gpu1=known), span) == 400.0
    assert energy_joules(samples(gpu0=known, gpu1=[(0.0, None), (1.0, None), (2.0, None)]), span) is None
    assert energy_joules(samples(gpu0=known, gpu1=[(0.0, None), (1.0, 100.0), (2.0, None)]), span) is None
    assert energy_joules(samples(gpu0=known, gpu1=[(0.0, 900.0), (1.0, 990.0), (2.0, 80.0)]), span) is None


def test_without_gpus_there_is_no_energy() -> None:
    assert energy_joules(samples(cpu=[(0.0, None), (1.0, None)]), [(0.0, 1.0)]) is None
    assert energy_joules(samples(), [(0.0, 1.0)]) is None


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the span ends at 1\.0, before it starts at 2\.0"):
        energy_joules(samples(gpu0=[(0.0, 0.0), (3.0, 1.0)]), [(2.0, 1.0)])


def test_columns_as_a_file_has_them(tmp_path: Path) -> None:
    text = "time_unix_seconds,device,energy_joules\n5.000,gpu0,10.5\n5.000,cpu,\n6.000,gpu0,20.5\n6.000,cpu,\n"
    (tmp_path / "devices.csv").write_text(text)
    assert energy_joules(pd.read_csv(tmp_path / "devices.csv"), [(5.0, 6.0)]) == 10.0
