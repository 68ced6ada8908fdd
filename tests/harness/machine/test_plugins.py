"""Accelerators that Paddle loads as plugins, found with the stand-in, and what is reported where there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.machine.device import Devices, choose_devices, worker_environment
from harness.machine.device_kinds import CPU, GPU, device_kind
from harness.machine.plugins import plugin_devices
from tests.support.accelerator import Accelerator

NO_GPUS = {"CUDA_VISIBLE_DEVICES": ""}


def with_plugin(accelerator: Accelerator, **options: str | int) -> dict[str, str]:
    return {**os.environ, **NO_GPUS, **accelerator.environment(**options), "GLOG_minloglevel": "3"}


def test_paddle_is_asked_for_types_and_numbers(accelerator: Accelerator) -> None:
    assert plugin_devices(with_plugin(accelerator, name="iluvatar_gpu", devices=3)) == {"iluvatar_gpu": 3}
    assert plugin_devices(with_plugin(accelerator, devices=1)) == {"standin": 1}


@pytest.mark.parametrize("root", ["", "/nowhere"])
def test_without_a_plugin_paddle_is_not_asked(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("Paddle was asked"))
    assert plugin_devices({"CUSTOM_DEVICE_ROOT": root}) == {}


def test_a_plugin_that_can_not_be_loaded_is_reported(tmp_path: Path) -> None:
    (tmp_path / "libpaddle-broken.so").write_bytes(b"no library")
    environment = {**os.environ, "CUSTOM_DEVICE_ROOT": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    (tmp_path / "paddle.py").write_text("raise OSError('libpaddle-broken.so: invalid ELF header')", encoding="utf-8")
    with pytest.raises(MachineError) as caught:
        plugin_devices(environment)
    assert caught.value.message == (
        f"Paddle can't load its plugins from {str(tmp_path)!r}: OSError: libpaddle-broken.so: invalid ELF header"
    )
    assert "CUSTOM_DEVICE_ROOT=" in caught.value.cure


def test_devices_of_a_plugin_are_chosen_by_type_or_found(accelerator: Accelerator) -> None:
    environment = with_plugin(accelerator, name="iluvatar_gpu", devices=3)
    assert choose_devices("iluvatar_gpu", 2, environment) == (Devices("iluvatar_gpu", 2, "iluvatar_gpu"), ())
    devices, (notice,) = choose_devices("auto", None, environment)
    assert devices == Devices("iluvatar_gpu", 3, "iluvatar_gpu")
    assert notice.endswith("training on 3 x iluvatar_gpu")
    with pytest.raises(MachineError) as caught:
        choose_devices("iluvatar_gpu", 4, environment)
    assert caught.value.message == "4 devices of type iluvatar_gpu requested, 3 found"
    assert "--gpus 3" in caught.value.cure
    with pytest.raises(MachineError) as caught:
        choose_devices("npu", None, environment)
    assert caught.value.message == "Paddle knows no device of type 'npu' here; it reports 3 x iluvatar_gpu"


def test_a_type_without_its_plugin_names_what_there_is_and_where_to_get_it() -> None:
    with pytest.raises(MachineError) as caught:
        choose_devices("iluvatar_gpu", 4, {"CUSTOM_DEVICE_ROOT": ""})
    assert caught.value.exit_code == 3
    assert caught.value.message == "Paddle knows no device of type 'iluvatar_gpu' here; it reports no plugin's devices"
    assert "docs/devices.md" in caught.value.cure
    # A dry run takes it as given.
    assert choose_devices("iluvatar_gpu", 4, {}, look=False) == (Devices("iluvatar_gpu", 4, "iluvatar_gpu"), ())


def test_only_the_first_plugin_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.device.plugin_devices", lambda _: {"npu": 8, "iluvatar_gpu": 4})
    with pytest.raises(MachineError) as caught:
        choose_devices("iluvatar_gpu", None, {})
    assert "takes the first of the installed plugins (npu)" in caught.value.message
    assert "CUSTOM_DEVICE_ROOT" in caught.value.cure


def test_auto_asks_paddle_once_and_passes_over_a_plugin_without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mapping[str, str]] = []

    def answer(found: dict[str, int]) -> None:
        def plugins(environment: Mapping[str, str]) -> dict[str, int]:
            asked.append(environment)
            return found

        monkeypatch.setattr("harness.machine.device.plugin_devices", plugins)

    answer({"npu": 2})
    assert choose_devices("auto", None, NO_GPUS)[0] == Devices("npu", 2, "npu")
    answer({"npu": 0})
    assert choose_devices("auto", None, NO_GPUS)[0].kind == "cpu"
    assert len(asked) == 2


def test_the_ranks_of_a_plugin_find_it_and_those_of_others_do_not() -> None:
    given = {"CUSTOM_DEVICE_ROOT": "/plugins", "CUDA_VISIBLE_DEVICES": "1", "FLAGS_selected_npus": "3"}
    assert worker_environment(Devices("npu", 2, "npu"), 3, given) == {
        "CUSTOM_DEVICE_ROOT": "/plugins",
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "3",
        "PADDLE_DISTRI_BACKEND": "xccl",
        "FLAGS_use_stride_kernel": "0",
        "FLAGS_call_stack_level": "2",
    }
    assert worker_environment(Devices("cpu", 2, "CPU"), 3, given)["CUSTOM_DEVICE_ROOT"] == ""


def test_batches_are_handed_over_where_the_host_decodes_for_another_memory() -> None:
    kinds = (CPU, GPU, device_kind("npu"))
    assert [kind.hands_over(kind.decoder) for kind in kinds] == [False, False, True]
    assert [kind.hands_over("cpu") for kind in kinds] == [False, True, True]
    assert device_kind("cpu") is CPU
    assert device_kind("npu").selection == "NPU_VISIBLE_DEVICES"
