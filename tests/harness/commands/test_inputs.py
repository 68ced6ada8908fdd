"""What is recorded of the machine before a run starts."""

from __future__ import annotations

from pathlib import Path

from harness.commands.inputs import find_inputs, inspect_inputs
from harness.plan.options import RunConfig
from harness.report.console import Console


def test_the_record_has_the_variables_that_the_ranks_start_with(tmp_path: Path) -> None:
    config = RunConfig(data="digits", device="cpu", gpus=1, throughput_only=True, compute_threads=3)
    environment = {"OMP_NUM_THREADS": "64", "FLAGS_use_mkldnn": "1", "FLAGS_selected_gpus": "0"}
    found = inspect_inputs(find_inputs(config, Console(), environment), tmp_path, environment)
    assert found.environment["thread_environment"] == {"FLAGS_use_mkldnn": "1", "OMP_NUM_THREADS": "3"}
