"""The thread that samples every device at a fixed interval: a row per device, and the means of any span of time."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from harness.errors import InvariantError
from harness.machine.host import HOST_LABEL, HostProbe, HostSample, cpu_name
from harness.machine.nvml import Gpu, GpuSample, Nvml
from models.notes import Note

if TYPE_CHECKING:
    from typing_extensions import Self

S = TypeVar("S")
T = TypeVar("T")

_HOLD_INTERVALS = 2
_MAX_WARNINGS = 50
# An NVML call on a lost GPU can hang in the driver forever; the end of a run waits at most this long.
_JOIN_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """One sample of one device, a row of devices.csv; None is unknown or not applicable.

    device is the label in this run ("gpu0"), or "cpu" for the host, whose util_percent is its cpu_util_percent.
    time_unix_seconds is when the reading of this device began. The columns have the same meaning as in GpuSample and
    HostSample.
    """

    time_unix_seconds: float
    device: str
    name: str
    uuid: str | None
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
    foreign_util_percent: float | None = None
    steal_percent: float | None = None
    swap_bytes: float | None = None
    storage_read_bytes: float | None = None
    quota_throttled_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WindowTelemetry:
    """The telemetry of a span of time; None is unknown.

    The figures for GPUs are mean, minimum and maximum of each GPU's own mean. They are unknown if any of the GPUs is,
    so that they always cover all GPUs of the run. foreign_cpu_percent is the host's foreign_util_percent.
    """

    gpu_util_percent: float | None = None
    gpu_util_min_percent: float | None = None
    gpu_util_max_percent: float | None = None
    cpu_util_percent: float | None = None
    jpeg_util_percent: float | None = None
    sm_util_percent: float | None = None
    foreign_cpu_percent: float | None = None


class _History(Generic[S]):
    """One device's latest samples with their times in seconds, which increase."""

    def __init__(self, seconds: float, hold_seconds: float) -> None:
        self._seconds, self._hold_seconds = seconds, hold_seconds
        # Lists, because bisect on a deque takes linear time.
        self._times: list[float] = []
        self._samples: list[S] = []
        self._forgotten_until = -math.inf

    def add(self, at_seconds: float, sample: S) -> None:
        """Remember a sample, and forget those that are too old."""
        self._times.append(at_seconds)
        self._samples.append(sample)
        outdated = bisect_left(self._times, at_seconds - self._seconds)
        if outdated:
            self._forgotten_until = self._times[outdated - 1]
            del self._times[:outdated], self._samples[:outdated]

    def within(self, start: float, end: float) -> list[S]:
        """Returns the samples in (start, end], or the latest one before if it is recent; empty if unknown."""
        first, last = bisect_right(self._times, start), bisect_right(self._times, end)
        if first < last:
            return self._samples[first:last] if start >= self._forgotten_until else []
        if last > 0 and end - self._times[last - 1] <= self._hold_seconds:
            return [self._samples[last - 1]]
        return []


class Sampler:
    """Samples GPUs and host from start() to stop(), or inside a `with`, in its own daemon thread.

    devices: (label, GPU) for each GPU of this run; without nvml their rows are empty.
    host_name: the name in the host's rows, by default that of its processor.
    on_sample: called in the thread, once per device and round, for the GPUs first and the host last.
    warn: called once for each different failure; a failure never ends the sampling.
    wait: sleeps for the given seconds, and returns True if the sampling is to end; `clock` is monotonic seconds.
    history_seconds: how far back window() reaches; at least two intervals.
    Raises InvariantError for an interval that is not above 0.
    """

    def __init__(
        self,
        devices: Sequence[tuple[str, Gpu]],
        nvml: Nvml | None,
        host: HostProbe,
        on_sample: Callable[[DeviceSample], None],
        *,
        warn: Callable[[str], None],
        host_name: str | None = None,
        interval_seconds: float = 1.0,
        history_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        if not 0.0 < interval_seconds < math.inf:
            raise InvariantError(f"the telemetry interval is {interval_seconds} s; it must be above 0 s")
        self._devices = tuple(devices)
        self._nvml = nvml
        self._host = host
        self._host_name = host_name or cpu_name()
        self._on_sample = on_sample
        self._warn = warn
        self._warned: set[str] = set()
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._unix_clock = unix_clock
        self._ended, self._woken, self._energy_wanted = threading.Event(), threading.Event(), threading.Event()
        self._wait = wait or self._pause
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        hold_seconds = _HOLD_INTERVALS * interval_seconds
        kept_seconds = max(history_seconds, hold_seconds)
        # The histories are guarded by the lock.
        self._lock = threading.Lock()
        self._of_gpus = [_History[GpuSample](kept_seconds, hold_seconds) for _ in devices]
        self._of_host = _History[HostSample](kept_seconds, hold_seconds)

    def start(self) -> Self:
        """Start sampling. Raises RuntimeError if the sampler was started before."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop sampling and wait for the thread. May be called twice, before start(), or from on_sample."""
        self._ended.set()
        self._woken.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)
            if self._thread.is_alive():
                self._warn_once(f"telemetry: the last sample has hung for {_JOIN_SECONDS:.0f} s and is abandoned.")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def window(self, start: float, end: float) -> WindowTelemetry:
        """Returns the telemetry of the samples in (start, end], in seconds of the clock.

        Of a device without any, the latest sample before counts if it is at most two intervals old at `end`. A window
        whose samples are no longer all in the history is unknown.
        """
        with self._lock:
            gpus = [history.within(start, end) for history in self._of_gpus]
            host = self._of_host.within(start, end)
        util = _means_by_gpu([[gpu.util_percent for gpu in samples] for samples in gpus])
        return WindowTelemetry(
            gpu_util_percent=_mean(util),
            gpu_util_min_percent=min(util, default=None),
            gpu_util_max_percent=max(util, default=None),
            cpu_util_percent=_mean([one.cpu_util_percent for one in host]),
            jpeg_util_percent=_mean(_means_by_gpu([[gpu.jpeg_util_percent for gpu in samples] for samples in gpus])),
            sm_util_percent=_mean(_means_by_gpu([[gpu.sm_util_percent for gpu in samples] for samples in gpus])),
            foreign_cpu_percent=_mean([one.foreign_util_percent for one in host]),
        )

    def read_energy(self) -> None:
        """Have every GPU's energy counter read at once, in the sampler's thread; return without waiting for that.

        A GPU that has a counter gets a row with nothing but its energy. Without GPUs nothing happens.
        """
        if self._nvml is not None and self._devices:
            self._energy_wanted.set()
            self._woken.set()

    def _run(self) -> None:
        try:
            self._sample_until_ended()
        except BaseException as error:  # any error in this thread ends the sampling only
            with contextlib.suppress(BaseException):
                self._warn_once(f"telemetry ended: {type(error).__name__}: {error}. Later samples are missing.")

    def _sample_until_ended(self) -> None:
        start = self._clock()
        tick = 0
        while self._wait_until(start + tick * self._interval_seconds):
            self._guarded("a round of samples", self._sample_all)
            elapsed_intervals = (self._clock() - start) / self._interval_seconds
            tick = max(tick + 1, math.ceil(elapsed_intervals))

    def _wait_until(self, deadline: float) -> bool:
        """Wait until the deadline, and read energy when that is wanted. Returns False if the sampling is to end."""
        ended = False
        while True:
            if self._energy_wanted.is_set():
                self._energy_wanted.clear()
                self._guarded("reading energy", self._read_energy)
            if ended or self._ended.is_set():
                return False
            remaining_seconds = deadline - self._clock()
            if remaining_seconds <= 0.0:
                return True
            ended = self._wait(remaining_seconds)

    def _pause(self, seconds: float) -> bool:
        """Sleep until somebody wants something. Returns whether that is the end of the sampling."""
        self._woken.wait(seconds)
        self._woken.clear()
        return self._ended.is_set()

    def _sample_all(self) -> None:
        rows: list[DeviceSample] = []
        for (label, gpu), history in zip(self._devices, self._of_gpus, strict=True):
            at_seconds, unix_seconds = self._clock(), self._unix_clock()
            sample = self._guarded(f"sampling {label}", partial(self._sample_gpu, gpu)) or GpuSample()
            with self._lock:
                history.add(at_seconds, sample)
            rows.append(DeviceSample(unix_seconds, label, gpu.name, gpu.uuid, **asdict(sample)))
        at_seconds, unix_seconds = self._clock(), self._unix_clock()
        host = self._guarded("sampling the host", self._host.sample) or HostSample()
        with self._lock:
            self._of_host.add(at_seconds, host)
        columns = asdict(host)
        columns["util_percent"] = columns.pop("cpu_util_percent")
        rows.append(DeviceSample(unix_seconds, HOST_LABEL, self._host_name, None, **columns))
        # After the last reading, so that a slow receiver delays none.
        for row in rows:
            self._emit(row)

    def _sample_gpu(self, gpu: Gpu) -> GpuSample:
        return GpuSample() if self._nvml is None else self._nvml.sample(gpu)

    def _read_energy(self) -> None:
        assert self._nvml is not None
        rows: list[DeviceSample] = []
        for label, gpu in self._devices:
            unix_seconds = self._unix_clock()
            joules = self._nvml.energy_joules(gpu)
            if joules is not None:
                rows.append(DeviceSample(unix_seconds, label, gpu.name, gpu.uuid, energy_joules=joules))
        for row in rows:
            self._emit(row)

    def _emit(self, row: DeviceSample) -> None:
        self._guarded(f"recording {row.device}", partial(self._on_sample, row))

    def _guarded(self, what: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:  # no error of telemetry or of its receiver may end the run
            self._warn_once(
                Note(
                    f"telemetry: {what} failed: {type(error).__name__}: {error}",
                    "The run goes on; its cells for that are empty.",
                )
            )
            return None

    def _warn_once(self, message: str) -> None:
        if message in self._warned or len(self._warned) >= _MAX_WARNINGS:
            return
        self._warned.add(message)
        if len(self._warned) == _MAX_WARNINGS:
            message += " (Further telemetry warnings are suppressed.)"
        with contextlib.suppress(Exception):
            self._warn(message)


def _means_by_gpu(values: Sequence[Sequence[float | None]]) -> list[float]:
    """Returns the mean of each GPU's known values, in order; empty if nothing is known of a GPU."""
    means = [_mean(of_gpu) for of_gpu in values]
    known = [mean for mean in means if mean is not None]
    return known if len(known) == len(means) else []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
