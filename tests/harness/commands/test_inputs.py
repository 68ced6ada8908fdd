"""What is recorded of the machine before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands.inputs import Inputs, find_inputs, inspect_inputs
from harness.machine.device import Devices
from harness.plan.kinds import THROUGHPUT
from harness.plan.options import RunConfig
from harness.report.console import Console
from pipelines.dataset import open_dataset
from tests.support.data_sets import write_colours
from tests.support.plans import a_plan


def test_the_record_has_the_variables_that_the_ranks_start_with(tmp_path: Path) -> None:
    """Case E10: not those of the shell."""
    config = RunConfig(data="digits", device="cpu", gpus=1, throughput_only=True, compute_threads=3)
    environment = {"OMP_NUM_THREADS": "64", "FLAGS_use_mkldnn": "1", "FLAGS_selected_gpus": "0"}
    found = inspect_inputs(find_inputs(config, Console(), environment), tmp_path, environment)
    assert found.environment["thread_environment"] == {"FLAGS_use_mkldnn": "1", "OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize(
    ("device", "given", "recorded"),
    [
        ("gpu", {"NCCL_ALGO": "Ring"},
         {"FLAGS_cudnn_exhaustive_search": "True", "FLAGS_cudnn_batchnorm_spatial_persistent": "True",
          "NVIDIA_TF32_OVERRIDE": "0", "NCCL_ALGO": "Ring"}),
        ("gpu", {"FLAGS_cudnn_exhaustive_search": "False", "NVIDIA_TF32_OVERRIDE": "1", "NCCL_SOCKET_IFNAME": "eth0"},
         {"FLAGS_cudnn_exhaustive_search": "False", "FLAGS_cudnn_batchnorm_spatial_persistent": "True",
          "NVIDIA_TF32_OVERRIDE": "0"}),
        ("iluvatar_gpu", {"OMP_NUM_THREADS": "64", "TOKEN": "secret"},
         {"FLAGS_use_stride_kernel": "0", "FLAGS_call_stack_level": "2", "NVIDIA_TF32_OVERRIDE": "0"}),
    ],
)  # fmt: skip
def test_flags_that_are_set_for_ranks_on_accelerators_are_recorded(
    tmp_path: Path, device: str, given: dict[str, str], recorded: dict[str, str]
) -> None:
    """Case E10."""
    data = open_dataset(write_colours(tmp_path / "colours"), None)
    plan = a_plan(device=device, kind=THROUGHPUT, compute_threads=5, tf32="off")
    found = inspect_inputs(Inputs(Devices(device, 1, device), data, plan), tmp_path, given)
    assert found.environment["thread_environment"] == {"OMP_NUM_THREADS": "5", **recorded}
