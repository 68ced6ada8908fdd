"""The description of a machine: a made-up one under a folder, whose every figure is known, and odd ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from harness import ROOT
from harness.machine.device import Devices
from harness.machine.environment import (
    Mount,
    _is_rotational,
    cpu_governor,
    cpu_max_mhz,
    cpu_turbo,
    describe,
    git_state,
    hypervisor,
    mount_of,
    rotational,
    sockets,
    thread_environment,
)
from harness.machine.nvml import Gpu
from tests.support.small_disk import SmallDisk

CPUS = Devices("cpu", 2, "CPU")
CPU = "sys/devices/system/cpu"
OF_PSUTIL = (
    "cores_online", "cores_physical", "memory_bytes", "swap_bytes", "data_filesystem", "data_mount_source",
    "results_filesystem", "results_mount_source",
)  # fmt: skip


def tree(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def processors(*cpus: tuple[str, str, str, str]) -> dict[str, str]:
    """Files of processors: the numbers that share their core, their socket, governor and highest clock in kHz."""
    return {
        f"{CPU}/cpu{number}/{name}": f"{value}\n"
        for number, values in enumerate(cpus)
        for name, value in zip(
            (
                "topology/core_cpus_list",
                "topology/physical_package_id",
                "cpufreq/scaling_governor",
                "cpufreq/cpuinfo_max_freq",
            ),
            values,
            strict=True,
        )
    }


def device_of(folder: Path) -> str:
    number = folder.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two sockets of two cores of two threads, in a container of 6 cores and 8 GiB, with a disk that turns.

    What psutil tells is this machine's.
    """
    fast, slow = ("performance", "3700000"), ("performance", "3500000")
    root = tree(
        tmp_path / "machine",
        {
            **processors(
                ("0,4", "0", *fast),
                ("1,5", "0", *slow),
                ("2,6", "1", *slow),
                ("3,7", "1", *slow),
                ("0,4", "0", *fast),
                ("1,5", "0", *slow),
                ("2,6", "1", *slow),
                ("3,7", "1", *slow),
            ),
            f"{CPU}/intel_pstate/no_turbo": "1\n",
            f"{CPU}/cpufreq/boost": "1\n",
            "sys/devices/system/node/online": "0-1\n",
            "sys/class/dmi/id/sys_vendor": "QEMU\n",
            "sys/class/dmi/id/product_name": "Standard PC (Q35 + ICH9, 2009)\n",
            "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme hypervisor sse4_2\nbogomips\t: 4000\n",
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/cpu.max": "600000 100000\n",
            "sys/fs/cgroup/memory.max": "8589934592\n",
            "sys/devices/pci/sda/queue/rotational": "1\n",
            "sys/devices/pci/sda/sda2/partition": "2\n",
        },
    )
    (root / "sys/dev/block").mkdir(parents=True)
    (root / f"sys/dev/block/{device_of(tmp_path)}").symlink_to("../../devices/pci/sda/sda2")
    return root


def test_a_machine_is_described_in_full(machine: Path, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "3",
        "FLAGS_cudnn_exhaustive_search": "True",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MY_FLAGS_": "secret",
    }
    gpus = (Gpu(0, "GPU-1", "NVIDIA A30", "0000:01:00.0"),)
    found = describe(
        Devices("gpu", 1, "NVIDIA A30", gpus), tmp_path / "data", tmp_path, environment=environment, root=machine
    )
    ours = {"python", "platform", "kernel", "cpu", "cores", "packages", "git", "nvidia_driver", *OF_PSUTIL}
    assert {name: value for name, value in found.items() if name not in ours} == {
        "sockets": 2,
        "numa_nodes": 2,
        "cpu_governor": "performance",
        "cpu_max_mhz": 3700.0,
        "cpu_turbo": False,
        "hypervisor": True,
        "machine_vendor": "QEMU",
        "machine_product": "Standard PC (Q35 + ICH9, 2009)",
        "cpu_quota_cores": 6.0,
        "memory_limit_bytes": 8 * 2**30,
        "gpus": [{"index": 0, "uuid": "GPU-1", "name": "NVIDIA A30", "pci_bus_id": "0000:01:00.0"}],
        "data_disk_rotational": True,
        "results_disk_rotational": True,
        "thread_environment": {"FLAGS_cudnn_exhaustive_search": "True", "OMP_NUM_THREADS": "3"},
    }
    assert ours < set(found)
    assert "secret" not in json.dumps(found)


def test_the_ranks_own_variables_are_recorded_not_the_launching_process_s(tmp_path: Path) -> None:
    found = describe(
        CPUS,
        None,
        tmp_path,
        environment={"OMP_NUM_THREADS": "64", "FLAGS_x": "1"},
        ranks_environment={"OMP_NUM_THREADS": "3", "NVIDIA_TF32_OVERRIDE": "0", "TOKEN": "secret"},
        root=tmp_path / "nothing",
    )
    assert found["thread_environment"] == {"NVIDIA_TF32_OVERRIDE": "0", "OMP_NUM_THREADS": "3"}


def test_what_a_machine_does_not_say_is_none(tmp_path: Path) -> None:
    found = describe(CPUS, tmp_path, tmp_path, environment={}, root=tmp_path / "nothing")
    known = {
        "python",
        "platform",
        "kernel",
        "cpu",
        "cores",
        "packages",
        "git",
        "gpus",
        "thread_environment",
        *OF_PSUTIL,
    }
    assert {name for name, value in found.items() if value is not None} - {"git"} == known - {"git"}
    assert found["gpus"] == []
    assert found["thread_environment"] == {}
    assert found["nvidia_driver"] is None


def test_garbage_is_unknown_too(machine: Path, tmp_path: Path) -> None:
    for file in machine.rglob("*"):
        if file.is_file():
            file.write_bytes(b"\xff\x00garbage - \n - \n:::\n")
    found = describe(CPUS, tmp_path, tmp_path, environment={}, root=machine)
    read = {"sockets", "numa_nodes", "cpu_max_mhz", "cpu_turbo", "hypervisor", "cpu_quota_cores", "memory_limit_bytes"}
    read |= {"results_disk_rotational"}
    assert {name: found[name] for name in read} == dict.fromkeys(read)
    assert found["machine_vendor"].startswith("\\udcff")
    json.dumps(found).encode("ascii")
    json.dumps(found, ensure_ascii=False).encode("utf-8")


def test_no_data_and_a_place_that_is_not_there(machine: Path, tmp_path: Path) -> None:
    found = describe(CPUS, None, tmp_path / "not" / "made", environment={}, root=machine)
    assert (found["data_filesystem"], found["data_mount_source"], found["data_disk_rotational"]) == (None, None, None)
    above = describe(CPUS, None, tmp_path, environment={}, root=machine)
    assert found["results_filesystem"] == above["results_filesystem"]
    assert found["results_disk_rotational"] is True


def test_this_machine(tmp_path: Path) -> None:
    found = describe(CPUS, tmp_path, tmp_path)
    assert found["packages"]["numpy"] == version("numpy")
    assert found["packages"]["psutil"] == version("psutil")
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel another way")
def test_memory_and_processors_are_those_of_the_kernel(tmp_path: Path) -> None:
    found = describe(CPUS, tmp_path, tmp_path)
    assert found["memory_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["cores_online"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert 1 <= found["cores_physical"] <= found["cores_online"]
    swaps = Path("/proc/swaps").read_text().splitlines()[1:]
    # /proc/swaps leaves out a page of each for its header, or not.
    assert found["swap_bytes"] == pytest.approx(sum(int(line.split()[2]) for line in swaps) * 1024, abs=65536)


def test_sockets_that_the_firmware_does_not_number(tmp_path: Path) -> None:
    assert sockets(tree(tmp_path, {f"{CPU}/cpu0/topology/physical_package_id": "-1\n"})) is None


def test_governors_that_differ_are_joined(tmp_path: Path) -> None:
    cpus = [("0", "0", governor, "2000000") for governor in ("powersave", "performance", "powersave")]
    assert cpu_governor(tree(tmp_path, processors(*cpus))) == "performance|powersave"
    assert cpu_max_mhz(tmp_path) == 2000.0


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({"intel_pstate/no_turbo": "0\n"}, True),
        ({"intel_pstate/no_turbo": "1\n"}, False),
        ({"cpufreq/boost": "1\n"}, True),
        ({"cpufreq/boost": "0\n"}, False),
        ({}, None),
    ],
)
def test_turbo(tmp_path: Path, files: dict[str, str], turbo: bool | None) -> None:
    assert cpu_turbo(tree(tmp_path, {f"{CPU}/{name}": value for name, value in files.items()})) is turbo


@pytest.mark.parametrize(
    ("cpuinfo", "virtual"),
    [
        ("flags\t\t: fpu vme\n\nflags\t\t: fpu vme\n", False),
        ("flags\t\t: fpu hypervisor\n", True),
        ("vmx flags\t: hypervisor\nflags\t\t: fpu\n", False),
        ("Features\t: fp asimd\n", None),
    ],
)
def test_hypervisor(tmp_path: Path, cpuinfo: str, virtual: bool | None) -> None:
    assert hypervisor(tree(tmp_path, {"proc/cpuinfo": cpuinfo})) is virtual


def mounts(monkeypatch: pytest.MonkeyPatch, *mounted: tuple[str, Path | str, str]) -> None:
    """What psutil tells: source, mount point and type, in the order in which they were mounted."""
    found = [SimpleNamespace(device=source, mountpoint=str(point), fstype=kind) for source, point, kind in mounted]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: found)


def test_the_longest_mount_point_above_a_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts(
        monkeypatch,
        ("/dev/sda3", tmp_path / "data/deep", "xfs"),
        ("/dev/sda2", "/", "ext4"),
        ("/dev/sda4", tmp_path / "data", "btrfs"),
        ("/dev/sda5", tmp_path / "dat", "vfat"),
    )
    assert mount_of(tmp_path / "data" / "x") == Mount("btrfs", "/dev/sda4")
    assert mount_of(tmp_path / "data") == Mount("btrfs", "/dev/sda4")
    assert mount_of(tmp_path / "data" / "deep" / "x") == Mount("xfs", "/dev/sda3")
    assert mount_of(tmp_path / "data2") == Mount("ext4", "/dev/sda2")
    (tmp_path / "link").symlink_to(tmp_path / "data" / "deep")
    assert mount_of(tmp_path / "link") == Mount("xfs", "/dev/sda3")


def test_of_two_mounts_on_one_point_the_later_hides_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts(monkeypatch, ("/dev/sda2", "/", "ext4"), ("overlay", "/", "overlay"))
    assert mount_of(tmp_path) == Mount("overlay", "overlay")


def test_a_password_in_a_mounts_source_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts(monkeypatch, ("https://me:secret@host/bucket@1", "/", "fuse"))
    assert mount_of(tmp_path) == Mount("fuse", "https://host/bucket@1")


def test_bytes_of_another_encoding_in_a_mount_s_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts(monkeypatch, ("//server/caf\udce9", "/", "cifs"))
    found = describe(CPUS, tmp_path, tmp_path, environment={})
    assert found["data_mount_source"] == "//server/caf\\udce9"


def test_a_real_mount_whose_name_has_to_be_decoded(small_disk: SmallDisk, tmp_path: Path) -> None:
    disk = small_disk(64 * 1024)
    assert mount_of(disk / "below") == Mount("tmpfs", "tmpfs")
    assert rotational(disk) is None
    odd = tmp_path / "my data\\\tx"
    odd.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(odd)], check=True)
    try:
        assert mount_of(odd / "below") == Mount("tmpfs", "tmpfs")
    finally:
        subprocess.run(["umount", str(odd)], check=True)


def test_a_whole_disk_a_partition_and_what_is_no_disk(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "sys/devices/nvme0n1/queue/rotational": "0\n",
            "sys/devices/nvme0n1/nvme0n1p1/partition": "1\n",
            "sys/devices/sda/queue/rotational": "1\n",
        },
    )
    (root / "sys/dev/block").mkdir(parents=True)
    for device, target in (("259:0", "nvme0n1"), ("259:1", "nvme0n1/nvme0n1p1"), ("8:0", "sda")):
        (root / "sys/dev/block" / device).symlink_to(f"../../devices/{target}")
    found = [_is_rotational(device, root) for device in ("259:0", "259:1", "8:0", "0:45")]
    assert found == [False, False, True, None]


def test_only_named_variables_get_into_a_record() -> None:
    environment = {
        "OMP_NUM_THREADS": "4",
        "OMP_PROC_BIND": "close",
        "KMP_AFFINITY": "compact",
        "MKL_NUM_THREADS": "2",
        "NVIDIA_TF32_OVERRIDE": "0",
        "FLAGS_use_mkldnn": "1",
        "OMP_SCHEDULE": "static",
        "flags_x": "1",
        "HF_TOKEN": "secret",
    }
    assert thread_environment(environment) == {
        "FLAGS_use_mkldnn": "1",
        "KMP_AFFINITY": "compact",
        "MKL_NUM_THREADS": "2",
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": "4",
        "OMP_PROC_BIND": "close",
    }


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git")

# The hash of the one commit that checkout makes: its file, author, dates and message are fixed.
COMMIT = "c973ad0c9487dec1cdcc9d53c49b03ee37cfdd77"


IDENTITY = {"NAME": "A", "EMAIL": "a@example.org", "DATE": "2026-01-01T00:00:00+0000"}


def git(folder: Path, *arguments: str) -> None:
    fixed = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in IDENTITY.items()}
    own = {"PATH": os.environ["PATH"], "HOME": os.fspath(folder), "GIT_CONFIG_NOSYSTEM": "1", **fixed}
    subprocess.run(["git", "-C", folder, *arguments], env=own, capture_output=True, check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "run_bench.py").write_text("print()\n")
    git(folder, "init", "--object-format=sha1")
    git(folder, "add", "run_bench.py")
    git(folder, "commit", "--message=One")
    return folder


@needs_git
def test_a_checkout_and_changes_to_what_git_tracks(checkout: Path) -> None:
    assert git_state(checkout) == {"commit": COMMIT, "dirty": False}
    (checkout / "notes.txt").write_text("mine\n")
    assert git_state(checkout) == {"commit": COMMIT, "dirty": False}
    (checkout / "run_bench.py").write_text("print(1)\n")
    assert git_state(checkout) == {"commit": COMMIT, "dirty": True}


@needs_git
def test_another_repository_in_the_environment_changes_nothing(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", os.fspath(tmp_path / "elsewhere"))
    assert git_state(checkout) == {"commit": COMMIT, "dirty": False}


@needs_git
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_another_users_checkout_is_read(checkout: Path) -> None:
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 65534, 65534)
    assert git_state(checkout) == {"commit": COMMIT, "dirty": False}


@needs_git
def test_a_copy_inside_somebody_elses_repository_has_no_commit(checkout: Path) -> None:
    copy = checkout / "copy"
    copy.mkdir()
    (copy / "run_bench.py").write_text("print()\n")
    assert git_state(copy) is None


@needs_git
def test_without_a_repository_or_a_commit_there_is_none(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "missing") is None
    git(tmp_path, "init")
    assert git_state(tmp_path) is None


@needs_git
def test_without_git_there_is_none(checkout: Path, tmp_path: Path) -> None:
    assert git_state(checkout, {"PATH": os.fspath(tmp_path)}) is None


@needs_git
def test_a_git_that_hangs_is_given_up(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.environment.GIT_SECONDS", 0.2)
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    assert git_state(checkout, {"PATH": f"{tmp_path}:{os.environ['PATH']}"}) is None


def test_the_gpus_of_a_driver(nvml_standin: dict[str, str]) -> None:
    code = (
        "import json, pathlib\n"
        "from harness.machine.device import Devices\n"
        "from harness.machine.environment import describe\n"
        "from harness.machine.nvml import Nvml\n"
        "with Nvml() as nvml:\n"
        "    gpus = nvml.gpus()\n"
        "here = pathlib.Path()\n"
        "print(json.dumps(describe(Devices('gpu', len(gpus), 'X', gpus), here, here)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **nvml_standin},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert [Gpu(**gpu).index for gpu in found["gpus"]] == [0, 1, 2, 3]
    assert found["nvidia_driver"] == "550.54.15"
