"""The utilisation of the hardware, by arithmetic and by time, and the energy per image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.machine.host import HOST_LABEL

if TYPE_CHECKING:
    import pandas as pd

FLOPS_PER_MAC = 2  # a multiplication and an addition

# The backward pass costs twice the forward pass: it computes the gradients of each layer's input and of its weights.
# Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1.
TRAINING_PER_FORWARD = 3


@dataclass(frozen=True, slots=True)
class Peak:
    """A device's peak arithmetic rate in one precision, as stated by its vendor, without structured sparsity.

    name is a regular expression that must match NVML's whole product name. precision is fp32 (without tensor cores), or
    fp16 or bf16 (with tensor cores, accumulating in fp32). tflops is in 10^12 operations per second.
    """

    name: str
    precision: str
    tflops: float
    source: str


# Most vendor tables give tensor rates with sparsity, which are twice the dense ones: those are halved here.
_HALVED = ", halved from its figures with sparsity"

# (product names, fp32, fp16, bf16, source); None if the tensor cores lack the precision.
_RATES: tuple[tuple[str, float, float, float | None, str], ...] = (
    (r"Tesla V100-PCIE-(16|32)GB", 14.0, 112.0, None, "NVIDIA V100 datasheet"),
    (r"Tesla V100-SXM2-(16|32)GB", 15.7, 125.0, None, "NVIDIA V100 datasheet"),
    (r"Tesla T4", 8.1, 65.0, None, "NVIDIA T4 datasheet"),
    (r"A100-SXM4-(40|80)GB|A100-PCIE-40GB|A100 80GB PCIe", 19.5, 312.0, 312.0, "NVIDIA A100 datasheet"),
    # The A100's chip and clocks, with slower NVLink: 108 multiprocessors at 1.41 GHz.
    (
        r"A800-SXM4-(40|80)GB|A800-PCIE-40GB|A800 80GB PCIe|A800 40GB Active",
        19.5,
        312.0,
        312.0,
        "https://hmc-tech.com/gpu/nvidia-a800-vs-nvidia-t40",
    ),
    (r"A30", 10.3, 165.0, 165.0, "NVIDIA A30 datasheet"),
    (r"A10", 31.2, 125.0, 125.0, "NVIDIA A10 datasheet"),
    (r"A40", 37.4, 149.7, 149.7, "NVIDIA A40 datasheet"),
    (r"RTX A6000", 38.7, 154.8, 154.8, "NVIDIA Ampere GA102 whitepaper v2, appendix C"),
    # A GeForce has half the rate when it accumulates in fp32, as training does.
    (r"GeForce RTX 3090", 35.6, 71.0, 71.0, "NVIDIA Ampere GA102 whitepaper v2, appendix A"),
    (r"GeForce RTX 4090", 82.6, 165.2, 165.2, "NVIDIA Ada whitepaper v2, appendix A"),
    (
        r"GeForce RTX 5090",
        104.8,
        209.5,
        209.5,
        "a quarter of 838 (sparse, summed in FP16); https://pocketmags.com/linux-format-magazine/may-2025/articles/nvidia-geforce-rtx-5090",
    ),
    (r"L4", 30.3, 121.0, 121.0, "NVIDIA L4 datasheet" + _HALVED),
    (r"L40S", 91.6, 362.05, 362.05, "NVIDIA L40S datasheet"),
    (r"H100 PCIe", 51.0, 756.5, 756.5, "NVIDIA H100 datasheet, 2023" + _HALVED),
    (r"H100 80GB HBM3", 67.0, 989.5, 989.5, "NVIDIA H100 datasheet, SXM" + _HALVED),
    (r"H100 NVL", 60.0, 835.5, 835.5, "NVIDIA H100 product page, NVL" + _HALVED),
    # The H100's chip, with slower NVLink and FP64.
    (r"H800 PCIe", 51.0, 756.5, 756.5, "as H100 PCIe; https://aiwiki.ai/wiki/nvidia_h800"),
    (r"H800", 67.0, 989.5, 989.5, "as H100 SXM; https://aiwiki.ai/wiki/nvidia_h800"),
    # NVIDIA publishes no datasheet of it.
    (r"H20(-3e)?", 44.0, 148.0, 148.0, "https://zangshuxian.com/new/674733024499207168"),
    (r"H200", 67.0, 989.5, 989.5, "NVIDIA H200 datasheet, SXM" + _HALVED),
    (r"H200 NVL", 60.0, 835.5, 835.5, "NVIDIA H200 datasheet, NVL" + _HALVED),
    (r"B200", 75.0, 2250.0, 2250.0, "NVIDIA Blackwell datasheet, HGX B200" + _HALVED),
    (r"GB200", 90.0, 2500.0, 2500.0, "at 1,200 W; https://glennklockwood.com/garden/processors/B200"),
    (r"Iluvatar BI-V100", 37.0, 147.0, 147.0, "Iluvatar CoreX on Big Island (TechPowerUp, 5 April 2021)"),
)

PEAKS: tuple[Peak, ...] = tuple(
    Peak(name, precision, tflops, source)
    for name, *rates, source in _RATES
    for precision, tflops in zip(("fp32", "fp16", "bf16"), rates, strict=True)
    if tflops is not None
)


def peak_tflops(device_name: str, precision: str) -> Peak | None:
    """Returns the peak of a device by NVML's product name; None if it is unknown.

    Older drivers omit "NVIDIA " from the name. Any other difference means another product (a partition, a Ti, a laptop
    or cloud variant) with another peak, for which None is better than a wrong figure.
    """
    product = device_name.removeprefix("NVIDIA ")
    return next((peak for peak in PEAKS if peak.precision == precision and re.fullmatch(peak.name, product)), None)


def model_flops_utilisation(fps_per_device: float, macs_per_image: int, peak_tflops: float) -> float:
    """Returns the share of a device's peak that training's own arithmetic uses.

    fps_per_device is in training images per second, macs_per_image is that of a forward pass, peak_tflops is in 10^12
    operations per second. An image costs 3 forward passes, at 2 operations per multiply-accumulate. Other work of the
    implementation (recomputation, normalisation, the optimizer) doesn't count. Source: Chowdhery et al. 2022, "PaLM",
    appendix B.
    """
    flops_per_image = FLOPS_PER_MAC * TRAINING_PER_FORWARD * macs_per_image
    return fps_per_device * flops_per_image / (peak_tflops * 1e12)


def accelerator_utilisation(end_to_end_fps: float, compute_fps: float) -> float:
    """Returns the share of the run's time in which the accelerators compute; in the rest they wait for data.

    This is MLPerf Storage's AU, "total_compute_time/total_benchmark_running_time": an image's compute time is
    1 / compute_fps, measured without a data pipeline, and its running time 1 / end_to_end_fps. MLPerf Storage accepts a
    result of ResNet-50 on ImageNet only with an AU of at least 90 %. Noise between the two measurements can raise it
    above 1. Source: MLPerf Storage Benchmark Submission Guidelines v2.0, table 1 and section 4.
    """
    return end_to_end_fps / compute_fps


def images_per_joule(images: int, joules: float | None) -> float | None:
    """Returns the images per joule; None if the energy is unknown or too small for the counters to show."""
    return images / joules if joules else None


def energy_joules(samples: pd.DataFrame, spans: Sequence[tuple[float, float]]) -> float | None:
    """Returns the energy in joules that all GPUs used together during the spans (start, end), in Unix seconds.

    samples are rows of devices.csv with time_unix_seconds, device and energy_joules, a counter that only increases;
    rows of the device "cpu" don't count. Between two samples the counter is interpolated linearly. A span may begin
    before a GPU's first sample or end after its last by up to that GPU's median sampling interval; that part counts as
    0. Returns None if there is no GPU, or if a GPU has fewer than two readings, a longer part of a span without
    readings, or a counter that decreases (the driver was reloaded). Raises ValueError for a span that ends before it
    starts.
    """
    for start, end in spans:
        if end < start:
            raise ValueError(f"the span ends at {end}, before it starts at {start}")
    total = 0.0
    of_gpus = samples.loc[samples["device"] != HOST_LABEL, ["time_unix_seconds", "device", "energy_joules"]]
    if of_gpus.empty:
        return None
    for _, readings in of_gpus.groupby("device"):
        joules = _one_gpu(readings, spans)
        if joules is None:
            return None
        total += joules
    return total


def _one_gpu(readings: pd.DataFrame, spans: Sequence[tuple[float, float]]) -> float | None:
    known = readings[readings["energy_joules"].notna()].sort_values("time_unix_seconds", kind="stable")
    times = known["time_unix_seconds"].to_numpy(dtype=float)
    counter = known["energy_joules"].to_numpy(dtype=float)
    if len(times) < 2 or bool((np.diff(counter) < 0).any()):
        return None
    slack = float(np.median(np.diff(times)))
    starts, ends = np.array(spans, dtype=float).reshape(-1, 2).T
    if bool((starts < times[0] - slack).any() or (ends > times[-1] + slack).any()):
        return None
    inside = np.clip(ends, times[0], times[-1]) - np.clip(starts, times[0], times[-1])
    if not inside.any() and (ends > starts).any():
        return None
    return float((np.interp(ends, times, counter) - np.interp(starts, times, counter)).sum())
