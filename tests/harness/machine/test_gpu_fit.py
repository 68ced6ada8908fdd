"""GPUs, driver and Paddle that don't fit together are refused before ranks start.

NVML is the stand-in (fake_nvml.c) through the real pynvml; Paddle's builds are folders that look installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT
from harness.machine.gpu_fit.installed import Build, installed_build
from tests.support.paddle_builds import install_build

INDEX = "https://www.paddlepaddle.org.cn/packages/stable"
CU126, CU129, CU130 = (61, 70, 75, 80, 90), (75, 80, 86, 89, 90, 100, 120), (75, 80, 86, 89, 90, 100, 103, 120)
# What choose_devices says of all GPUs, or of as many as are asked for: its notices, or message and cure.
CHOOSE = """
import json, sys
from harness.errors import MachineError
from harness.machine.device import choose_devices
try:
    answer = list(choose_devices("gpu", int(sys.argv[1]) or None, {})[1])
except MachineError as error:
    answer = {"message": error.message, "cure": error.cure, "exit_code": error.exit_code}
print(json.dumps(answer))
"""


def choose(*environments: dict[str, str], count: int = 0) -> Any:
    merged = {name: value for environment in environments for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHOOSE, str(count)],
        env={**os.environ, **merged},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# The stand-in's devices 1, 2, 3 and 0 are CUDA's 0 to 3; the processes on them are 2, 0, 3 and 1.
IDLE = {"FAKE_NVML_FAIL": ",".join(f"{device}:processes:3" for device in range(4)), "FAKE_NVML_USED": "1"}


def replace(name: str) -> str:
    return f"pip uninstall -y paddlepaddle-gpu && pip install paddlepaddle-gpu==3.3.1 -i {INDEX}/{name}/"


def test_a_build_that_fits_is_taken_without_a_word(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    assert choose(nvml_standin, IDLE, install_build(tmp_path, cuda="12.6", kernels=CU126)) == []


@pytest.mark.parametrize(
    ("cuda", "kernels", "capability", "wheel"),
    [
        ("12.6", CU126, "100", "cu129"),
        ("12.6", CU126, "120", "cu129"),
        ("12.6", (), "103", "cu129"),
        ("13.0", CU130, "70", "cu126"),
        ("13.0", (), "61", "cu126"),
        ("12.9", CU129, "70", "cu126"),
    ],
)
def test_a_build_without_kernels_for_a_gpu_is_refused(
    nvml_standin: dict[str, str], tmp_path: Path, cuda: str, kernels: tuple[int, ...], capability: str, wheel: str
) -> None:
    machine = {"FAKE_NVML_CAPABILITY": f"2:{capability}", "FAKE_NVML_CUDA": "13000", "FAKE_NVML_DRIVER": "580.65.06"}
    error = choose(nvml_standin, IDLE, machine, install_build(tmp_path, cuda=cuda, kernels=kernels), count=2)
    dotted = f"{int(capability) // 10}.{int(capability) % 10}"
    assert error["message"].startswith(
        f"the installed paddlepaddle-gpu 3.3.1 (CUDA {cuda}) has no kernels for the compute capability {dotted} of"
        " GPU 2 (Stand-in 80GB)"
    )
    assert error["exit_code"] == 3
    # GPU 1, of capability 9.0, is the other one, and has to be served as well.
    assert error["cure"] == f"Install the build that has: {replace(wheel)}"


@pytest.mark.parametrize("capabilities", ["1:70,2:100", "2:110"])
def test_gpus_that_no_build_serves_are_not_sent_to_one(
    nvml_standin: dict[str, str], tmp_path: Path, capabilities: str
) -> None:
    build = install_build(tmp_path, cuda="12.9", kernels=CU129)
    error = choose(nvml_standin, IDLE, {"FAKE_NVML_CAPABILITY": capabilities}, build, count=2)
    assert error["cure"] == "No build that is known here has them all: select other GPUs with CUDA_VISIBLE_DEVICES."


def test_the_kernels_there_are_are_named(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    build = install_build(tmp_path, cuda="12.6", kernels=CU126)
    machine = {"FAKE_NVML_CAPABILITY": ",".join(f"{device}:100" for device in range(4))}
    error = choose(nvml_standin, IDLE, machine, build)
    assert "the compute capability 10.0 of GPU 1 (Stand-in 80GB), GPU 2 (Stand-in 80GB), GPU 3" in error["message"]
    assert error["message"].endswith("; it has them for 6.1, 7.0, 7.5, 8.0, 9.0")
    assert error["cure"] == f"Install the build that has: {replace('cu129')}"


def test_only_the_gpus_of_the_run_have_to_fit(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    build = install_build(tmp_path, cuda="12.6", kernels=CU126)
    machine = {"FAKE_NVML_CAPABILITY": "0:100", "FAKE_NVML_MIG": "3"}
    assert choose(nvml_standin, IDLE, machine, build, count=2) == []


@pytest.mark.parametrize(
    ("machine", "found"),
    [
        ({"FAKE_NVML_CUDA": "12020", "FAKE_NVML_DRIVER": "535.54.03"}, "535.54.03 runs CUDA 12.2 at most"),
        ({"FAKE_NVML_CUDA": "-1", "FAKE_NVML_DRIVER": "535.54.03"}, "535.54.03 is too old"),
    ],
)
def test_a_driver_that_is_too_old_for_paddle_is_refused(
    nvml_standin: dict[str, str], tmp_path: Path, machine: dict[str, str], found: str
) -> None:
    error = choose(nvml_standin, IDLE, machine, install_build(tmp_path, cuda="13.0", kernels=CU130))
    assert error == {
        "message": f"the NVIDIA driver {found}, and paddlepaddle-gpu 3.3.1 (CUDA 13.0) needs CUDA 13",
        "cure": "Install driver 580 or newer. Or install the build that fits this driver: " + replace("cu126"),
        "exit_code": 3,
    }


@pytest.mark.parametrize("cuda", ["11.8", "12.6", None])
def test_a_driver_that_is_too_old_for_dali_is_refused(
    nvml_standin: dict[str, str], tmp_path: Path, cuda: str | None
) -> None:
    machine = {"FAKE_NVML_CUDA": "11040", "FAKE_NVML_DRIVER": "470.57.02"}
    error = choose(nvml_standin, IDLE, machine, install_build(tmp_path, cuda=cuda))
    what = "paddlepaddle-gpu 3.3.1 (CUDA 12.6)" if cuda == "12.6" else "nvidia-dali-cuda120"
    assert error["message"] == f"the NVIDIA driver 470.57.02 runs CUDA 11.4 at most, and {what} needs CUDA 12"
    assert error["cure"] == "Install driver 525.60.13 or newer."


@pytest.mark.parametrize(
    "machine",
    [
        # Of the same major version: NVIDIA's minor version compatibility.
        {"FAKE_NVML_CUDA": "12000", "FAKE_NVML_DRIVER": "525.60.13"},
        # A compatibility package raises CUDA's version and not the driver's.
        {"FAKE_NVML_CUDA": "12090", "FAKE_NVML_DRIVER": "470.57.02"},
        {"FAKE_NVML_CUDA": "13000", "FAKE_NVML_DRIVER": "580.65.06"},
        {"FAKE_NVML_CUDA": "-1", "FAKE_NVML_DRIVER": "525.60.13"},
    ],
)
def test_a_driver_that_serves(nvml_standin: dict[str, str], tmp_path: Path, machine: dict[str, str]) -> None:
    assert choose(nvml_standin, IDLE, machine, install_build(tmp_path, cuda="12.9", kernels=CU129)) == []


def test_a_gpu_in_mig_mode_is_refused(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    build = install_build(tmp_path, cuda="12.6", kernels=CU126)
    assert choose(nvml_standin, IDLE, {"FAKE_NVML_MIG": "2"}, build) == {
        "message": "GPU 2 (Stand-in 80GB) is in MIG mode: Paddle would train on a slice, and telemetry would be the"
        " whole GPU's",
        "cure": "Turn it off: sudo nvidia-smi -i 2 -mig 0. Or select other GPUs with CUDA_VISIBLE_DEVICES.",
        "exit_code": 3,
    }
    several = choose(nvml_standin, IDLE, {"FAKE_NVML_MIG": "1,3"}, build)
    assert several["message"].startswith("GPU 1 (Stand-in 80GB), GPU 3 (Stand-in 80GB) are in MIG mode")
    assert "nvidia-smi -i 1,3 -mig 0" in several["cure"]


def test_what_is_unknown_stops_no_run(
    nvml_standin: dict[str, str], nvml_standin_old_driver: dict[str, str], tmp_path: Path
) -> None:
    asked = ("capability", "mig", "memory", "processes")
    failing = ",".join(f"{device}:{query}:999" for device in range(4) for query in asked)
    unknown = {"FAKE_NVML_FAIL": failing, "FAKE_NVML_CUDA": "-1", "FAKE_NVML_DRIVER": ""}
    build = install_build(tmp_path / "known", cuda="13.0", kernels=(120,))
    assert choose(nvml_standin, unknown, build) == []
    # A build that tells nothing about itself, on GPUs that tell everything.
    silent = install_build(tmp_path / "silent")
    assert choose(nvml_standin, IDLE, {"FAKE_NVML_CAPABILITY": "1:300"}, silent) == []
    assert choose(nvml_standin_old_driver, IDLE, silent) == []


def test_other_processes_are_named(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    for _ in range(3):  # so that the process that asks is none of those listed, which have numbers that follow
        subprocess.run(["true"], check=True)
    try:
        machine = {"FAKE_NVML_PID": str(sleeper.pid)}
        notices = choose(nvml_standin, machine, install_build(tmp_path, cuda="12.6", kernels=CU126))
    finally:
        sleeper.communicate()
    first, second, third = notices
    assert first.startswith(f"GPU 1 (Stand-in 80GB) is also used by process {sleeper.pid} (python")
    assert f"), process {sleeper.pid + 1}" in first
    assert first.endswith("; 77.0 of 80.0 GiB are free: the figures will not be its own")
    assert second.count(", process ") == 2
    assert third.startswith("GPU 0 ")
    assert ", process " not in third


def test_the_process_that_asks_is_no_other(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    """As it was on a GPU, where the process that asked had computed something itself."""
    build = install_build(tmp_path, cuda="12.6", kernels=CU126)
    notices = choose(nvml_standin, {"FAKE_NVML_PID": "0", "FAKE_NVML_USED": "1"}, build)
    # Of 2, 3 and 1 processes the first is the one that asks.
    assert [notice.count("process ") for notice in notices] == [1, 2]


def test_memory_that_is_taken_by_nobody_known_is_a_notice(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    build = install_build(tmp_path, cuda="12.6", kernels=CU126)
    assert choose(nvml_standin, IDLE, {"FAKE_NVML_USED": "40"}, build, count=1) == [
        "GPU 1 (Stand-in 80GB): only 40.0 of 80.0 GiB are free, and no process is listed; another container may use it"
    ]
    assert choose(nvml_standin, IDLE, {"FAKE_NVML_USED": "8"}, build, count=1) == []


@pytest.mark.parametrize(
    ("version", "requires", "cuda"),
    [
        ("3.3.1", ["nvidia-cuda-runtime-cu12==12.6.77; platform_system == 'Linux'"], (12, 6)),
        ("3.3.1", ["numpy>=1.21", "nvidia-cuda-runtime==13.0.48"], (13, 0)),
        ("3.4.0", ["cuda-toolkit[cudart,cufft]==13.2.1"], (13, 2)),
        ("3.3.1+cu129", [], (12, 9)),
        ("2.6.2.post120", [], (12, 0)),
        ("3.3.1", ["numpy>=1.21"], ()),
    ],
)
def test_the_cuda_of_a_build_by_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, requires: list[str], cuda: tuple[int, ...]
) -> None:
    install_build(tmp_path, version, requires=requires)
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_build() == Build(version, cuda)


def test_what_a_build_says_about_itself_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_build(tmp_path, cuda="12.9", kernels=CU129, requires=["nvidia-cuda-runtime-cu12==12.6.77"])
    monkeypatch.syspath_prepend(tmp_path)
    kernels = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
    assert installed_build() == Build("3.3.1", (12, 9), kernels)


def test_a_cpu_build_over_it_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_build(tmp_path, cuda="False")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_build() == Build("3.3.1")
