"""What GPUs and host are doing while a run goes on, through NVML and psutil; None where they can't say."""

from __future__ import annotations

from harness.telemetry.host import HostProbe, HostSample, available_cores, cpu_name
from harness.telemetry.nvml import Gpu, GpuSample, Nvml, NvmlUnavailable, visible_gpus
from harness.telemetry.sampler import DeviceSample, Sampler, WindowTelemetry

__all__ = [
    "DeviceSample",
    "Gpu",
    "GpuSample",
    "HostProbe",
    "HostSample",
    "Nvml",
    "NvmlUnavailable",
    "Sampler",
    "WindowTelemetry",
    "available_cores",
    "cpu_name",
    "visible_gpus",
]
