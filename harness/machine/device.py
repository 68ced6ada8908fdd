"""The devices of a run: which there are, which are taken, and what a rank needs to use its own."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from harness.errors import MachineError
from harness.machine.clock import Clock, CudaClock, HostClock, PollingClock
from harness.machine.device_kinds import CPU, GPU, HOST_CLOCK, OFF, PASSING_EVENTS, TIMED_EVENTS, device_kind
from harness.machine.gpu_fit.checks import check_fit, install_command
from harness.machine.gpu_fit.installed import PADDLE_GPU
from harness.machine.host import available_cores
from harness.machine.nvml import Gpu, Nvml, NvmlUnavailable
from harness.machine.plugins import PLUGIN_ROOT, plugin_devices
from harness.machine.visible_gpus import visible_gpus
from models.notes import Note
from models.words import count_of

# The value of --device that takes what there is.
AUTO = "auto"
MIN_PADDLE = (3, 2)
INSTALL_CPU = "pip install 'paddlepaddle>=3.2'"
PADDLE_CPU = "paddlepaddle"
# The last one is a vendor's whole Paddle, with its plugin.
PADDLES = (PADDLE_GPU, PADDLE_CPU, "paddlepaddle-iluvatar")
# The version that Paddle's own build scripts give what is built without one.
FROM_SOURCE = "0.0.0"
INSTALL_PLUGIN = "Install the vendor's Paddle and its plugin; docs/devices.md names Paddle's pages."
MAX_CPU_RANKS = 4
# "0" forbids TF32 to all of NVIDIA's libraries, whatever a program asks them for.
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"

LAUNCHER_VARIABLES = ("PADDLE_", "FLAGS_selected_", "MASTER_", "POD_")
CLOCKS: Mapping[str, Callable[[], Clock]] = {
    HOST_CLOCK: HostClock,
    TIMED_EVENTS: CudaClock,
    PASSING_EVENTS: PollingClock,
}


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices that a run trains on: `count` devices of one kind, with one rank each.

    kind is the name of a `harness.machine.device_kinds.DeviceKind`; name is the GPUs' product name, "CPU", or the
    plugin's type. gpus is empty on other devices than GPUs, and in a dry run.
    """

    kind: str
    count: int
    name: str
    gpus: tuple[Gpu, ...] = ()


Found = tuple[Devices, tuple[str, ...]]

DEVICE_DECIDES = "--device decides it; run_bench.py doctor says what is missing for GPUs."


def choose_devices(name: str, count: int | None, environment: Mapping[str, str], *, look: bool = True) -> Found:
    """Returns the devices of a run, and notices for the user about the choice.

    name is auto (GPUs, else a plugin's devices, else CPUs), cpu, gpu or a plugin's type; count is the requested number.
    With look=False (a dry run) requested devices are assumed to exist. Raises MachineError if they don't exist, or if
    Paddle can't use them.
    """
    choose = {AUTO: _any, CPU.name: _cpus, GPU.name: _gpus}.get(name, partial(_plugins, name))
    return choose(count, environment, look)


def _cpus(count: int | None, _: Mapping[str, str], __: bool) -> Found:
    cores = available_cores()
    ranks = count if count is not None else min(MAX_CPU_RANKS, cores)
    devices = Devices(CPU.name, ranks, CPU.title)
    if ranks <= cores:
        return devices, ()
    return devices, (Note(f"{ranks} ranks share {count_of(cores, 'core')}", f"--gpus {cores} gives each rank a core."),)


def _gpus(count: int | None, environment: Mapping[str, str], look: bool) -> Found:
    if not look:
        return Devices(GPU.name, count or 1, GPU.title), ()
    return _of_gpus(count, *_visible(environment))


def _of_gpus(count: int | None, gpus: tuple[Gpu, ...], reason: str) -> Found:
    """The first ones of these GPUs; reason is why Paddle can't use them, or there are none."""
    if gpus and reason:
        replace = f"pip uninstall -y {PADDLE_CPU} && {install_command(gpus)}"
        raise MachineError(f"{count_of(len(gpus), 'GPU')} found, but {reason}", f"Install the GPU build: {replace}")
    wanted = count if count is not None else (len(gpus) or 1)
    if wanted > len(gpus):
        raise MachineError(
            f"{count_of(wanted, 'GPU')} requested, {len(gpus)} found" + (f" ({reason})" if reason else ""),
            f"To run on this machine's CPU instead: --device cpu --gpus {min(wanted, available_cores())}",
        )
    nameless = [str(gpu.index) for gpu in gpus[:wanted] if not gpu.uuid]
    if nameless:
        raise MachineError(
            f"NVML doesn't report the UUID of GPU {', '.join(nameless)}, so no rank can be assigned to it",
            "Check nvidia-smi -L, and select other GPUs with CUDA_VISIBLE_DEVICES.",
        )
    return Devices(GPU.name, wanted, gpus[0].name, gpus[:wanted]), check_fit(gpus[:wanted])


def _visible(environment: Mapping[str, str]) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that this run may use, and why Paddle can't use them or there are none."""
    try:
        with Nvml() as nvml:
            gpus = visible_gpus(nvml.gpus(), environment.get(GPU.selection))
    except NvmlUnavailable as error:
        return (), f"NVML: {error}"
    if not gpus:
        return (), "NVML finds no GPU that CUDA_VISIBLE_DEVICES allows"
    return gpus, "" if _paddle_for_gpu() else "the installed paddlepaddle is the CPU build"


def _plugins(name: str, count: int | None, environment: Mapping[str, str], look: bool) -> Found:
    if not look:
        return Devices(name, count or 1, name), ()
    return _of_plugin(name, count, plugin_devices(environment))


def _of_plugin(name: str, count: int | None, there: Mapping[str, int]) -> Found:
    """Devices of this type, of those that Paddle's plugins offer."""
    if name not in there:
        reported = ", ".join(f"{number} x {kind}" for kind, number in there.items()) or "no plugin's devices"
        raise MachineError(
            f"Paddle knows no device of type {name!r} here; it reports {reported}",
            f"{INSTALL_PLUGIN} Without one: --device auto, cpu or gpu.",
        )
    first = next(iter(there))
    if name != first:
        raise MachineError(
            f"Paddle's launcher takes the first of the installed plugins ({first}), so that {name} can't be used",
            f"Set {PLUGIN_ROOT} to a folder that has the plugin of {name} alone.",
        )
    wanted = count if count is not None else max(there[name], 1)
    if wanted > there[name]:
        raise MachineError(
            f"{count_of(wanted, 'device')} of type {name} requested, {there[name]} found",
            f"Use --gpus {there[name]} or less, or check {device_kind(name).selection}.",
        )
    return Devices(name, wanted, name), ()


def _any(count: int | None, environment: Mapping[str, str], look: bool) -> Found:
    if not look and count is not None:
        return _gpus(count, environment, look)
    gpus, reason = _visible(environment)
    if gpus and not reason:
        return _of_gpus(count, gpus, reason)
    there = plugin_devices(environment)
    first = next(iter(there), None)
    if first is not None and there[first]:
        devices, notices = _of_plugin(first, count, there)
        note = Note(f"no GPU ({reason}): training on {devices.count} x {devices.name}", DEVICE_DECIDES)
        return devices, (note, *notices)
    if count is not None:
        return _of_gpus(count, gpus, reason)
    devices, notices = _cpus(None, environment, look)
    note = Note(f"no GPU ({reason}): training on the CPU with {count_of(devices.count, 'rank')}", DEVICE_DECIDES)
    return devices, (note, *notices)


def check_paddle() -> tuple[str, ...]:
    """Returns notices about the installed Paddle.

    Raises MachineError unless there is one of a supported version, and only one.
    """
    there = {package: found for package in PADDLES if (found := installed_version(package)) is not None}
    if not there:
        raise MachineError("Paddle isn't installed", _install_either())
    if PADDLE_GPU in there and PADDLE_CPU in there:
        raise MachineError(
            f"{PADDLE_GPU} {there[PADDLE_GPU]} and {PADDLE_CPU} {there[PADDLE_CPU]} are both installed: they have the"
            " same files, of which the one installed last has overwritten the other's",
            f"Uninstall both: pip uninstall -y {PADDLE_GPU} {PADDLE_CPU}\nThen install one. {_install_either()}",
        )
    package, installed = next(iter(there.items()))
    if installed.startswith(FROM_SOURCE):
        return (
            Note(
                f"{package} {installed} was built from source: its version is unknown, and 3.2 or newer is needed",
                "Check that its source is of 3.2 or newer.",
            ),
        )
    numbers = tuple(int(n) for n in re.findall(r"\d+", installed)[:2])
    if numbers < MIN_PADDLE:
        raise MachineError(
            f"{package} {installed} is too old; 3.2 or newer is needed", f"Install it: {_install(package)}"
        )
    return ()


def _install(package: str) -> str:
    """How to install a package of Paddle's."""
    if package == PADDLE_GPU:
        return install_command(_all_gpus())
    return INSTALL_CPU if package == PADDLE_CPU else "see docs/devices.md"


def _install_either() -> str:
    return f"On a CPU: {_install(PADDLE_CPU)}\nOn GPUs: {_install(PADDLE_GPU)}"


def _all_gpus() -> tuple[Gpu, ...]:
    try:
        with Nvml() as nvml:
            return nvml.gpus()
    except NvmlUnavailable:
        return ()


def installed_version(package: str) -> str | None:
    """Returns the installed version of a package, without importing it; None if it isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _paddle_for_gpu() -> bool:
    return installed_version(PADDLE_GPU) is not None


def worker_environment(
    devices: Devices, compute_threads: int, environment: Mapping[str, str], tf32: str | None = None
) -> dict[str, str]:
    """Returns the environment in which the ranks start.

    tf32 is --tf32's value: "off" forbids TF32 to cuBLAS and cuDNN, "on" removes what would forbid it, and None leaves
    the user's variable. Variables of another launcher are dropped, because Paddle's launcher would let them override
    its command line.
    """
    kind = device_kind(devices.kind)
    env = {**kind.defaults}
    env |= {name: value for name, value in environment.items() if not name.startswith(LAUNCHER_VARIABLES)}
    for name in kind.hidden:
        env.pop(name, None)
    env["OMP_NUM_THREADS"] = str(compute_threads)
    env["PADDLE_DISTRI_BACKEND"] = kind.backend
    env.update(kind.flags)
    if tf32 is not None:
        env.pop(TF32_OVERRIDE, None)
    if tf32 == OFF:
        env[TF32_OVERRIDE] = "0"
    if devices.gpus:
        # By UUID, because NVML and CUDA may number the GPUs differently.
        env[kind.selection] = ",".join(gpu.uuid for gpu in devices.gpus)
    return env


def open_device(name: str, number: int) -> Clock:
    """Make this rank's device Paddle's current one; number is the rank's on its host. Returns the device's clock."""
    import paddle

    kind = device_kind(name)
    paddle.device.set_device(name if kind.on_host else f"{name}:{number}")
    return CLOCKS[kind.clock]()


def gradients_add_up() -> bool:
    """Returns whether Paddle adds the gradients of several backward passes on its current device.

    On a plugin's devices without the kernel `add` it keeps the first pass's alone, and says nothing.
    """
    import paddle

    weight = paddle.ones([1])
    weight.stop_gradient = False
    for factor in (1.0, 2.0):
        (factor * weight).sum().backward()
    return float(weight.grad) == 3.0


def lack_of(dtype: str) -> str:
    """Returns why Paddle's current device can't train in this 16-bit format, bfloat16 or float16; empty if it can."""
    import paddle

    if dtype == "bfloat16" and not paddle.amp.is_bfloat16_supported():
        return "Paddle finds that this one doesn't"
    if isinstance(paddle.framework._current_expected_place_(), paddle.CustomPlace):
        return _failed_trial(dtype)
    # On older GPUs Paddle would only warn, and train in float32.
    if paddle.is_compiled_with_cuda() and paddle.device.cuda.get_device_capability()[0] < 7:
        return "this one's compute capability is below 7.0"
    return ""


def _failed_trial(dtype: str) -> str:
    """Why a convolution can't: a plugin may lack the kernel, and Paddle turns some formats off by its name."""
    import paddle

    try:
        with warnings.catch_warnings(), paddle.amp.auto_cast(level="O1", dtype=dtype):
            warnings.simplefilter("ignore")
            result = paddle.nn.functional.conv2d(paddle.ones([1, 1, 1, 1]), paddle.ones([1, 1, 1, 1]))
    except RuntimeError as error:
        # Below Paddle's stack, if that is printed.
        said = re.search(r"^\s*(?:\w+Error: |\(\w+\) )(.*)", str(error), re.MULTILINE)
        return str(error) if said is None else said[1]
    computed = str(result.dtype).removeprefix("paddle.")
    return "" if computed == dtype else f"Paddle computes a convolution in {computed} instead on this one"


def cudnn_tf32(name: str, environment: Mapping[str, str] = os.environ) -> bool | None:
    """Returns whether cuDNN may compute FP32 convolutions in TF32; None without cuDNN, or if unknown.

    Both Paddle and the rank's environment must let it.
    """
    if not device_kind(name).cudnn:
        return None
    if environment.get(TF32_OVERRIDE) == "0":
        return False
    from paddle.base import core

    switch = getattr(core, "get_cudnn_switch", None)
    return None if switch is None else bool(switch())


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Returns the rank's number on its host, as set by Paddle's launcher."""
    return int(environment.get("PADDLE_LOCAL_RANK", "0"))
