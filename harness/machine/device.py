"""Devices, their clocks and their flags: apart from the DALI graph, the only code that distinguishes CPU and GPU."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from harness.errors import MachineError
from harness.machine.host import available_cores
from harness.machine.nvml import Gpu, Nvml, NvmlUnavailable
from harness.machine.visible_gpus import visible_gpus

MIN_PADDLE = (3, 2)
PADDLE_GPU_VERSION = "3.3.1"
# Paddle's own index, because PyPI ends at paddlepaddle-gpu 2.6.2 (CUDA 11.8).
PADDLE_GPU_INDEX = "https://www.paddlepaddle.org.cn/packages/stable/cu126/"
INSTALL_CPU = "pip install 'paddlepaddle>=3.2'"
INSTALL_GPU = f"pip install paddlepaddle-gpu=={PADDLE_GPU_VERSION} -i {PADDLE_GPU_INDEX}"
MAX_CPU_RANKS = 4

LAUNCHER_VARIABLES = ("PADDLE_", "FLAGS_selected_", "MASTER_", "POD_")
# Set on GPUs by the reference run (DeepSparkHub, PP-LCNet).
GPU_FLAGS = {"FLAGS_cudnn_exhaustive_search": "True", "FLAGS_cudnn_batchnorm_spatial_persistent": "True"}


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices that a run trains on: `count` devices of one kind, with one rank each.

    kind is "cpu" or "gpu"; name is the GPUs' product name, or "CPU". gpus is empty on CPUs and in a dry run.
    """

    kind: str
    count: int
    name: str
    gpus: tuple[Gpu, ...] = ()


def choose_devices(
    kind: str, count: int | None, environment: Mapping[str, str], *, look: bool = True
) -> tuple[Devices, tuple[str, ...]]:
    """Returns the devices of a run, and notices for the user about the choice.

    kind is auto, gpu or cpu, count the requested number. With look=False (a dry run) requested GPUs are assumed to
    exist. Raises MachineError if they don't exist, or if Paddle can't use them.
    """
    if kind == "cpu":
        return _cpus(count)
    if not look and (kind == "gpu" or count is not None):
        return Devices("gpu", count or 1, "GPU"), ()
    try:
        with Nvml() as nvml:
            gpus = visible_gpus(nvml.gpus(), environment.get("CUDA_VISIBLE_DEVICES"))
        reason = "" if gpus else "NVML finds no GPU that CUDA_VISIBLE_DEVICES allows"
    except NvmlUnavailable as error:
        gpus, reason = (), f"NVML: {error}"
    if gpus and not _paddle_for_gpu():
        reason = "the installed paddlepaddle is the CPU build"
        if kind == "gpu" or count is not None:
            raise MachineError(f"{len(gpus)} GPUs found, but {reason}", f"Install the GPU build: {INSTALL_GPU}")
        gpus = ()
    wanted = count if count is not None else (len(gpus) or 1)
    if (kind == "gpu" or count is not None) and wanted > len(gpus):
        raise MachineError(
            f"{wanted} GPU{'s' if wanted > 1 else ''} requested, {len(gpus)} found"
            + (f" ({reason})" if reason else ""),
            f"To run on this machine's CPU instead: --device cpu --gpus {min(wanted, available_cores())}",
        )
    if not gpus:
        devices, notices = _cpus(None)
        return devices, (f"no GPU ({reason}): training on the CPU with {devices.count} ranks", *notices)
    nameless = [str(gpu.index) for gpu in gpus[:wanted] if not gpu.uuid]
    if nameless:
        raise MachineError(
            f"NVML doesn't report the UUID of GPU {', '.join(nameless)}, so no rank can be assigned to it",
            "Check nvidia-smi -L, and select other GPUs with CUDA_VISIBLE_DEVICES.",
        )
    return Devices("gpu", wanted, gpus[0].name, gpus[:wanted]), ()


def _cpus(count: int | None) -> tuple[Devices, tuple[str, ...]]:
    cores = available_cores()
    ranks = count if count is not None else min(MAX_CPU_RANKS, cores)
    notices = (f"{ranks} ranks share {cores} cores",) if ranks > cores else ()
    return Devices("cpu", ranks, "CPU"), notices


def check_paddle() -> None:
    """Raise MachineError unless a supported version of Paddle is installed."""
    for package, install in (("paddlepaddle-gpu", INSTALL_GPU), ("paddlepaddle", INSTALL_CPU)):
        installed = installed_version(package)
        if installed is None:
            continue
        numbers = tuple(int(n) for n in re.findall(r"\d+", installed)[:2])
        if numbers < MIN_PADDLE:
            raise MachineError(f"{package} {installed} is too old; 3.2 or newer is needed", f"Install it: {install}")
        return
    raise MachineError("Paddle isn't installed", f"On a CPU: {INSTALL_CPU}\nOn GPUs: {INSTALL_GPU}")


def installed_version(package: str) -> str | None:
    """Returns the installed version of a package, without importing it; None if it isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _paddle_for_gpu() -> bool:
    return installed_version("paddlepaddle-gpu") is not None


def worker_environment(devices: Devices, compute_threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment in which the ranks start.

    Variables of another launcher are dropped, because Paddle's launcher would let them override its command line.
    """
    env = {name: value for name, value in environment.items() if not name.startswith(LAUNCHER_VARIABLES)}
    env["OMP_NUM_THREADS"] = str(compute_threads)
    if devices.kind == "gpu":
        # By UUID, because NVML and CUDA may number the GPUs differently.
        env["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in devices.gpus)
        env.update(GPU_FLAGS)
    else:
        # The launcher takes the mere presence of the variable as a sign of GPUs, even on a CPU build.
        env.pop("CUDA_VISIBLE_DEVICES", None)
        env["PADDLE_DISTRI_BACKEND"] = "gloo"
    return env


class Clock(Protocol):
    """The device's time, in seconds since `start`.

    A mark is the moment when the device has finished all work queued so far. Its time is read by `seconds`, not before,
    so that marking never waits.
    """

    started_at: float

    def start(self) -> None:
        """Start the clock; started_at becomes the host's time.perf_counter()."""

    def mark(self) -> Any:
        """Returns a mark after the work queued so far."""

    def host_seconds(self) -> float:
        """Returns the host's seconds since the start, whatever the device does."""

    def wait(self, mark: Any) -> None:
        """Return once the device has reached the mark."""

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """Returns when the device reached each mark, in seconds since the start."""


class HostClock:
    """The clock of a CPU, whose work is done when a call returns. now is perf_counter, or a test's clock."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.started_at = now()

    def start(self) -> None:
        """Start the clock."""
        self.started_at = self._now()

    def mark(self) -> float:
        """Returns the seconds since the start."""
        return self._now() - self.started_at

    def host_seconds(self) -> float:
        """Returns the seconds since the start."""
        return self._now() - self.started_at

    def wait(self, mark: float) -> None:
        """Do nothing: the work is done already."""

    def seconds(self, marks: Sequence[float]) -> list[float]:
        """Returns the marks, which are seconds already."""
        return list(marks)


class CudaClock:
    """The clock of a GPU: CUDA events on Paddle's stream, read when they have passed."""

    def __init__(self) -> None:
        from paddle import device

        self._device = device
        self.start()

    def start(self) -> None:
        """Wait for the GPU once, and start the clock."""
        self._device.synchronize()
        self.started_at = time.perf_counter()
        self._anchor, self._anchor_seconds = self.mark(), 0.0

    def mark(self) -> Any:
        """Returns an event after the work queued so far."""
        event = self._device.Event(enable_timing=True)
        event.record()
        return event

    def host_seconds(self) -> float:
        """Returns the host's seconds since the start."""
        return time.perf_counter() - self.started_at

    def wait(self, mark: Any) -> None:
        """Block until the event has passed."""
        mark.synchronize()

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """Returns when each event passed, in seconds since the start.

        The last event becomes the anchor of later calls, because CUDA measures in float32 milliseconds.
        """
        for mark in marks[-1:]:
            mark.synchronize()
        read = [self._anchor_seconds + self._anchor.elapsed_time(mark) / 1000 for mark in marks]
        if read:
            self._anchor, self._anchor_seconds = marks[-1], read[-1]
        return read


def open_device(kind: str, local_rank: int) -> tuple[Clock, int | None]:
    """Make this rank's device Paddle's current one. Returns its clock, and its CUDA index (None on a CPU)."""
    import paddle

    if kind == "gpu":
        paddle.device.set_device(f"gpu:{local_rank}")
        return CudaClock(), local_rank
    paddle.device.set_device("cpu")
    return HostClock(), None


def cudnn_tf32(kind: str) -> bool | None:
    """Returns whether Paddle lets cuDNN compute FP32 convolutions in TF32; None on CPUs, or if unknown."""
    if kind == "cpu":
        return None
    from paddle.base import core

    switch = getattr(core, "get_cudnn_switch", None)
    return None if switch is None else bool(switch())


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Returns the rank's number on its host, as set by Paddle's launcher."""
    return int(environment.get("PADDLE_LOCAL_RANK", "0"))
