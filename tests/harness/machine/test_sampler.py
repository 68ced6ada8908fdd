from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

import pytest

from harness.errors import InvariantError
from harness.machine import sampler as sampler_module
from harness.machine.host import HostProbe, HostSample, cpu_name
from harness.machine.nvml import Gpu, GpuSample, Nvml
from harness.machine.sampler import DeviceSample, Sampler, WindowTelemetry
from tests.support.scripted_sampler import START, UNIX, FakeTime, ScriptedHost

GPU0 = Gpu(5, "GPU-0", "Model A", "00000000:17:00.0")
GPU1 = Gpu(6, "GPU-1", "Model B", "00000000:31:00.0")
ONE = [("gpu0", GPU0)]
TWO = [("gpu0", GPU0), ("gpu1", GPU1)]


class ScriptedNvml(Nvml):
    """Gives each GPU the utilisation that the script has for it and the moment; the script may raise."""

    def __init__(self, time: FakeTime, script: Callable[[Gpu, float], float | None]) -> None:
        super().__init__()
        self._time, self._script = time, script

    def sample(self, gpu: Gpu) -> GpuSample:
        return GpuSample(util_percent=self._script(gpu, self._time.now - START), power_watts=250.5)


def run(
    seconds: float,
    devices: Sequence[tuple[str, Gpu]] = (),
    script: Callable[[Gpu, float], float | None] | None = None,
    host: Callable[[], float | None] = lambda: 50.0,
    receive: Callable[[FakeTime, DeviceSample], None] = lambda time, row: None,
    warn: Callable[[str], None] | None = None,
    interval_seconds: float = 1.0,
    history_seconds: float = 600.0,
) -> tuple[Sampler, list[DeviceSample], list[str]]:
    """Sample from START for the given seconds of a clock that stands still but for waits and what `receive` adds."""
    time = FakeTime(START + seconds)
    rows: list[DeviceSample] = []
    warnings: list[str] = []

    def on_sample(row: DeviceSample) -> None:
        rows.append(row)
        receive(time, row)

    sampler = Sampler(
        devices,
        ScriptedNvml(time, script) if script else None,
        ScriptedHost(host),
        on_sample,
        warn=warn or warnings.append,
        host_name="Test CPU",
        interval_seconds=interval_seconds,
        history_seconds=history_seconds,
        clock=time.clock,
        unix_clock=time.unix,
        wait=time.wait,
    )
    sampler.start()
    assert time.ended.wait(60)
    sampler.stop()
    return sampler, rows, warnings


def times(rows: list[DeviceSample], device: str = "cpu") -> list[float]:
    return [row.time_unix_seconds - UNIX - START for row in rows if row.device == device]


def test_rows_of_a_round() -> None:
    _, rows, warnings = run(0.5, TWO, lambda gpu, at: 60.0 + gpu.index)
    unix = UNIX + START
    assert rows == [
        DeviceSample(unix, "gpu0", "Model A", "GPU-0", util_percent=65.0, power_watts=250.5),
        DeviceSample(unix, "gpu1", "Model B", "GPU-1", util_percent=66.0, power_watts=250.5),
        DeviceSample(unix, "cpu", "Test CPU", None, 50.0, memory_used_bytes=3e9, memory_total_bytes=8e9),
    ]
    assert warnings == []


def test_every_field_of_a_sample_reaches_its_row() -> None:
    class FullNvml(Nvml):
        def sample(self, gpu: Gpu) -> GpuSample:
            return GpuSample(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, "SwPowerCap", 8.0, 9.0, 10.0, 11.0, 12)

    class FullHost(HostProbe):
        def sample(self) -> HostSample:
            return HostSample(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)

    rows: list[DeviceSample] = []
    time = FakeTime(START)
    sampler = Sampler(
        ONE, FullNvml(), FullHost(), rows.append, warn=pytest.fail, clock=time.clock, unix_clock=lambda: 9.0,
        wait=time.wait,
    )  # fmt: skip
    with sampler:
        assert time.ended.wait(60)
    assert rows == [
        DeviceSample(
            9.0,
            "gpu0",
            "Model A",
            "GPU-0",
            util_percent=1.0,
            memory_used_bytes=2.0,
            memory_total_bytes=3.0,
            power_watts=4.0,
            temperature_celsius=5.0,
            sm_clock_mhz=6.0,
            memory_clock_mhz=7.0,
            throttle_reasons="SwPowerCap",
            jpeg_util_percent=8.0,
            sm_util_percent=9.0,
            dram_util_percent=10.0,
            energy_joules=11.0,
            processes=12,
        ),
        DeviceSample(
            9.0,
            "cpu",
            cpu_name(),
            None,
            util_percent=1.0,
            memory_used_bytes=2.0,
            memory_total_bytes=3.0,
            foreign_util_percent=4.0,
            steal_percent=5.0,
            swap_bytes=6.0,
            storage_read_bytes=7.0,
            quota_throttled_seconds=8.0,
        ),
    ]


def test_gpus_without_nvml_have_empty_rows() -> None:
    _, rows, warnings = run(0.0, ONE)
    assert dataclasses.astuple(rows[0])[1:4] == ("gpu0", "Model A", "GPU-0")
    assert set(dataclasses.astuple(rows[0])[4:]) == {None}
    assert warnings == []


def test_samples_do_not_drift_however_slow_the_receiver() -> None:
    def receive(time: FakeTime, row: DeviceSample) -> None:
        time.now += 0.375

    _, rows, _ = run(999.5, ONE, lambda gpu, at: 10.0, receive=receive)
    assert times(rows, "gpu0") == [float(tick) for tick in range(1000)]
    assert times(rows) == [float(tick) for tick in range(1000)]


def test_missed_moments_are_skipped_and_not_caught_up() -> None:
    def receive(time: FakeTime, row: DeviceSample) -> None:
        time.now += {2.0: 2.5, 6.0: 2.0}.get(time.now - START, 0.0)

    _, rows, _ = run(10.0, receive=receive)
    assert times(rows) == [0.0, 1.0, 2.0, 5.0, 6.0, 8.0, 9.0, 10.0]


def test_every_reading_has_its_own_time() -> None:
    """A round over many GPUs takes long: here the first takes 0.25 s, the second 0.125 s, the host 0.0625 s."""
    time = FakeTime(START + 1.0)
    rows: list[DeviceSample] = []
    values = iter([10.0, 20.0])

    def slow(gpu: Gpu, at: float) -> float:
        time.now += 0.25 if gpu is GPU0 else 0.125
        return at

    def slow_host() -> float:
        time.now += 0.0625
        return next(values)

    sampler = Sampler(
        TWO, ScriptedNvml(time, slow), ScriptedHost(slow_host), rows.append, warn=pytest.fail, clock=time.clock,
        unix_clock=time.unix, wait=time.wait,
    )  # fmt: skip
    with sampler:
        assert time.ended.wait(60)
    assert times(rows, "gpu0") == [0.0, 1.0]
    assert times(rows, "gpu1") == [0.25, 1.25]
    assert times(rows) == [0.375, 1.375]
    assert [row.util_percent for row in rows if row.device == "gpu1"] == [0.25, 1.25]
    # The window ends between the second readings of the two GPUs: of the second GPU only the first one lies in it.
    window = sampler.window(START, START + 1.1)
    assert window == WindowTelemetry(0.625, 0.25, 1.0, 10.0)


class CountingNvml(ScriptedNvml):
    """Counts how often energy alone is read of a GPU; GPU 5's counter shows what is counted, and GPU 6 has none."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__(time, ramp)
        self.counted = 0

    def energy_joules(self, gpu: Gpu) -> float | None:
        self.counted += gpu is GPU0
        return float(self.counted) if gpu is GPU0 else None


def test_energy_is_read_when_it_is_wanted_and_at_no_other_time() -> None:
    """Every half second here, once at the moment at which a round is due, and at the end."""
    time = FakeTime(START + 2.0)
    rows: list[DeviceSample] = []

    def wait(seconds: float) -> bool:
        sampler.read_energy()
        return time.wait(min(seconds, 0.5))

    nvml = CountingNvml(time)
    sampler = Sampler(
        TWO, nvml, HostProbe(), rows.append, warn=pytest.fail, clock=time.clock, unix_clock=time.unix, wait=wait
    )
    with sampler:
        assert time.ended.wait(60)
    alone = [row for row in rows if row.energy_joules is not None]
    assert [row.time_unix_seconds - UNIX - START for row in alone] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert [row.energy_joules for row in alone] == [1.0, 2.0, 3.0, 4.0, 5.0]
    known = {field: value for field, value in dataclasses.asdict(alone[0]).items() if value is not None}
    assert known.keys() == {"time_unix_seconds", "device", "name", "uuid", "energy_joules"}
    assert (known["device"], known["uuid"]) == ("gpu0", "GPU-0")
    # The rounds are what they are without it.
    others = [row for row in rows if row.energy_joules is None]
    assert times(others, "gpu0") == times(others, "gpu1") == times(others) == [0.0, 1.0, 2.0]
    assert sampler.window(START, START + 2.0).gpu_util_min_percent == 11.5


def test_wanting_energy_wakes_the_sampler() -> None:
    first, read, rows = threading.Event(), threading.Event(), list[DeviceSample]()

    def on_sample(row: DeviceSample) -> None:
        rows.append(row)
        (first if row.device == "cpu" else read).set()

    nvml = CountingNvml(FakeTime(START))
    with Sampler(ONE, nvml, HostProbe(), on_sample, warn=pytest.fail, interval_seconds=3600.0) as sampler:
        assert first.wait(60)
        read.clear()
        sampler.read_energy()
        assert read.wait(60)
    assert [row.device for row in rows] == ["gpu0", "cpu", "gpu0"]
    assert rows[-1].energy_joules == 1.0


def test_energy_that_is_wanted_at_the_end_is_still_read() -> None:
    first, rows = threading.Event(), list[DeviceSample]()

    def on_sample(row: DeviceSample) -> None:
        rows.append(row)
        if row.device == "cpu":
            sampler.read_energy()
            sampler.stop()
            first.set()

    sampler = Sampler(ONE, CountingNvml(FakeTime(START)), HostProbe(), on_sample, warn=pytest.fail)
    with sampler:
        assert first.wait(60)
    assert [row.energy_joules for row in rows] == [None, None, 1.0]


def test_without_gpus_wanting_energy_does_nothing() -> None:
    time, rows = FakeTime(START + 1.0), list[DeviceSample]()

    def wait(seconds: float) -> bool:
        sampler.read_energy()
        return time.wait(seconds)

    sampler = Sampler((), None, HostProbe(), rows.append, warn=pytest.fail, clock=time.clock, wait=wait)
    with sampler:
        assert time.ended.wait(60)
    assert [row.device for row in rows] == ["cpu"] * 2


def test_the_interval_is_kept() -> None:
    _, rows, _ = run(1.0, interval_seconds=0.25)
    assert times(rows) == [0.0, 0.25, 0.5, 0.75, 1.0]


# GPU 5 shows 10 at 0 s, 11 at 1 s, ...; GPU 6 shows 30 more. The host shows 0, 1, 2, ...
def ramp(gpu: Gpu, at: float) -> float:
    return 10.0 + at + 30.0 * (gpu.index - 5)


def counting() -> Callable[[], float]:
    values = iter(range(10_000))
    return lambda: float(next(values))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (2.5, 5.5, (29.0, 14.0, 44.0, 4.0)),
        (2.0, 5.0, (29.0, 14.0, 44.0, 4.0)),
        (2.0, 3.0, (28.0, 13.0, 43.0, 3.0)),
        (-5.0, 0.0, (25.0, 10.0, 40.0, 0.0)),
        (-5.0, 100.0, (30.0, 15.0, 45.0, 5.0)),
        (3.25, 3.5, (28.0, 13.0, 43.0, 3.0)),
        (3.0, 3.999, (28.0, 13.0, 43.0, 3.0)),
        (10.0, 12.0, (35.0, 20.0, 50.0, 10.0)),
        (11.5, 12.0, (35.0, 20.0, 50.0, 10.0)),
        (10.0, 12.001, (None, None, None, None)),
        (50.0, 60.0, (None, None, None, None)),
        (-5.0, -1.0, (None, None, None, None)),
    ],
)
def test_window(start: float, end: float, expected: tuple[float | None, ...]) -> None:
    sampler, _, _ = run(10.0, TWO, ramp, counting())
    window = sampler.window(START + start, START + end)
    assert window == WindowTelemetry(*expected)


def test_a_window_averages_each_gpu_over_the_samples_it_has() -> None:
    def script(gpu: Gpu, at: float) -> float | None:
        return None if gpu is GPU1 and at == 2.0 else ramp(gpu, at)

    sampler, _, _ = run(4.0, TWO, script)
    # GPU 0: 11, 12, 13; GPU 1: 41, unknown, 43.
    assert sampler.window(START, START + 3.0) == WindowTelemetry(27.0, 12.0, 42.0, 50.0)


class RampingNvml(Nvml):
    """GPU 5's SMs show 10 at 0 s, 20 at 1 s, ..., its JPEG engines 1 more; GPU 6 shows 30 more, but no SMs at 0 s."""

    def __init__(self, time: FakeTime, silent_jpeg: Gpu | None) -> None:
        super().__init__()
        self._time, self._silent_jpeg = time, silent_jpeg

    def sample(self, gpu: Gpu) -> GpuSample:
        sm = 10.0 + 10.0 * (self._time.now - START) + 30.0 * (gpu.index - 5)
        return GpuSample(
            util_percent=50.0,
            jpeg_util_percent=None if gpu is self._silent_jpeg else sm + 1.0,
            sm_util_percent=None if gpu is GPU1 and self._time.now == START else sm,
        )


class RampingHost(HostProbe):
    """Foreign processes show unknown, 1, 2, ..."""

    def __init__(self) -> None:
        super().__init__()
        self._values = iter([None, 1.0, 2.0, 3.0])

    def sample(self) -> HostSample:
        return HostSample(cpu_util_percent=90.0, foreign_util_percent=next(self._values))


@pytest.mark.parametrize(
    ("silent_jpeg", "end", "jpeg", "sm", "foreign"),
    [
        # JPEG 11 and 41; SMs 10 and unknown.
        (None, 0.0, 26.0, None, None),
        # JPEG 21 and 51 on average; SMs 20, and 50 and 60.
        (None, 2.0, 36.0, (20.0 + 55.0) / 2, 1.5),
        (GPU0, 2.0, None, (20.0 + 55.0) / 2, 1.5),
        (None, 3.0, 41.0, (25.0 + 60.0) / 2, 2.0),
    ],
)
def test_a_window_has_the_means_of_jpeg_engines_sms_and_foreign_processes(
    silent_jpeg: Gpu | None, end: float, jpeg: float | None, sm: float | None, foreign: float | None
) -> None:
    time = FakeTime(START + 3.0)
    sampler = Sampler(
        TWO, RampingNvml(time, silent_jpeg), RampingHost(), lambda row: None, warn=pytest.fail, clock=time.clock,
        wait=time.wait,
    )  # fmt: skip
    with sampler:
        assert time.ended.wait(60)
    assert sampler.window(START - 1.0, START + end) == WindowTelemetry(
        gpu_util_percent=50.0,
        gpu_util_min_percent=50.0,
        gpu_util_max_percent=50.0,
        cpu_util_percent=90.0,
        jpeg_util_percent=jpeg,
        sm_util_percent=sm,
        foreign_cpu_percent=foreign,
    )


def test_the_gpu_figures_are_unknown_as_soon_as_one_gpu_is() -> None:
    sampler, _, _ = run(4.0, TWO, lambda gpu, at: None if gpu is GPU1 else 80.0)
    assert sampler.window(START, START + 3.0) == WindowTelemetry(cpu_util_percent=50.0)


def test_an_idle_gpu_is_zero_and_not_unknown() -> None:
    sampler, _, _ = run(1.0, ONE, lambda gpu, at: 0.0, lambda: 0.0)
    assert sampler.window(START, START + 1.0) == WindowTelemetry(0.0, 0.0, 0.0, 0.0)


def test_without_gpus_only_the_host_is_known() -> None:
    sampler, _, _ = run(2.0)
    assert sampler.window(START, START + 2.0) == WindowTelemetry(None, None, None, 50.0)


def test_a_host_reading_without_utilisation_is_not_counted_as_zero() -> None:
    values = iter([None, 60.0, 80.0])
    sampler, _, _ = run(2.0, host=lambda: next(values))
    assert sampler.window(START - 1.0, START).cpu_util_percent is None
    assert sampler.window(START - 1.0, START + 2.0).cpu_util_percent == 70.0


def test_nothing_is_known_before_the_first_sample() -> None:
    sampler = Sampler(ONE, None, HostProbe(), lambda row: None, warn=pytest.fail)
    assert sampler.window(0.0, 1.0) == WindowTelemetry()


def test_the_history_is_bounded_and_a_window_that_lost_samples_is_unknown() -> None:
    sampler, _, _ = run(100.0, ONE, ramp, history_seconds=10.0)
    # Samples from 90 s on are kept: GPU 0 shows 100 to 110.
    assert sampler.window(START + 89.0, START + 100.0).gpu_util_percent == 105.0
    assert sampler.window(START + 88.5, START + 100.0) == WindowTelemetry()
    assert sampler.window(START + 20.0, START + 30.0) == WindowTelemetry()
    assert sampler.window(START + 98.0, START + 100.0).gpu_util_percent == 109.5


def test_the_round_is_known_to_a_receiver_of_its_rows() -> None:
    seen: list[float | None] = []
    time = FakeTime(START + 2.0)
    sampler = Sampler(
        ONE, ScriptedNvml(time, ramp), HostProbe(), warn=pytest.fail, clock=time.clock, wait=time.wait,
        on_sample=lambda row: seen.append(sampler.window(time.now - 1.0, time.now).gpu_util_percent),
    )  # fmt: skip
    with sampler:
        assert time.ended.wait(60)
    assert seen == [10.0, 10.0, 11.0, 11.0, 12.0, 12.0]


def test_a_probe_that_always_fails_is_one_warning_and_empty_rows() -> None:
    def script(gpu: Gpu, at: float) -> float:
        if gpu is GPU0:
            raise OSError("bus error")
        return 70.0

    sampler, rows, warnings = run(999.0, TWO, script, history_seconds=2000.0)
    assert warnings == ["telemetry: sampling gpu0 failed: OSError: bus error"]
    assert len(rows) == 3000
    assert {row.util_percent for row in rows if row.device == "gpu0"} == {None}
    assert {row.util_percent for row in rows if row.device == "gpu1"} == {70.0}
    assert sampler.window(START, START + 999.0) == WindowTelemetry(cpu_util_percent=50.0)


def test_a_failing_host_probe_is_one_warning_and_empty_rows() -> None:
    def broken() -> float:
        raise RuntimeError("no /proc/stat")

    _, rows, warnings = run(9.0, ONE, ramp, broken)
    assert warnings == ["telemetry: sampling the host failed: RuntimeError: no /proc/stat"]
    assert len(rows) == 20
    assert {(row.util_percent, row.memory_used_bytes) for row in rows if row.device == "cpu"} == {(None, None)}


def test_a_failing_receiver_is_one_warning_and_sampling_goes_on() -> None:
    def receive(time: FakeTime, row: DeviceSample) -> None:
        if row.device == "gpu0" and time.now >= START + 2.0:
            raise OSError("disk full")

    sampler, rows, warnings = run(9.0, TWO, ramp, receive=receive)
    assert warnings == ["telemetry: recording gpu0 failed: OSError: disk full"]
    assert len(rows) == 30
    assert sampler.window(START + 8.0, START + 9.0).gpu_util_percent == 34.0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("odd"), GeneratorExit()])
def test_what_no_guard_catches_ends_the_sampling_and_nothing_else(error: BaseException) -> None:
    """From then on all is unknown: the last sample is not held on to."""
    values = iter([10.0, 20.0, 30.0])

    def host() -> float:
        value = next(values)
        if value == 30.0:
            raise error
        return value

    time, rows, warnings = FakeTime(START + 10.0), list[DeviceSample](), list[str]()
    sampler = Sampler((), None, ScriptedHost(host), rows.append, warn=warnings.append, clock=time.clock, wait=time.wait)
    sampler.start()
    sampler._thread.join(60)
    assert not sampler._thread.is_alive()
    assert len(rows) == 2
    assert warnings == [f"telemetry ended: {type(error).__name__}: {error}. Later samples are missing."]
    assert sampler.window(START, START + 1.0).cpu_util_percent == 20.0
    assert sampler.window(START + 3.5, START + 4.0) == WindowTelemetry()
    sampler.stop()


@pytest.mark.parametrize("error", [MemoryError(), SystemExit(3)])
def test_a_receiver_or_a_warning_that_fails_in_any_way_reaches_nobody(error: BaseException) -> None:
    """pytest makes an error of what leaves a thread."""

    def fail(_: object) -> None:
        raise error

    time = FakeTime(START + 3.0)
    sampler = Sampler((), None, ScriptedHost(lambda: 50.0), fail, warn=fail, clock=time.clock, wait=time.wait)
    sampler.start()
    sampler._thread.join(60)
    assert not sampler._thread.is_alive()
    assert sampler.window(START - 1.0, START).cpu_util_percent == 50.0


def test_a_memory_error_is_one_warning_and_sampling_goes_on() -> None:
    def exhausted() -> float:
        raise MemoryError

    _, rows, warnings = run(9.0, ONE, ramp, exhausted)
    assert warnings == ["telemetry: sampling the host failed: MemoryError: "]
    assert len(rows) == 20


def test_different_failures_are_different_warnings() -> None:
    def script(gpu: Gpu, at: float) -> float:
        raise ValueError("even" if at % 2 == 0 else "odd")

    _, _, warnings = run(9.0, ONE, script)
    assert warnings == [
        "telemetry: sampling gpu0 failed: ValueError: even",
        "telemetry: sampling gpu0 failed: ValueError: odd",
    ]


def test_failures_that_differ_each_time_do_not_flood() -> None:
    def script(gpu: Gpu, at: float) -> float:
        raise ValueError(f"at {at}")

    _, rows, warnings = run(199.0, ONE, script)
    assert len(rows) == 400
    assert len(warnings) == 50
    assert warnings[-1].endswith("ValueError: at 49.0 (Further telemetry warnings are suppressed.)")


def test_a_failing_clock_of_the_rows_is_a_warning() -> None:
    def broken() -> float:
        raise OSError("no clock")

    time, warnings = FakeTime(START + 5.0), list[str]()
    sampler = Sampler(
        (), None, HostProbe(), lambda row: None, warn=warnings.append, clock=time.clock, unix_clock=broken,
        wait=time.wait,
    )  # fmt: skip
    with sampler:
        assert time.ended.wait(60)
    assert warnings == ["telemetry: a round of samples failed: OSError: no clock"]
    assert time.now == START + 5.0


def test_a_failing_warning_does_not_end_the_sampling() -> None:
    def script(gpu: Gpu, at: float) -> float:
        raise OSError("bus error")

    def warn(message: str) -> None:
        raise OSError("record not writable")

    _, rows, _ = run(9.0, ONE, script, warn=warn)
    assert len(rows) == 20


def test_stop_wakes_the_thread_and_may_be_called_again() -> None:
    first = threading.Event()
    sampler = Sampler(
        (),
        None,
        HostProbe(),
        lambda row: first.set(),
        warn=pytest.fail,
        interval_seconds=3600.0,
        history_seconds=7200.0,
    )
    before = threading.active_count()
    sampler.start()
    assert first.wait(60)
    sampler.stop()
    assert threading.active_count() == before
    sampler.stop()


def test_stop_before_start_does_nothing() -> None:
    Sampler((), None, HostProbe(), lambda row: None, warn=pytest.fail).stop()


def test_the_receiver_may_stop_the_sampling() -> None:
    rows: list[DeviceSample] = []
    stopped = threading.Event()

    def on_sample(row: DeviceSample) -> None:
        rows.append(row)
        sampler.stop()
        stopped.set()

    sampler = Sampler((), None, HostProbe(), on_sample, warn=pytest.fail, interval_seconds=0.001)
    sampler.start()
    assert stopped.wait(60)
    sampler.stop()
    assert len(rows) == 1


def test_a_sample_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "_JOIN_SECONDS", 0.01)
    entered, release, warnings = threading.Event(), threading.Event(), list[str]()

    def on_sample(row: DeviceSample) -> None:
        entered.set()
        release.wait(60)

    sampler = Sampler((), None, HostProbe(), on_sample, warn=warnings.append)
    sampler.start()
    assert entered.wait(60)
    sampler.stop()
    assert len(warnings) == 1
    assert "abandoned" in warnings[0]
    release.set()


def test_the_history_holds_two_intervals_at_least() -> None:
    sampler, _, _ = run(100.0, ONE, ramp, interval_seconds=20.0, history_seconds=10.0)
    assert sampler.window(START + 59.0, START + 100.0).gpu_util_percent == 90.0


@pytest.mark.parametrize("interval_seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_an_interval_that_makes_no_sense_is_refused(interval_seconds: float) -> None:
    with pytest.raises(InvariantError, match=f"interval is {interval_seconds} s"):
        Sampler((), None, HostProbe(), lambda row: None, warn=pytest.fail, interval_seconds=interval_seconds)
