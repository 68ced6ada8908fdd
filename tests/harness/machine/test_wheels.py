"""Which of Paddle's builds for GPUs is installed; a script stands in for nvidia-smi."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT
from harness.machine.gpu_fit.wheels import DEFAULT, WHEELS, pip_command, wheel_for

INDEX = "https://www.paddlepaddle.org.cn/packages/stable"


def ask(folder: Path, script: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the module says where nvidia-smi is this script, or is missing."""
    if script is not None:
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "nvidia-smi").chmod(0o755)
    return subprocess.run(
        [sys.executable, "-m", "harness.machine.gpu_fit.wheels", *arguments],
        env={"PATH": f"{folder}{os.pathsep}/bin" if script else str(folder)},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def prints(*rows: str) -> str:
    query = "--query-gpu=name,compute_cap,driver_version --format=csv,noheader"
    return f'[ "$*" = "{query}" ] || exit 2\n' + "\n".join(f'echo "{row}"' for row in rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["NVIDIA A100-SXM4-80GB, 8.0, 535.54.03"] * 2, "cu126 (NVIDIA A100-SXM4-80GB (8.0), driver 535.54.03)"),
        (["Tesla V100-SXM2-32GB, 7.0, 580.65.06"], "cu126 (Tesla V100-SXM2-32GB (7.0), driver 580.65.06)"),
        (["NVIDIA B200, 10.0, 570.86.15"], "cu129 (NVIDIA B200 (10.0), driver 570.86.15)"),
        (["NVIDIA GeForce RTX 5090, 12.0, 580.65.06"], "cu129 (NVIDIA GeForce RTX 5090 (12.0), driver 580.65.06)"),
        (
            ["Tesla T4, 7.5, 570.86.15", "NVIDIA B200, 10.0, 570.86.15"],
            "cu129 (Tesla T4 (7.5), NVIDIA B200 (10.0), driver 570.86.15)",
        ),
        (["NVIDIA Newer, 13.0, 600.1"], "cu130 (NVIDIA Newer (13.0), driver 600.1)"),
        (
            ["Tesla V100-SXM2-32GB, 7.0, 570.1", "NVIDIA B200, 10.0, 570.1"],
            "cu126 (Tesla V100-SXM2-32GB (7.0), NVIDIA B200 (10.0), driver 570.1; no build that is known here runs on"
            " all of these GPUs: choose one with WHEEL=)",
        ),
        (
            ["Tesla T4, 7.5, 470.57.02"],
            "cu126 (Tesla T4 (7.5), driver 470.57.02; the driver is too old: 525.60.13 or newer is needed)",
        ),
    ],
)
def test_the_build_is_chosen_by_what_nvidia_smi_reports(tmp_path: Path, rows: list[str], said: str) -> None:
    done = ask(tmp_path, prints(*rows))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Paddle's build for GPUs: {said}\n"


@pytest.mark.parametrize(
    "script",
    [
        None,
        "exit 9",
        # Drivers before 510 don't know the field.
        'echo "Field "compute_cap" is not a valid field to query."; exit 2',
        'echo "No devices were found"',
        'echo "NVIDIA A100, [N/A], 535.54.03"',
        "exit 0",
    ],
)
def test_without_an_answer_it_is_the_usual_build(tmp_path: Path, script: str | None) -> None:
    done = ask(tmp_path, script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Paddle's build for GPUs: cu126 (nvidia-smi reports no GPU)\n"


def test_a_named_build_is_taken_whatever_there_is(tmp_path: Path) -> None:
    assert ask(tmp_path, prints("NVIDIA B200, 10.0, 570.86.15"), "cu130").stdout.endswith(" cu130 (as asked)\n")
    done = ask(tmp_path, None, "cu118")
    assert done.returncode == 2
    assert "invalid choice: 'cu118'" in done.stderr
    assert "cu126" in done.stderr


def test_pip_gets_the_index_of_the_build() -> None:
    assert [pip_command(wheel)[-3:] for wheel in WHEELS] == [
        ["--index-url", f"{INDEX}/{name}/", "paddlepaddle-gpu==3.3.1"] for name in ("cu126", "cu129", "cu130")
    ]
    assert pip_command(DEFAULT)[:4] == [sys.executable, "-I", "-m", "pip"]


def test_the_oldest_build_that_fits_is_taken() -> None:
    assert wheel_for([]) is DEFAULT
    assert wheel_for([(9, 0)], (580, 1)) is WHEELS[0]
    assert wheel_for([(10, 0)]) is WHEELS[1]
    assert wheel_for([(5, 2)]) is None
    # No build needs less.
    assert wheel_for([(10, 0)], (470, 1)) is WHEELS[1]


def test_it_needs_nothing_but_python() -> None:
    """make runs it before the packages of this project are there."""
    text = (ROOT / "harness" / "machine" / "gpu_fit" / "wheels.py").read_text(encoding="utf-8")
    imported = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    assert set(imported) - {"__future__"} <= sys.stdlib_module_names
