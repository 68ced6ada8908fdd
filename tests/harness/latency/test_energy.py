"""Energy from the kernel's counters, which begin again at 0, and from a GPU's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.latency.energy import NoMeter, NvmlMeter, rapl_meter
from harness.machine.nvml import Gpu, Nvml


def package(root: Path, number: int, energy_uj: int | str, range_uj: int = 1_000_000) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{energy_uj}\n", encoding="ascii")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n", encoding="ascii")
    return folder


def test_the_energy_of_all_packages(tmp_path: Path) -> None:
    package(tmp_path, 0, 100_000)
    package(tmp_path, 1, 500_000)
    # A part of package 0, which its own counter has already.
    (tmp_path / "intel-rapl:0:0").mkdir()
    meter = rapl_meter(tmp_path)
    before = meter.joules()
    package(tmp_path, 0, 350_000)
    package(tmp_path, 1, 600_000)
    after = meter.joules()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(0.35)
    assert meter.name == "RAPL, processor packages"


def test_a_counter_that_began_again(tmp_path: Path) -> None:
    package(tmp_path, 0, 900_000)
    meter = rapl_meter(tmp_path)
    before = meter.joules() or 0.0
    package(tmp_path, 0, 200_000)
    assert (meter.joules() or 0.0) - before == pytest.approx(0.3)


@pytest.mark.parametrize("what", ["no folder", "not readable"])
def test_without_a_counter_there_is_no_meter(tmp_path: Path, what: str) -> None:
    if what == "not readable":
        package(tmp_path, 0, "x")
    meter = rapl_meter(tmp_path)
    assert isinstance(meter, NoMeter)
    assert (meter.name, meter.joules()) == ("", None)


def test_a_counter_that_can_no_longer_be_read_is_unknown(tmp_path: Path) -> None:
    folder = package(tmp_path, 0, 1)
    meter = rapl_meter(tmp_path)
    (folder / "energy_uj").unlink()
    assert meter.joules() is None


def test_a_gpus_own_counter() -> None:
    class Counted(Nvml):
        def energy_joules(self, gpu: Gpu) -> float | None:
            return 12.5 + gpu.index

    meter = NvmlMeter(Counted(), Gpu(2, "GPU-2", "H100", ""))
    assert (meter.joules(), meter.name) == (14.5, "NVML, GPU")
