"""Which devices a run samples, and through which library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import MachineError
from harness.machine.device_kinds import DeviceKind
from harness.machine.nvml import Gpu, Nvml, NvmlUnavailable
from harness.machine.visible_gpus import visible_gpus


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where the telemetry of a run's devices comes from.

    library is the path of a library that speaks NVML's calls; None is NVML's own. devices is the number of devices of
    this node, for devices that aren't CUDA's; None stands for the GPUs that CUDA_VISIBLE_DEVICES names.
    """

    library: str | None = None
    devices: int | None = None

    def sampled(self, nvml: Nvml, environment: Mapping[str, str]) -> tuple[Gpu, ...]:
        """Returns the devices to sample, in the order of this node's ranks.

        Devices that aren't CUDA's are 0 to devices - 1 in the library's order: rank r of the node is assumed to have
        the library's device r. There are fewer if the library reports fewer.
        """
        listed = nvml.gpus()
        if self.devices is None:
            return visible_gpus(listed, environment.get("CUDA_VISIBLE_DEVICES"))
        return tuple(gpu for gpu in listed if gpu.index < self.devices)


def telemetry_of(kind: DeviceKind, library: str | None, devices: int) -> Telemetry | None:
    """Returns what samples a node's devices of a kind; None without a library that reports on such devices."""
    if kind.nvml:
        return Telemetry(library)
    return None if library is None else Telemetry(library, devices)


def check_telemetry_library(path: str | None) -> None:
    """Raise MachineError unless the library can be used and lists a device; None needs no check."""
    if path is None:
        return
    try:
        with Nvml(library=path) as nvml:
            reason = "" if nvml.gpus() else f"{path} lists no device"
    except NvmlUnavailable as error:
        reason = error.reason
    if reason:
        raise MachineError(
            f"--telemetry-library can't be used: {reason}",
            "Give the path of a library of the devices' vendor that speaks NVML's calls, such as Iluvatar's"
            " libixml.so, or omit the option.",
        )
