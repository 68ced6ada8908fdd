"""Runs on GPUs that NVML lists and CUDA can't use: the trial of their decoder fails before any rank starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.artifacts.record import RunFiles
from tests.support.paddle_builds import install_build
from tests.support.runs import launch

pytestmark = [
    pytest.mark.whole_run,
    pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU"),
]
OPTIONS = ("--device", "gpu", "--gpus", "2", "--data", "photos", "--throughput-only", "--batch-size", "4",
           "--model", "x0_25", "--image-size", "32", "--run-name", "it")  # fmt: skip


@pytest.fixture
def environment(nvml_standin: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Four GPUs, and metadata of Paddle's GPU build in place of this one's: before the trial nothing else is read."""
    return {**os.environ, **nvml_standin, **install_build(tmp_path / "build", alone=True)}


def test_an_explicit_decoder_that_fails_ends_the_run(environment: dict[str, str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    made = launch(*OPTIONS, "--decoder", "mixed", "--results", str(results), environment=environment).end()
    assert made.code == 3
    assert made.err.startswith("error: the GPUs' decoder can't be used: GPU 0: RuntimeError: ")
    assert "; GPU 1: RuntimeError: " in made.err
    assert "--decoder cpu" in made.err
    assert not results.exists()


def test_auto_decodes_on_the_cpu_then_and_records_why(environment: dict[str, str], tmp_path: Path) -> None:
    """The ranks fail afterwards, as this Paddle has no CUDA."""
    results = tmp_path / "results"
    made = launch(*OPTIONS, "--results", str(results), environment=environment).end()
    assert made.code not in (0, 4)
    told = " ".join(made.out.split())
    assert "note: images are decoded on the CPU, as the GPUs' decoder can't be used: GPU 0: RuntimeError" in told
    assert "on the CPU, the needed region of each image" in told
    record = RunFiles(results, "it").record.read_text(encoding="utf-8")
    assert '"obstacle": "GPU 0: RuntimeError: ' in record
