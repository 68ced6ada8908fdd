from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from harness.telemetry.host import (
    HostProbe,
    HostSample,
    _model_name,
    available_cores,
    cpu_name,
    memory_limit_bytes,
    quota_cores,
)


def readings(monkeypatch: pytest.MonkeyPatch, *percent: float) -> None:
    remaining = list(percent)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: remaining.pop(0))


def utils(*moments: float) -> list[float | None]:
    """What a probe reads at these moments of its clock."""
    probe = HostProbe(iter(moments).__next__)
    return [probe.sample().cpu_util_percent for _ in moments]


def test_this_machine_has_plausible_values() -> None:
    probe = HostProbe(iter([0.0, 1.0, 2.0]).__next__)
    first, second, third = probe.sample(), probe.sample(), probe.sample()
    assert first.cpu_util_percent is None
    for sample in (second, third):
        assert sample.cpu_util_percent is not None
        assert 0.0 <= sample.cpu_util_percent <= 100.0
        assert sample.memory_used_bytes is not None
        assert sample.memory_total_bytes is not None
        assert 0.0 < sample.memory_used_bytes <= sample.memory_total_bytes


def test_the_first_reading_only_starts_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, 0.0, 20.0, 75.0)
    assert utils(0.0, 1.0, 2.0) == [None, 20.0, 75.0]


def test_readings_too_close_repeat_the_last_value(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, 0.0, 40.0, 80.0)
    assert utils(0.0, 0.0625, 0.125, 0.1875, 0.25) == [None, None, 40.0, 40.0, 80.0]


def test_another_thread_starts_its_own_count() -> None:
    probe = HostProbe(iter([0.0, 1.0, 2.0, 3.0]).__next__)
    samples: list[HostSample] = [probe.sample(), probe.sample()]
    thread = threading.Thread(target=lambda: samples.extend([probe.sample(), probe.sample()]))
    thread.start()
    thread.join()
    assert [sample.cpu_util_percent is None for sample in samples] == [True, False, True, False]


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
    ("allowed", "quota", "cores"), [(8, None, 8), (8, 2.5, 2), (8, 16.0, 8), (8, 0.5, 1), (1, None, 1)]
)
def test_available_cores_are_those_allowed_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, allowed: int, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
    monkeypatch.setattr("harness.telemetry.host.quota_cores", lambda membership, root: quota)
    assert available_cores() == cores


def test_available_cores_of_this_machine() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_a_system_without_affinity_counts_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr("harness.telemetry.host.quota_cores", lambda membership, root: None)
    assert available_cores() == 6
