"""benchmarks/gpu_without_paddle.py with the CPU's decoder: what it would report of a GPU is reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.torch_for_paddle import write_package
from tests.support.bad_files import UNDECODABLE

ROOT = Path(__file__).parents[2]
ALONE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "


def test_a_loader_that_is_the_same_twice_and_leaves_out_bad_files_is_reported_so() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_without_paddle", "source", "--decoder", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines()]
    # Those that a look at the file finds are not decoded.
    assert f"left out by cpu: {len(UNDECODABLE)}" in lines
    assert "left out by one alone: {}" in lines
    assert "other reasons: {}" in lines
    assert "the same twice: [True, True]" in lines
    assert "continued as without a break: [True, True]" in lines
    assert "largest difference: 0.0" in lines


def test_what_stands_in_for_paddle_is_all_that_the_loader_asks_for(tmp_path: Path) -> None:
    """Loaded in a new process, where the package is found before Paddle."""
    code = (
        ALONE
        + f"sys.path.insert(0, {str(write_package(tmp_path))!r}); import pipelines.source, pipelines.opencv_images"
    )
    subprocess.run([sys.executable, "-c", code + "; import paddle; print(paddle.__file__)"], check=True, cwd=tmp_path)
