"""Which devices are sampled, and the check of another vendor's library, against the compiled stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.machine.nvml import Nvml
from harness.machine.telemetry import Telemetry, check_telemetry_library


def sampled(library: Path, telemetry: Telemetry, **environment: str) -> list[int]:
    with Nvml(library=str(library)) as nvml:
        return [gpu.index for gpu in telemetry.sampled(nvml, environment)]


def test_devices_that_are_not_cudas_are_the_first_ones_in_the_librarys_order(libixml: Path) -> None:
    assert sampled(libixml, Telemetry(str(libixml), 3), CUDA_VISIBLE_DEVICES="3") == [0, 1, 2]
    # The stand-in's device 0 is the last one in the order of PCI buses, which is CUDA's.
    assert sampled(libixml, Telemetry(str(libixml)), CUDA_VISIBLE_DEVICES="3,0") == [0, 1]


def test_a_library_with_fewer_devices_than_ranks_gives_what_it_has(libixml: Path) -> None:
    assert sampled(libixml, Telemetry(str(libixml), 6)) == [0, 1, 2, 3]


def test_a_library_that_can_be_used_passes_and_so_does_none(libixml: Path, libixml_with_less: Path) -> None:
    check_telemetry_library(None)
    check_telemetry_library(str(libixml))
    check_telemetry_library(str(libixml_with_less))


def refusal(path: Path) -> str:
    with pytest.raises(MachineError) as caught:
        check_telemetry_library(str(path))
    assert caught.value.exit_code == 3
    assert "libixml.so" in caught.value.cure
    return caught.value.message


def test_a_library_that_cannot_be_used_is_refused_with_the_reason(
    libixml: Path, library_without_nvml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "libixml.so"
    assert refusal(missing) == (
        f"--telemetry-library can't be used: {missing}: cannot open shared object file: No such file or directory"
    )
    assert refusal(library_without_nvml) == (
        f"--telemetry-library can't be used: {library_without_nvml} has no function nvmlInit_v2"
    )
    monkeypatch.setenv("FAKE_NVML_INIT_ERROR", "9")
    assert refusal(libixml) == f"--telemetry-library can't be used: {libixml}: Driver Not Loaded"
    monkeypatch.setenv("FAKE_NVML_INIT_ERROR", "0")
    monkeypatch.setenv("FAKE_NVML_COUNT", "0")
    assert refusal(libixml) == f"--telemetry-library can't be used: {libixml} lists no device"
