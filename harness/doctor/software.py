"""Checks of what is installed: Python, packages, Paddle's packages, the driver. They import none of it."""

from __future__ import annotations

import platform
from pathlib import Path

from harness.doctor.check import FAIL, MAKE_INSTALL, OK, WARN, Context, Finding, skip
from harness.doctor.requirements import parse_requirement, read_project, satisfies
from harness.machine.device import INSTALL_CPU, INSTALL_GPU, check_paddle, installed_version
from harness.machine.nvml import Nvml, NvmlUnavailable

# Of CUDA 12; source: its release notes, the least driver for minor version compatibility.
MIN_DRIVER = "525.60.13"
NVIDIA_FILES = ("dev/nvidiactl", "proc/driver/nvidia/version")
BOTH = ("paddlepaddle", "paddlepaddle-gpu")


def python(context: Context) -> Finding:
    """Python's version is one that the project supports."""
    needed = str(read_project(Path(context.project))["requires-python"])
    own = platform.python_version()
    if satisfies(own, needed):
        return Finding(OK, own, needed)
    return Finding(
        FAIL, own, needed, "the packages have no builds for this version of Python", "make install PYTHON=python3.12"
    )


def packages(context: Context) -> Finding:
    """Every package is installed, in a version that pyproject.toml asks for."""
    texts, own = read_project(Path(context.project))["dependencies"], platform.python_version()
    asked = (parse_requirement(text, own) for text in texts)
    needed = [requirement for requirement in asked if requirement is not None]
    wrong = [
        (requirement, installed)
        for requirement in needed
        if (installed := installed_version(requirement.name)) is None or not satisfies(installed, requirement.versions)
    ]
    if not wrong:
        return Finding(OK, f"{len(needed)} packages", "the versions in pyproject.toml")
    return Finding(
        FAIL,
        ", ".join(f"{requirement.name} {installed or 'not installed'}" for requirement, installed in wrong),
        ", ".join(f"{requirement.name} {requirement.versions}" for requirement, _ in wrong),
        "other versions were never tried with this code, and some are known to break it",
        MAKE_INSTALL,
    )


def paddle_package(_: Context) -> Finding:
    """One of Paddle's packages is installed, in a version that is new enough, and only one."""
    both = [f"{name} {version}" for name in BOTH if (version := installed_version(name)) is not None]
    if len(both) == len(BOTH):
        return Finding(
            FAIL,
            " and ".join(both),
            "one of the two",
            "both write the same files, so that which build is imported is chance",
            f"pip uninstall -y {' '.join(BOTH)}, then on a CPU: {INSTALL_CPU}; on GPUs: {INSTALL_GPU}",
        )
    check_paddle()
    return Finding(OK, both[0] if both else "a vendor's Paddle", "3.2 or newer")


def driver(context: Context) -> Finding:
    """NVIDIA's driver answers through NVML, and is new enough for CUDA 12."""
    try:
        with Nvml() as nvml:
            return judge_driver(nvml.driver_version() or "unknown", len(nvml.gpus()))
    except NvmlUnavailable as error:
        present = [f"/{name}" for name in NVIDIA_FILES if (Path(context.root) / name).exists()]
        if not present:
            return skip(f"no NVIDIA driver is installed here (NVML: {error})")
        return Finding(
            FAIL,
            f"NVML: {error}",
            "a driver that answers",
            f"{present[0]} is there, so that a driver is loaded, but NVML can't use it",
            "nvidia-smi (if its version differs from the kernel module's, restart the machine; in a container, start it"
            " with --gpus all)",
        )


def judge_driver(version: str, gpus: int) -> Finding:
    """Returns the finding for a driver of this version with this number of GPUs."""
    if not gpus:
        return Finding(WARN, f"driver {version}, no GPU", "a GPU", "the driver sees no GPU", "nvidia-smi -L")
    found = f"driver {version}, {gpus} GPU{'s' if gpus > 1 else ''}"
    if version != "unknown" and not satisfies(version, f">={MIN_DRIVER}"):
        return Finding(
            FAIL,
            found,
            f"{MIN_DRIVER} or newer",
            "Paddle's and DALI's packages are built for CUDA 12, which this driver doesn't run",
            "install a newer driver, see https://docs.nvidia.com/datacenter/tesla/",
        )
    return Finding(OK, found, f"{MIN_DRIVER} or newer")


def gpu_processes(_: Context) -> Finding:
    """No other program computes on the GPUs."""
    try:
        with Nvml() as nvml:
            counts = {gpu.index: nvml.sample(gpu).processes for gpu in nvml.gpus()}
    except NvmlUnavailable as error:
        return skip(f"no NVIDIA driver answers here (NVML: {error})")
    known = {index: count for index, count in counts.items() if count is not None}
    if not known:
        return skip("NVML lists no GPU, or doesn't count processes on it")
    busy = [f"GPU {index}: {count}" for index, count in known.items() if count]
    if busy:
        return Finding(
            WARN,
            ", ".join(busy),
            "no process",
            "other programs on a GPU make every figure of it wrong, and take its memory",
            "nvidia-smi lists them; end them, or choose other GPUs with CUDA_VISIBLE_DEVICES",
        )
    return Finding(OK, f"none on {len(known)} GPUs", "no process")
