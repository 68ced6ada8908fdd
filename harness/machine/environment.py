"""Describes what a run's figures depend on besides its configuration: machine, limits, disks and software.

Unknown values are None.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from harness import ROOT
from harness.machine.device import Devices, installed_version
from harness.machine.host import available_cores, cpu_name, memory_limit_bytes, quota_cores
from harness.machine.nvml import Nvml
from harness.machine.placement.core_lists import read_cores
from harness.machine.plugins import folder_of_packages

PACKAGES = (
    "nvidia-dali-cuda120",
    "nvidia-ml-py",
    "numpy",
    "pandas",
    "rich",
    "psutil",
)

# Only these variables may be recorded: records are published, and the values of other variables may be secret.
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"),
    *("KMP_BLOCKTIME", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "DALI_AFFINITY_MASK"),
    *("NVIDIA_TF32_OVERRIDE", "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_MODULE_LOADING"),
    *("NCCL_ALGO", "NCCL_PROTO", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE"),
)
THREAD_PREFIX = "FLAGS_"  # Paddle's

GIT_SECONDS = 10.0  # for a checkout on a slow network disk; on a local one git takes milliseconds


def describe(
    devices: Devices,
    data_root: Path | None,
    results: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    ranks_environment: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> dict[str, Any]:
    """Returns everything about machine and software that figures depend on, as values for JSON. Never raises.

    data_root is the folder that images are read from, results the folder that is written to. ranks_environment is the
    environment that the ranks start in, by default this process's own. root is where /proc and /sys are read, for what
    psutil doesn't provide. Of the returned values, cores are those that this process can keep
    busy, cores_online the machine's logical cores, cores_physical its physical ones; swap_bytes are installed, not in
    use; the limits are those of the container.
    """
    groups = (root / "proc/self/cgroup", root / "sys/fs/cgroup")
    readers: dict[str, Callable[[], Any]] = {
        "python": platform.python_version,
        "platform": platform.platform,
        "kernel": platform.release,
        "cpu": cpu_name,
        "cores": available_cores,
        "cores_online": psutil.cpu_count,
        "cores_physical": partial(psutil.cpu_count, logical=False),
        "sockets": partial(sockets, root),
        "numa_nodes": partial(_count_list, root / "sys/devices/system/node/online"),
        "cpu_governor": partial(cpu_governor, root),
        "cpu_max_mhz": partial(cpu_max_mhz, root),
        "cpu_turbo": partial(cpu_turbo, root),
        "hypervisor": partial(hypervisor, root),
        "machine_vendor": partial(_text, root / "sys/class/dmi/id/sys_vendor"),
        "machine_product": partial(_text, root / "sys/class/dmi/id/product_name"),
        "memory_bytes": lambda: psutil.virtual_memory().total,
        "swap_bytes": _swap_bytes,
        "cpu_quota_cores": partial(quota_cores, *groups),
        "memory_limit_bytes": partial(memory_limit_bytes, *groups),
        "gpus": lambda: [asdict(gpu) for gpu in devices.gpus],
        "nvidia_driver": partial(_driver_version, devices),
        "packages": package_versions,
        "git": partial(git_state, ROOT, environment),
        **_disk_readers("data", data_root, root),
        **_disk_readers("results", results, root),
        "thread_environment": partial(
            thread_environment, environment if ranks_environment is None else ranks_environment
        ),
    }
    return {name: _printable(_known(read)) for name, read in readers.items()}


def _known(read: Callable[[], Any]) -> Any:
    """Returns what read returns, or None if it fails: no peculiarity of a machine may keep a run from starting."""
    try:
        return read()
    except Exception:
        return None


def _printable(value: Any) -> Any:
    """Returns the value, with bytes in its texts that aren't UTF-8 (names in another encoding) escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value


def _text(file: Path) -> str | None:
    """Returns a small file's content without surrounding whitespace; None if it is empty or can't be read."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").strip() or None
    except OSError:
        return None


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text is not None and re.fullmatch(r"[+-]?[0-9]+", text) else None


def _cpu_files(root: Path, name: str) -> list[Path]:
    """Returns the file of that name for every processor that has one."""
    return sorted((root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/{name}"))


def _count_list(file: Path) -> int | None:
    """Returns how many numbers a list in the kernel's format contains, such as 5 for "0-3,8"."""
    return len(read_cores(file)) or None


def sockets(root: Path = Path("/")) -> int | None:
    """Returns the number of processor packages (/sys, topology/physical_package_id); None if unknown."""
    packages = {_number(file) for file in _cpu_files(root, "topology/physical_package_id")}
    return len(packages - {None, -1}) or None  # -1: unknown


def cpu_governor(root: Path = Path("/")) -> str | None:
    """Returns the frequency governor, such as "performance"; several are joined by |."""
    governors = {_text(file) for file in _cpu_files(root, "cpufreq/scaling_governor")}
    return "|".join(sorted(filter(None, governors))) or None


def cpu_max_mhz(root: Path = Path("/")) -> float | None:
    """Returns the maximum clock of the fastest core in MHz; the kernel's file is in kHz.

    psutil.cpu_freq would also read every core's current clock, and returns the mean of the maximum clocks.
    """
    clocks = [clock for file in _cpu_files(root, "cpufreq/cpuinfo_max_freq") if (clock := _number(file)) is not None]
    return max(clocks) / 1000 if clocks else None


def cpu_turbo(root: Path = Path("/")) -> bool | None:
    """Returns whether clocks above the nominal one are allowed (/sys, intel_pstate/no_turbo or cpufreq/boost)."""
    cpu = root / "sys/devices/system/cpu"
    forbidden, allowed = _number(cpu / "intel_pstate/no_turbo"), _number(cpu / "cpufreq/boost")
    if forbidden is not None:
        return forbidden == 0
    return None if allowed is None else allowed != 0


def hypervisor(root: Path = Path("/")) -> bool | None:
    """Returns whether the processor reports a virtual machine; None on processors without flags (ARM)."""
    lines = (_text(root / "proc/cpuinfo") or "").splitlines()
    flags = [line.partition(":")[2].split() for line in lines if line.startswith("flags")]
    return "hypervisor" in flags[0] if flags else None


def _swap_bytes() -> int:
    with warnings.catch_warnings():
        # psutil warns if the system doesn't count swapped pages, which aren't needed here.
        warnings.simplefilter("ignore", RuntimeWarning)
        return psutil.swap_memory().total


def _driver_version(devices: Devices) -> str | None:
    if not devices.gpus:
        return None
    with Nvml() as nvml:
        return nvml.driver_version()


def package_versions() -> dict[str, str]:
    """Versions of the packages above, and of Paddle's: "paddlepaddle", "paddlepaddle-gpu", and those of plugins."""
    beside = folder_of_packages()
    infos = [] if beside is None else beside.glob("paddle*.dist-info")
    paddles = sorted(info.name.partition("-")[0].replace("_", "-") for info in infos)
    return {name: found for name in (*paddles, *PACKAGES) if (found := installed_version(name)) is not None}


def thread_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that set threads and arithmetic: THREAD_VARIABLES and Paddle's flags, no others."""
    return {
        name: environment[name]
        for name in sorted(environment)
        if name in THREAD_VARIABLES or name.startswith(THREAD_PREFIX)
    }


def git_state(folder: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """Returns the commit checked out in folder, and dirty: whether a file that git tracks differs from it.

    Returns None without git, or if folder's run_bench.py isn't tracked: then the repository is that of another project.
    """
    # Only what is needed to find git and its settings: GIT_DIR in the user's environment could name another repository.
    own = {name: environment[name] for name in ("PATH", "HOME") if name in environment}
    own |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    # Git refuses the checkout of another user, which is common in containers; its code is running here anyway.
    git = ["git", "-C", os.fspath(folder), "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]

    def ask(*command: str) -> str | None:
        try:
            done = subprocess.run(
                [*git, *command],
                env=own,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=GIT_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    commit = ask("rev-parse", "--verify", "HEAD")
    if commit is None or ask("ls-files", "--error-unmatch", "--", "run_bench.py") is None:
        return None
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


@dataclass(frozen=True, slots=True)
class Mount:
    """The mount that a folder is on: the file system's type, and the source that is mounted."""

    filesystem: str
    source: str


def _disk_readers(name: str, folder: Path | None, root: Path) -> dict[str, Callable[[], Any]]:
    mount = None if folder is None else _known(partial(mount_of, folder))
    return {
        f"{name}_filesystem": lambda: mount and mount.filesystem,
        f"{name}_mount_source": lambda: mount and mount.source,
        f"{name}_disk_rotational": lambda: None if folder is None else rotational(folder, root),
    }


def mount_of(folder: Path) -> Mount | None:
    """Returns the mount that folder is on: the longest mount point above it, the last one of several.

    Links in folder are followed. A user name and password in the source's address are removed.
    """
    resolved = folder.resolve()
    found, length = None, -1
    for mount in psutil.disk_partitions(all=True):
        point = Path(mount.mountpoint)
        if resolved.is_relative_to(point) and len(point.parts) >= length:
            found, length = Mount(mount.fstype, re.sub(r"//[^/@]*@", "//", mount.device)), len(point.parts)
    return found


def rotational(folder: Path, root: Path = Path("/")) -> bool | None:
    """Returns whether the kernel reports the folder's disk as rotational, which it often does for virtual disks.

    For a partition its disk is queried. Returns None if there is no block device: networks, memory, btrfs, overlays.
    """
    resolved = folder.resolve()
    number = next(path for path in (resolved, *resolved.parents) if path.exists()).stat().st_dev
    return _is_rotational(f"{os.major(number)}:{os.minor(number)}", root)


def _is_rotational(device: str, root: Path) -> bool | None:
    """Returns the same for a block device, by its numbers (major:minor)."""
    found = (root / "sys/dev/block" / device).resolve()
    for folder in (found, found.parent):
        turning = _number(folder / "queue/rotational")
        if turning is not None:
            return turning != 0
    return None
