"""Checks of what is installed: Python, packages, Paddle's packages, the driver. They import none of it."""

from __future__ import annotations

import platform
from pathlib import Path

from harness.doctor.check import FAIL, MAKE_INSTALL, OK, WARN, Context, Finding, skip
from harness.doctor.requirements import parse_requirement, read_project, satisfies
from harness.errors import MachineError
from harness.machine.device import PADDLES, check_paddle, installed_version
from harness.machine.gpu_fit.checks import check_fit
from harness.machine.nvml import Nvml, NvmlUnavailable
from models.words import count_of

NVIDIA_FILES = ("dev/nvidiactl", "proc/driver/nvidia/version")


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
    notices = check_paddle()
    found = ", ".join(f"{name} {version}" for name in PADDLES if (version := installed_version(name)) is not None)
    return Finding(WARN if notices else OK, found, "one package, 3.2 or newer", "; ".join(notices))


def driver(context: Context) -> Finding:
    """NVIDIA's driver answers through NVML, and GPUs, driver and Paddle's build fit together."""
    try:
        with Nvml() as nvml:
            version, gpus = nvml.driver_version() or "unknown", nvml.gpus()
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
    if not gpus:
        return Finding(WARN, f"driver {version}, no GPU", "a GPU", "the driver sees no GPU", "nvidia-smi -L")
    check_fit(gpus)
    found = f"driver {version}, {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    return Finding(OK, found, "no MIG, a driver for CUDA 12, kernels for each GPU")


def gpu_processes(_: Context) -> Finding:
    """No other program computes on the GPUs."""
    try:
        with Nvml() as nvml:
            gpus = nvml.gpus()
    except NvmlUnavailable as error:
        return skip(f"no NVIDIA driver answers here (NVML: {error})")
    if not gpus:
        return skip("the driver sees no GPU")
    try:
        notices = check_fit(gpus)
    except MachineError:
        return skip("the GPUs can't be used, see the check driver")
    if notices:
        return Finding(
            WARN,
            f"{len(notices)} of {count_of(len(gpus), 'GPU')} in use",
            "no process, and free memory",
            "; ".join(notices),
            "nvidia-smi lists the processes; end them, or choose other GPUs with CUDA_VISIBLE_DEVICES",
        )
    return Finding(OK, f"none on {count_of(len(gpus), 'GPU')}", "no process, and free memory")
