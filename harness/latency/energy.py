"""The energy that a turn takes: of the processor's packages, or of a GPU, where it can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from harness.machine.nvml import Gpu, Nvml

RAPL = Path("/sys/class/powercap")


class Meter(Protocol):
    """What counts energy. name is what it is called in a record."""

    name: str

    def joules(self) -> float | None:
        """Returns the energy since some moment; None if it can't be read."""


class NoMeter:
    """There is none."""

    name = ""

    def joules(self) -> float | None:
        """Returns None."""
        return None


class RaplMeter:
    """The energy of the processor's packages, from the kernel's powercap; one that this user may read.

    Source: the kernel's power/powercap documentation: energy_uj counts microjoules up to max_energy_range_uj, then
    begins again at 0. Its packages are `intel-rapl:0`, ... on processors of AMD, too.
    """

    name = "RAPL, processor packages"

    def __init__(self, packages: Sequence[Path]) -> None:
        self._packages = packages
        self._ranges = [_number(package / "max_energy_range_uj") or 0 for package in packages]
        self._last: list[int] | None = None
        self._total = 0

    def joules(self) -> float | None:
        """Returns the energy of all packages since the first reading; None if one can't be read."""
        read = [_number(package / "energy_uj") for package in self._packages]
        now = [count for count in read if count is not None]
        if len(now) < len(read):
            return None
        for count, last, reach in zip(now, self._last or now, self._ranges, strict=True):
            self._total += count - last if count >= last else count - last + reach
        self._last = now
        return self._total / 1e6


class NvmlMeter:
    """The energy of a GPU, from its own counter."""

    name = "NVML, GPU"

    def __init__(self, nvml: Nvml, gpu: Gpu) -> None:
        self._nvml, self._gpu = nvml, gpu

    def joules(self) -> float | None:
        """Returns the energy since the driver was loaded; None if it isn't counted."""
        return self._nvml.energy_joules(self._gpu)


def rapl_meter(root: Path = RAPL) -> Meter:
    """Returns the meter of the processor's packages; one that reads nothing where there is none to read."""
    packages = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]
    meter = RaplMeter(packages)
    return meter if packages and meter.joules() is not None else NoMeter()


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
