"""What keeps the clocks of a GPU down, by NVML's names."""

from __future__ import annotations

# nvml.h, nvmlClocksEventReason* and nvmlClocksThrottleReason*. As literals, because older bindings lack some names.
_THROTTLE_REASONS = (
    (0x001, "GpuIdle"),
    (0x002, "ApplicationsClocksSetting"),
    (0x004, "SwPowerCap"),
    (0x008, "HwSlowdown"),
    (0x010, "SyncBoost"),
    (0x020, "SwThermalSlowdown"),
    (0x040, "HwThermalSlowdown"),
    (0x080, "HwPowerBrakeSlowdown"),
    (0x100, "DisplayClockSetting"),
    (0x200, "BoardLimit"),
    (0x400, "Reliability"),
)


def throttle_names(bits: int) -> str:
    """Returns the names of the bits that are set, joined by "|"; bits without a name as a hexadecimal number."""
    names = [name for bit, name in _THROTTLE_REASONS if bits & bit]
    unnamed = bits & ~sum(bit for bit, _ in _THROTTLE_REASONS)
    return "|".join([*names, hex(unnamed)] if unnamed else names)
