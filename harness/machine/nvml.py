"""The only access to NVML: lists and samples the GPUs, with None for everything that NVML can't report.

Another vendor's library that speaks NVML's calls can take the place of NVML's own. Its devices are GPUs here, too.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynvml

from harness.machine.gpm import DRAM_BW_UTIL, SM_UTIL, Gpm, GpmMetric, mean_of_engines
from harness.machine.query_failures import QueryFailures
from harness.machine.throttle_reasons import throttle_names

if TYPE_CHECKING:
    from typing_extensions import Self

_INIT_REASONS = {
    pynvml.NVML_ERROR_NO_PERMISSION: "no permission to use the driver",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver not loaded",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 not found",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver and libnvidia-ml.so.1 have different versions",
}

# After one of these errors an older function may still return the value; any other error is final.
_NOT_OFFERED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)

# nvml.h, nvmlMemory_v2: version 2, 40 bytes. Unlike in version 1, "used" excludes what the driver reserves.
_MEMORY_V2 = 0x02000028


class NvmlUnavailable(Exception):  # noqa: N818 - a state of the machine, for the caller to judge
    """NVML can't be used on this machine; the text is the reason, worded to follow "NVML: "."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Gpu:
    """One whole GPU. index is that of NVML, which ignores CUDA_VISIBLE_DEVICES. Unknown texts are empty."""

    index: int
    uuid: str
    name: str
    pci_bus_id: str


@dataclass(frozen=True, slots=True)
class GpuSample:
    """The state of one GPU at one moment; None is unknown.

    util_percent is the share of the driver's last sampling period (1/6 s to 1 s) in which at least one kernel ran
    (nvmlUtilization_t). It does not include the JPEG engines: those are in jpeg_util_percent, as their mean.
    throttle_reasons are NVML's names for what keeps the clocks down, joined by "|"; empty if nothing does.
    sm_util_percent and dram_util_percent are means since the previous sample, of the busy SMs and of the used memory
    bandwidth (GPM; Hopper and newer). energy_joules counts from when the driver was loaded. processes is the number of
    processes with a compute context, including those of this run.
    """

    util_percent: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    power_watts: float | None = None
    temperature_celsius: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: str | None = None
    jpeg_util_percent: float | None = None
    sm_util_percent: float | None = None
    dram_util_percent: float | None = None
    energy_joules: float | None = None
    processes: int | None = None


class Nvml:
    """NVML between open() and close(), or inside a `with`.

    library is the path of a library that speaks NVML's calls, by default NVML's own, libnvidia-ml.so.1. A process can
    have one of them open at a time.

    A query that fails returns None and causes one warning per device and query, with NVML's reason; queries that fail
    together for the same reason, such as a lost GPU, share a warning. Queries that older GPUs and drivers don't offer
    cause none. Without warn there are no warnings, which suits callers that only list the GPUs. clock is in monotonic
    seconds.
    """

    def __init__(
        self,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        library: str | None = None,
    ) -> None:
        self._library = library
        self._failures = QueryFailures(warn)
        self._clock = clock
        self._handles: dict[int, Any] = {}
        self._gpms: dict[int, Gpm] = {}
        self._is_open = False

    def open(self) -> Self:
        """Start NVML, unless it is open already. Raises NvmlUnavailable if it can't be used."""
        if not self._is_open:
            if self._library is None:
                _initialize()
            else:
                _initialize_other(self._library)
            self._is_open = True
        return self

    def close(self) -> None:
        """Shut NVML down. May be called twice."""
        if self._is_open:
            self._is_open = False
            for gpm in self._gpms.values():
                gpm.close()
            self._gpms.clear()
            self._handles.clear()
            self._ask("NVML", "end", ("nvmlShutdown",))
            if self._library is not None:
                _call_functions_of(None)
        self._failures.report()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def gpus(self) -> tuple[Gpu, ...]:
        """Returns every GPU of the machine, in NVML's order, whatever CUDA_VISIBLE_DEVICES is.

        A GPU that can't be reached is left out with a warning. Raises NvmlUnavailable if the GPUs can't be counted.
        """
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise NvmlUnavailable(f"the GPUs can't be counted: {error}") from error
        found = []
        for index in range(count):
            handle = self._handle(index, f"GPU {index}")
            if handle is None:
                continue
            name = _text(self._ask(f"GPU {index}", "name", ("nvmlDeviceGetName", handle)))
            uuid = _text(self._ask(f"GPU {index}", "UUID", ("nvmlDeviceGetUUID", handle)))
            pci = self._ask(f"GPU {index}", "PCI bus id", ("nvmlDeviceGetPciInfo", handle))
            found.append(Gpu(index, uuid, name, "" if pci is None else _text(pci.busId)))
        self._failures.report()
        return tuple(found)

    def driver_version(self) -> str | None:
        """Returns the driver's version, such as "550.54.15"; None if unknown."""
        return _text(self.query(None, "nvmlSystemGetDriverVersion")) or None

    def query(self, gpu: Gpu | None, *names: str) -> Any:
        """Returns the value of the first NVML function that is offered, for a GPU or the machine; None if unknown.

        Never raises, and warns of nothing.
        """
        handle = () if gpu is None else (self._handle(gpu.index, f"GPU {gpu.index}"),)
        return None if handle == (None,) else _first_offered([(name, *handle) for name in names])[0]

    def sample(self, gpu: Gpu) -> GpuSample:
        """Returns the state of a GPU at this moment. Never raises: what can't be read is None."""
        sample = self._sample(gpu)
        self._failures.report()
        return sample

    def energy_joules(self, gpu: Gpu) -> float | None:
        """Returns a GPU's energy since its driver was loaded; None if unknown. Never raises, and warns of nothing."""
        millijoules = self.query(gpu, "nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000.0

    def _sample(self, gpu: Gpu) -> GpuSample:
        where = f"GPU {gpu.index} ({gpu.name or 'unnamed'})"
        handle = self._handle(gpu.index, where)
        if handle is None:
            return GpuSample()

        # The first of all, as the counter rises during the other queries.
        energy_millijoules = self._ask_optional(where, "energy", ("nvmlDeviceGetTotalEnergyConsumption", handle))
        util = self._ask(where, "utilisation", ("nvmlDeviceGetUtilizationRates", handle))
        memory = self._ask(
            where, "memory", ("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2), ("nvmlDeviceGetMemoryInfo", handle)
        )
        power_milliwatts = self._ask(where, "power", ("nvmlDeviceGetPowerUsage", handle))
        sensor = (handle, pynvml.NVML_TEMPERATURE_GPU)
        temperature = self._ask(
            where, "temperature", ("nvmlDeviceGetTemperatureV", *sensor), ("nvmlDeviceGetTemperature", *sensor)
        )
        sm_clock = self._ask(where, "SM clock", ("nvmlDeviceGetClockInfo", handle, pynvml.NVML_CLOCK_SM))
        memory_clock = self._ask(where, "memory clock", ("nvmlDeviceGetClockInfo", handle, pynvml.NVML_CLOCK_MEM))
        reasons = self._ask(
            where,
            "throttle reasons",
            ("nvmlDeviceGetCurrentClocksEventReasons", handle),
            ("nvmlDeviceGetCurrentClocksThrottleReasons", handle),
        )
        metrics = self._gpm(gpu.index, where, handle).metrics()
        engines = ("nvmlDeviceGetJpgUtilization", handle)
        jpeg = self._ask_optional(where, "JPEG engine utilisation", engines, otherwise=[mean_of_engines(metrics)])
        # The function without a version only calls the first of these, and hides it if the driver doesn't have it.
        processes = self._ask_optional(
            where,
            "processes",
            ("nvmlDeviceGetComputeRunningProcesses_v3", handle),
            ("nvmlDeviceGetComputeRunningProcesses_v2", handle),
        )
        return GpuSample(
            util_percent=None if util is None else float(util.gpu),
            memory_used_bytes=None if memory is None else float(memory.used),
            memory_total_bytes=None if memory is None else float(memory.total),
            power_watts=None if power_milliwatts is None else power_milliwatts / 1000.0,
            temperature_celsius=None if temperature is None else float(temperature),
            sm_clock_mhz=None if sm_clock is None else float(sm_clock),
            memory_clock_mhz=None if memory_clock is None else float(memory_clock),
            throttle_reasons=None if reasons is None else throttle_names(reasons),
            jpeg_util_percent=None if jpeg is None or jpeg[0] is None else float(jpeg[0]),
            sm_util_percent=self._metric(where, "SM utilisation", metrics, SM_UTIL),
            dram_util_percent=self._metric(where, "memory bandwidth", metrics, DRAM_BW_UTIL),
            energy_joules=None if energy_millijoules is None else energy_millijoules / 1000.0,
            processes=None if processes is None else len(processes),
        )

    def _handle(self, index: int, where: str) -> Any:
        handle = self._handles.get(index)
        if handle is None:
            handle = self._ask(where, "device", ("nvmlDeviceGetHandleByIndex", index))
            if handle is not None:
                self._handles[index] = handle
        return handle

    def _gpm(self, index: int, where: str, handle: Any) -> Gpm:
        if index not in self._gpms:

            def ask(what: str, *call: Any) -> Any:
                return self._ask_optional(where, what, call)

            self._gpms[index] = Gpm(ask, handle, self._clock)
        return self._gpms[index]

    def _metric(self, where: str, what: str, metrics: Mapping[int, GpmMetric], number: int) -> float | None:
        metric = metrics.get(number)
        if metric is None:
            return None
        if metric.code == pynvml.NVML_SUCCESS:
            return metric.value if math.isfinite(metric.value) else None
        if metric.code not in _NOT_OFFERED:
            self._failures.add(where, what, f"GPM metric {number}: {pynvml.NVMLError(metric.code)}")
        return None

    def _ask(self, where: str, what: str, *calls: tuple[Any, ...]) -> Any:
        """Returns the value of the first call (function name, arguments...) that driver and binding offer, or None."""
        value, failure, _ = _first_offered(calls)
        if failure:
            self._failures.add(where, what, failure)
        return value

    def _ask_optional(self, where: str, what: str, *calls: tuple[Any, ...], otherwise: Any = None) -> Any:
        """Like _ask, but returns `otherwise` without a warning if GPU and driver offer none of the calls."""
        value, failure, is_offered = _first_offered(calls)
        if not is_offered:
            return otherwise
        if failure:
            self._failures.add(where, what, failure)
        return value


def _initialize() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlUnavailable(_INIT_REASONS.get(error.value, str(error))) from error


def _initialize_other(library: str) -> None:
    """Load and start a library that isn't NVML's own. Raises NvmlUnavailable.

    pynvml.nvmlInit would call nvmlInitWithFlags, which other vendors' libraries may lack.
    """
    try:
        # With a slash in its name the loader opens this file, and no other one of that name on its own path.
        loaded = ctypes.CDLL(str(Path(library).absolute()))
    except OSError as error:
        raise NvmlUnavailable(str(error)) from error
    if not hasattr(loaded, "nvmlInit_v2"):
        raise NvmlUnavailable(f"{library} has no function nvmlInit_v2")
    _call_functions_of(loaded)
    code = loaded.nvmlInit_v2()
    if code != pynvml.NVML_SUCCESS:
        reason = str(pynvml.NVMLError(code))  # the library may be asked for the text
        _call_functions_of(None)
        raise NvmlUnavailable(f"{library}: {reason}")


def _call_functions_of(loaded: ctypes.CDLL | None) -> None:
    """Make pynvml call the functions of a loaded library; with None, of the one that its nvmlInit loads.

    pynvml offers no way to choose the library. It keeps the one that it has loaded in nvmlLib, and the functions that
    it has looked up in a cache. Raises NvmlUnavailable if this version of pynvml does it in another way.
    """
    names = ("nvmlLib", "_nvmlGetFunctionPointer_cache", "_nvmlGetFunctionPointer")
    missing = [name for name in names if not hasattr(pynvml, name)]
    if not missing:
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml.nvmlLib = loaded
        if loaded is None or pynvml._nvmlGetFunctionPointer("nvmlInit_v2") is loaded.nvmlInit_v2:
            return
    raise NvmlUnavailable("this version of nvidia-ml-py can't use another library than libnvidia-ml.so.1")


def _first_offered(calls: Sequence[tuple[Any, ...]]) -> tuple[Any, str, bool]:
    """Returns the value of the first call that driver and binding offer, the failure, and whether the driver offers it.

    A function that the binding lacks counts as offered, because another version of the binding has it.
    """
    failure, is_offered = "", True
    for name, *arguments in calls:
        function = getattr(pynvml, name, None)
        if function is None:
            failure, is_offered = f"{name}: not in this version of nvidia-ml-py", True
            continue
        try:
            return function(*arguments), "", True
        except pynvml.NVMLError as error:
            failure, is_offered = f"{name}: {error}", error.value not in _NOT_OFFERED
            if is_offered:
                break
        except Exception as error:  # no error of the binding may end a run
            failure, is_offered = f"{name}: {type(error).__name__}: {error}", True
            break
    return None, failure, is_offered


def _text(value: str | bytes | None) -> str:
    """Returns NVML's text as str; older bindings return bytes. None becomes empty."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
