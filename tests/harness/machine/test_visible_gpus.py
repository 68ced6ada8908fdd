from __future__ import annotations

import pytest

from harness.errors import MachineError
from harness.machine.nvml import Gpu
from harness.machine.visible_gpus import visible_gpus

# In PCI bus order: 2, 0, 3, 1.
GPUS = (
    Gpu(0, "GPU-aa11cccc-0000-0000-0000-000000000000", "A", "00000000:17:00.0"),
    Gpu(1, "GPU-aa22cccc-0000-0000-0000-000000000000", "A", "00000001:02:00.0"),
    Gpu(2, "GPU-bb33cccc-0000-0000-0000-000000000000", "A", "00000000:03:00.0"),
    Gpu(3, "GPU-bb44cccc-0000-0000-0000-000000000000", "A", "00000000:C1:00.0"),
)


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [2, 0, 3, 1]),
        ("0,1,2,3", [2, 0, 3, 1]),
        ("0", [2]),
        ("3,0", [1, 2]),
        (" 1 , 2 ", [0, 3]),
        ("", []),
        (" ", []),
        ("NoDevFiles", []),
        ("-1", []),
        ("4", []),
        ("99999999999999999999", []),
        ("0,2,-1,1", [2, 3]),
        ("0,4,1", [2]),
        ("0,,1", [2]),
        ("0,1,", [2, 0]),
        ("0,x,1", [2]),
        ("1_0", []),
        ("0,0", []),
        ("0,1,0", []),
        ("0,4,0", [2]),
        ("GPU-aa11cccc-0000-0000-0000-000000000000", [0]),
        ("GPU-bb4,GPU-aa1", [3, 0]),
        ("GPU-bb3,GPU-aa,GPU-bb4", [2]),
        ("GPU-bb3,GPU-ff,GPU-bb4", [2]),
        ("GPU-bb3,bb4", [2]),
        ("GPU-bb3,GPU-bb33", []),
        ("GPU-bb3,1", [2]),
        ("1,GPU-bb4", [0]),
        ("aa11cccc", []),
    ],
)
def test_cuda_visible_devices(value: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in visible_gpus(GPUS, value)] == indices


def test_gpus_without_a_bus_id_go_by_index() -> None:
    gpus = [Gpu(1, "GPU-1", "A", ""), Gpu(0, "GPU-0", "A", "")]
    assert [gpu.index for gpu in visible_gpus(gpus, None)] == [0, 1]


def test_no_gpu_is_visible_where_there_is_none() -> None:
    assert visible_gpus((), None) == ()
    assert visible_gpus((), "0") == ()


@pytest.mark.parametrize("value", ["MIG-1234", "GPU-bb3,MIG-GPU-bb33cccc/1/0"])
def test_a_mig_slice_is_refused_with_a_cure(value: str) -> None:
    with pytest.raises(MachineError) as caught:
        visible_gpus(GPUS, value)
    assert value.split(",")[-1] in caught.value.message
    assert "whole GPUs" in caught.value.cure
    assert caught.value.exit_code == 3


def test_a_mig_slice_behind_the_end_of_the_list_is_not_seen() -> None:
    assert [gpu.index for gpu in visible_gpus(GPUS, "0,-1,MIG-1")] == [2]
