"""Checks that GPUs, driver and Paddle fit together before ranks start. What NVML doesn't report stops no run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import psutil

from harness.errors import MachineError
from harness.machine.gpu_fit.installed import PADDLE_GPU, Build, installed_build
from harness.machine.gpu_fit.wheels import DEFAULT, WHEELS, Version, Wheel, parse_version, wheel_for, written
from harness.machine.nvml import Gpu, Nvml, NvmlUnavailable
from models.notes import Note

GIB = 2**30
# DALI's package for CUDA 12 is the one that this bench requires.
DALI, DALI_CUDA = "nvidia-dali-cuda120", 12
# A GPU that nobody uses has hundreds of megabytes taken by its driver at most.
MAX_TAKEN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class GpuState:
    """What NVML reports about a GPU before a run; None is unknown.

    capability is its compute capability, mig whether it is split into slices (multi-instance GPU). processes are the
    numbers of those that compute on it.
    """

    gpu: Gpu
    capability: Version | None = None
    mig: bool | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    processes: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"GPU {self.gpu.index} ({self.gpu.name or 'unnamed'})"


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver's version, and the newest CUDA that it runs; None is unknown.

    A compatibility package (cuda-compat) raises cuda, and leaves the version as it is.
    """

    version: str | None = None
    cuda: Version | None = None


def read_state(gpus: Sequence[Gpu]) -> tuple[Driver, tuple[GpuState, ...]]:
    """Returns what NVML reports about the driver and these GPUs. Never raises."""
    try:
        with Nvml() as nvml:
            return _driver(nvml), tuple(_gpu_state(nvml, gpu) for gpu in gpus)
    except NvmlUnavailable:
        return Driver(), tuple(GpuState(gpu) for gpu in gpus)


def _driver(nvml: Nvml) -> Driver:
    # 12040 is 12.4.
    number = nvml.query(None, "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")
    return Driver(nvml.driver_version(), (number // 1000, number % 1000 // 10) if number else None)


def _gpu_state(nvml: Nvml, gpu: Gpu) -> GpuState:
    capability = nvml.query(gpu, "nvmlDeviceGetCudaComputeCapability")
    mig = nvml.query(gpu, "nvmlDeviceGetMigMode")
    memory = nvml.query(gpu, "nvmlDeviceGetMemoryInfo")
    listed = nvml.query(gpu, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
    return GpuState(
        gpu,
        capability=None if capability is None else tuple(capability),
        mig=None if mig is None else bool(mig[0]),
        free_bytes=None if memory is None else int(memory.free),
        total_bytes=None if memory is None else int(memory.total),
        processes=tuple(int(process.pid) for process in listed or () if process.pid != os.getpid()),
    )


def fitting_wheel(driver: Driver, states: Iterable[GpuState]) -> Wheel | None:
    """Returns Paddle's build for these GPUs and this driver, as far as they are known; None if there is none."""
    capabilities = [state.capability for state in states if state.capability is not None]
    return wheel_for(capabilities, None if driver.version is None else parse_version(driver.version))


def install_command(gpus: Sequence[Gpu]) -> str:
    """Returns the command that installs Paddle's build for these GPUs; the usual build if none runs on all of them."""
    return (fitting_wheel(*read_state(gpus)) or DEFAULT).install


def check_fit(gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """Returns notices about the GPUs of a run: memory that is taken, and other processes on them.

    Raises MachineError if a GPU is in MIG mode, the driver is too old, or the installed Paddle lacks a GPU's kernels.
    """
    driver, states = read_state(gpus)
    build = installed_build()
    _check_mig(states)
    _check_driver(driver, states, build)
    _check_kernels(driver, states, build)
    return tuple(notice for state in states if (notice := _use(state)))


def _check_mig(states: Sequence[GpuState]) -> None:
    split = [state for state in states if state.mig]
    if split:
        numbers = ",".join(str(state.gpu.index) for state in split)
        raise MachineError(
            f"{_titles(split)} in MIG mode: Paddle would train on a slice, and telemetry would be the whole GPU's",
            f"Turn it off: sudo nvidia-smi -i {numbers} -mig 0. Or select other GPUs with CUDA_VISIBLE_DEVICES.",
        )


def _check_driver(driver: Driver, states: Sequence[GpuState], build: Build | None) -> None:
    """Raise MachineError if the driver can't run the CUDA of DALI or Paddle."""
    paddle_cuda = build.cuda[0] if build is not None and build.cuda else 0
    needed = max(paddle_cuda, DALI_CUDA)
    if not _too_old(driver, needed):
        return
    what = build.title if build is not None and paddle_cuda == needed else DALI
    newest = "" if driver.cuda is None else f" runs CUDA {written(driver.cuda)} at most"
    cure = f"Install driver {written(_oldest_driver(needed))} or newer."
    wheel = fitting_wheel(driver, states)
    if wheel is not None and not _too_old(driver, wheel.cuda_major):
        cure += f" Or install the build that fits this driver: {_replace(wheel)}"
    raise MachineError(
        f"the NVIDIA driver {driver.version or 'here'}{newest or ' is too old'}, and {what} needs CUDA {needed}", cure
    )


def _too_old(driver: Driver, cuda_major: int) -> bool:
    """Whether a driver certainly can't run a CUDA of this major version; any minor one is within its reach.

    Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility".
    """
    if driver.cuda is not None:
        return driver.cuda[0] < cuda_major
    return driver.version is not None and parse_version(driver.version) < _oldest_driver(cuda_major)


def _oldest_driver(cuda_major: int) -> Version:
    """The oldest driver for a CUDA of this major version; for one that is unknown here, that for the newest known."""
    return next((wheel.driver for wheel in WHEELS if wheel.cuda_major >= cuda_major), WHEELS[-1].driver)


def _check_kernels(driver: Driver, states: Sequence[GpuState], build: Build | None) -> None:
    if build is None:
        return
    lacking = [state for state in states if state.capability is not None and build.lacks(state.capability)]
    if not lacking:
        return
    capabilities = sorted({state.capability for state in lacking if state.capability is not None})
    has = f"; it has them for {_list(build.kernels)}" if build.kernels else ""
    wheel = fitting_wheel(driver, states)
    if wheel is None or wheel.cuda == build.cuda[:2]:
        cure = "No build that is known here has them all: select other GPUs with CUDA_VISIBLE_DEVICES."
    else:
        cure = f"Install the build that has: {_replace(wheel)}"
    raise MachineError(
        f"the installed {build.title} has no kernels for the compute capability {_list(capabilities)} of"
        f" {_list_titles(lacking)}{has}",
        cure,
    )


def _replace(wheel: Wheel) -> str:
    """The commands that put a build in the place of another: pip takes builds of one version for the same."""
    return f"pip uninstall -y {PADDLE_GPU} && {wheel.install}"


def _use(state: GpuState) -> str:
    """The notice about a GPU that isn't free; empty if it is, or if that is unknown."""
    free = ""
    taken = 0.0
    if state.free_bytes is not None and state.total_bytes:
        taken = 1 - state.free_bytes / state.total_bytes
        free = f"{state.free_bytes / GIB:.1f} of {state.total_bytes / GIB:.1f} GiB are free"
    if state.processes:
        named = ", ".join(_process(number) for number in state.processes)
        return Note(
            f"{state.title} is also used by {named}{f'; {free}' if free else ''}: the figures will not be its own",
            "End what uses it, or choose other GPUs with CUDA_VISIBLE_DEVICES.",
        )
    if taken > MAX_TAKEN_SHARE:
        return Note(
            f"{state.title}: only {free}, and no process is listed; another container may use it",
            "Find out on the host what uses it, or choose other GPUs with CUDA_VISIBLE_DEVICES.",
        )
    return ""


def _process(number: int) -> str:
    """A process in words; its name is unknown where it runs in another container."""
    try:
        return f"process {number} ({psutil.Process(number).name()})"
    except psutil.Error:
        return f"process {number}"


def _list(versions: Collection[Version]) -> str:
    return ", ".join(written(version) for version in versions)


def _list_titles(states: Sequence[GpuState]) -> str:
    return ", ".join(state.title for state in states)


def _titles(states: Sequence[GpuState]) -> str:
    return f"{_list_titles(states)} {'is' if len(states) == 1 else 'are'}"
