from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from harness.machine.host import (
    HostProbe,
    HostSample,
    _model_name,
    available_cores,
    cpu_name,
    memory_limit_bytes,
    quota_cores,
)
from harness.machine.processes import ProcessUsage, RunProcesses

PAGE = os.sysconf("SC_PAGE_SIZE")


class CpuTimes(NamedTuple):
    """psutil.cpu_times() of a Linux host, in seconds since it started."""

    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    irq: float = 0.0
    softirq: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


class MacTimes(NamedTuple):
    """psutil.cpu_times() of a macOS host."""

    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0


class ScriptedProcesses(RunProcesses):
    """Processes that have used so many CPU seconds, and read so many bytes, at each reading."""

    def __init__(self, *usages: tuple[float | None, float | None]) -> None:
        self._usages = iter(usages)

    def usage(self) -> ProcessUsage:
        return ProcessUsage(*next(self._usages))


def readings(monkeypatch: pytest.MonkeyPatch, *times: CpuTimes | MacTimes) -> None:
    monkeypatch.setattr(psutil, "cpu_times", iter(times).__next__)


def sample(
    moments: Sequence[float],
    processes: RunProcesses | None = None,
    proc: Path = Path("/missing"),
    cgroups: Path = Path("/missing"),
    before_each: Callable[[float], object] = lambda moment: None,
) -> list[HostSample]:
    """What a probe reads at these moments of its clock."""
    now = 0.0
    probe = HostProbe(lambda: now, processes, proc=proc, cgroups=cgroups)
    samples = []
    for now in moments:
        before_each(now)
        samples.append(probe.sample())
    return samples


def test_this_machine_has_plausible_values() -> None:
    processes = RunProcesses(os.getpid())
    probe = HostProbe(iter([0.0, 1.0, 2.0]).__next__, processes)
    first = probe.sample()
    assert first.cpu_util_percent is None
    assert first.foreign_util_percent is None
    # A tick of the processor's clock at least, so that there is something to share out.
    before = sum(psutil.cpu_times())
    while sum(psutil.cpu_times()) < before + 0.05:
        pass
    second = probe.sample()
    for percent in (second.cpu_util_percent, second.foreign_util_percent):
        assert percent is not None
        assert 0.0 <= percent <= 100.0
    assert second.memory_used_bytes is not None
    assert second.memory_total_bytes is not None
    assert 0.0 < second.memory_used_bytes <= second.memory_total_bytes


def test_the_first_reading_only_starts_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(
        monkeypatch,
        CpuTimes(user=50.0, idle=50.0, steal=1.0),
        CpuTimes(user=50.2, nice=0.1, system=0.1, idle=51.2, iowait=0.2, irq=0.05, softirq=0.05, steal=1.1),
        CpuTimes(user=51.7, nice=0.1, system=0.1, idle=51.7, iowait=0.2, irq=0.05, softirq=0.05, steal=1.1),
    )
    samples = sample([0.0, 1.0, 2.0])
    assert [one.cpu_util_percent for one in samples] == [None, pytest.approx(30.0), pytest.approx(75.0)]
    assert [one.steal_percent for one in samples] == [None, pytest.approx(5.0), 0.0]


def test_foreign_processes_have_what_is_busy_and_neither_ours_nor_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    # Four cores over a second: 4 s, of which 2.5 s busy and 0.4 s stolen; ours used 1.7 s.
    readings(
        monkeypatch,
        CpuTimes(user=10.0, guest=3.0),
        CpuTimes(user=11.5, nice=0.3, system=0.5, irq=0.1, softirq=0.1, idle=0.6, iowait=0.5, steal=0.4, guest=4.5),
    )
    _, one = sample([0.0, 1.0], ScriptedProcesses((100.0, None), (101.7, None)))
    assert one.cpu_util_percent == pytest.approx(100 * 2.9 / 4)
    assert one.foreign_util_percent == pytest.approx(100 * 0.8 / 4)
    assert one.steal_percent == pytest.approx(10.0)


def test_foreign_use_is_never_below_zero_and_unknown_without_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, *(CpuTimes(user=second, idle=second) for second in range(6)))
    usages = [(0.0, None), (1.2, None), (None, None), (3.0, None), (3.5, None), (4.5, None)]
    foreign = [one.foreign_util_percent for one in sample([float(t) for t in range(6)], ScriptedProcesses(*usages))]
    assert foreign == [None, 0.0, None, None, 25.0, 0.0]
    readings(monkeypatch, CpuTimes(), CpuTimes(user=1.0))
    assert [one.foreign_util_percent for one in sample([0.0, 1.0])] == [None, None]


def test_a_system_without_steal_or_iowait_does_not_know_what_was_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, MacTimes(), MacTimes(user=1.0, system=1.0, idle=2.0))
    _, one = sample([0.0, 1.0], ScriptedProcesses((0.0, None), (1.0, None)))
    assert (one.cpu_util_percent, one.foreign_util_percent, one.steal_percent) == (50.0, 25.0, None)


def test_a_count_that_falls_back_is_taken_for_standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(
        monkeypatch, CpuTimes(user=1.0, iowait=5.0), CpuTimes(user=2.0, idle=1.0, iowait=4.9), CpuTimes(2.0, idle=1.0)
    )
    samples = sample([0.0, 1.0, 2.0])
    # Nothing at all passed between the last two.
    assert [one.cpu_util_percent for one in samples] == [None, 50.0, None]


def write_vmstat(proc: Path, swapped_in: int, swapped_out: int) -> None:
    (proc / "vmstat").write_text(f"nr_free_pages 7\npswpin {swapped_in}\npswpout {swapped_out}\npgfault 9\n")


def test_readings_too_close_repeat_percentages_and_leave_counts_to_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is counted adds up over the rows: 6 pages and 600 bytes, from the first reading to the last one taken."""
    readings(monkeypatch, CpuTimes(), CpuTimes(user=0.4, idle=0.6), CpuTimes(user=1.2, idle=0.8))
    pages = iter(range(10, 20))
    samples = sample(
        [0.0, 0.0625, 0.125, 0.1875, 0.25],
        ScriptedProcesses((0.0, 1000.0), (0.1, 1500.0), (0.1, 1600.0)),
        proc=tmp_path,
        before_each=lambda moment: write_vmstat(tmp_path, next(pages), 2 * int(moment * 16)),
    )
    assert [one.cpu_util_percent for one in samples] == pytest.approx([None, None, 40.0, 40.0, 80.0])
    assert [one.foreign_util_percent for one in samples] == pytest.approx([None, None, 30.0, 30.0, 80.0])
    assert [one.storage_read_bytes for one in samples] == [None, None, 500.0, None, 100.0]
    # 10 + 0 pages, then 12 + 4, then 14 + 8.
    assert [one.swap_bytes for one in samples] == [None, None, 6.0 * PAGE, None, 6.0 * PAGE]
    assert None not in [one.memory_used_bytes for one in samples]


def test_counts_continue_after_a_reading_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readings(monkeypatch, *[CpuTimes()] * 4)
    vmstats = {
        0.0: "pswpin 1\npswpout 2\n",
        1.0: "pswpin 3\n",
        2.0: "pswpin 4\npswpout 2\n",
        3.0: "pswpin 4\npswpout 2\n",
    }
    usages = [(None, 10.0), (None, None), (None, 70.0), (None, 70.0)]
    samples = sample(
        list(vmstats),
        ScriptedProcesses(*usages),
        proc=tmp_path,
        before_each=lambda moment: (tmp_path / "vmstat").write_text(vmstats[moment]),
    )
    assert [one.swap_bytes for one in samples] == [None, None, 3.0 * PAGE, 0.0]
    assert [one.storage_read_bytes for one in samples] == [None, None, 60.0, 0.0]


def test_without_proc_and_control_groups_the_counts_are_unknown() -> None:
    for one in sample([0.0, 1.0, 2.0]):
        assert (one.swap_bytes, one.storage_read_bytes, one.quota_throttled_seconds) == (None, None, None)


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R)  Gold 6148 CPU @ 2.40GHz\n")
    assert _model_name(cpuinfo) == "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: \nBogoMIPS\t: 50.00\n")
    assert _model_name(cpuinfo) == ""
    assert _model_name(tmp_path / "missing") == ""
    assert cpu_name()


def groups(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "400000 100000"}, 4.0),
        ("0::/job/step\n", {"job/step/cpu.max": "200000 100000", "job/cpu.max": "400000 100000"}, 2.0),
        ("0::/job/step\n", {"job/step/cpu.max": "800000 100000", "job/cpu.max": "400000 100000"}, 4.0),
        ("0::/docker/of/the/host\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/job\n", {"cpu.max": "garbage"}, None),
        (
            "3:cpuset:/\n2:cpu,cpuacct:/pod\n0::/\n",
            {"cpu,cpuacct/pod/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("1:cpuacct,cpu:/x\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("1:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "50000", "cpuset/cpu.cfs_period_us": "100000"}, None),
        ("no colons\n", {}, None),
    ],
)
def test_the_tightest_quota_of_the_control_groups_counts(
    tmp_path: Path, membership: str, files: dict[str, str], cores: float | None
) -> None:
    (tmp_path / "membership").write_text(membership)
    assert quota_cores(tmp_path / "membership", groups(tmp_path / "root", files)) == cores


def test_there_is_no_quota_without_control_groups(tmp_path: Path) -> None:
    assert quota_cores(tmp_path / "missing", tmp_path) is None
    assert memory_limit_bytes(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1073741824\n"}, 1_073_741_824),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("0::/job/step\n", {"job/step/memory.max": "max\n", "job/memory.max": "8192\n"}, 8192),
        ("0::/job/step\n", {"job/step/memory.max": "4096\n", "job/memory.max": "8192\n"}, 4096),
        ("0::/job/step\n", {"job/step/memory.max": "8192\n", "job/memory.max": "4096\n"}, 4096),
        ("0::/docker/of/the/host\n", {"memory.max": "12288\n"}, 12288),
        ("0::/job\n", {"memory.max": "garbage"}, None),
        ("4:memory:/pod\n0::/\n", {"memory/pod/memory.limit_in_bytes": "536870912\n"}, 536_870_912),
        (
            "4:memory:/pod\n",
            {"memory/pod/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.limit_in_bytes": "65536\n"},
            65536,
        ),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),  # pages of 4 KiB
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854710272\n"}, None),  # pages of 64 KiB
        ("4:cpu:/\n", {"cpu/memory.limit_in_bytes": "65536\n"}, None),
    ],
)
def test_the_lowest_memory_limit_of_the_control_groups_counts(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int | None
) -> None:
    (tmp_path / "membership").write_text(membership)
    assert memory_limit_bytes(tmp_path / "membership", groups(tmp_path / "root", files)) == limit


@pytest.mark.parametrize(
    ("files", "stat", "texts", "seconds"),
    [
        (
            {"cpu.max": "150000 100000"},
            "cpu.stat",
            ["usage_usec 5\nthrottled_usec 1500000\n", "usage_usec 6\nthrottled_usec 1750000\n"],
            0.25,
        ),
        # The job's own group has no quota, and its share of the outer one is the tightest.
        (
            {"job/cpu.max": "max 100000", "cpu.max": "50000 100000", "job/cpu.stat": "throttled_usec 77\n"},
            "cpu.stat",
            ["throttled_usec 0\n", "throttled_usec 40000\n"],
            0.04,
        ),
        ({"cpu.max": "150000 100000"}, "cpu.stat", ["usage_usec 5\n", "usage_usec 6\n"], None),
        ({"cpu.max": "max 100000"}, "cpu.stat", ["throttled_usec 1\n", "throttled_usec 2\n"], None),
        ({"cpu.max": "50000 100000"}, "cpu.stat", ["garbage\n", "throttled_usec 2\n"], None),
    ],
)
def test_the_time_that_a_quota_cost(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: dict[str, str],
    stat: str,
    texts: list[str],
    seconds: float | None,
) -> None:
    assert throttled(monkeypatch, tmp_path, "0::/job\n", files, stat, texts) == seconds


def test_the_time_that_a_quota_cost_in_the_first_version_of_control_groups(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"cpu/pod/cpu.cfs_quota_us": "250000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}
    texts = [f"nr_periods 1\nnr_throttled 1\nthrottled_time {nanoseconds}\n" for nanoseconds in (10**9, 3 * 10**9)]
    membership = "2:cpu,cpuacct:/pod\n0::/\n"
    assert throttled(monkeypatch, tmp_path, membership, files, "cpu/pod/cpu.stat", texts) == 2.0


def throttled(
    monkeypatch: pytest.MonkeyPatch, folder: Path, membership: str, files: dict[str, str], stat: str, texts: list[str]
) -> float | None:
    """quota_throttled_seconds of a second reading, when the file stat holds one text and then the other."""
    readings(monkeypatch, CpuTimes(), CpuTimes())
    root = groups(folder / "root", files)
    groups(folder, {"proc/self/cgroup": membership})
    remaining = iter(texts)
    first, second = sample(
        [0.0, 1.0],
        proc=folder / "proc",
        cgroups=root,
        before_each=lambda moment: (root / stat).write_text(next(remaining)),
    )
    assert first.quota_throttled_seconds is None
    return second.quota_throttled_seconds


@pytest.mark.parametrize(
    ("allowed", "quota", "cores"), [(8, None, 8), (8, 2.5, 2), (8, 16.0, 8), (8, 0.5, 1), (1, None, 1)]
)
def test_available_cores_are_those_allowed_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, allowed: int, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
    monkeypatch.setattr("harness.machine.host.quota_cores", lambda membership, root: quota)
    assert available_cores() == cores


def test_available_cores_of_this_machine() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_a_system_without_affinity_counts_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr("harness.machine.host.quota_cores", lambda membership, root: None)
    assert available_cores() == 6
