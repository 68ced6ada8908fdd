"""Checks of the host: cores, clocks, memory, disks and limits. They take fractions of a second."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import psutil

from harness.doctor.check import FAIL, OK, WARN, Context, Finding, skip
from harness.machine.environment import cpu_governor
from harness.machine.host import available_cores, memory_limit_bytes, quota_cores
from models.words import count_of

GIB, MIB = 2**30, 2**20
MIN_CORES = 2
# A rank with Paddle and DALI takes about 1 GiB before its first batch.
MIN_MEMORY_BYTES, GOOD_MEMORY_BYTES = 1 * GIB, 4 * GIB
# NCCL's documentation asks for --shm-size=1g in containers, whose default of 64 MiB is too small for its buffers.
GOOD_SHM_BYTES = 1 * GIB
# The largest model's two checkpoints are 0.2 GB; a day's tables of steps some hundred MB.
MIN_DISK_BYTES, GOOD_DISK_BYTES = 100 * MIB, 1 * GIB
# Below this, saving the largest model's checkpoint stops the training for more than 10 s.
GOOD_WRITE_BYTES_PER_SECOND = 10e6
WRITTEN_BYTES, BLOCK_BYTES, WRITE_SECONDS = 32 * MIB, 4 * MIB, 3.0
# DALI opens the files of a batch, ranks their sockets and libraries: some hundred together.
MIN_OPEN_FILES, GOOD_OPEN_FILES = 256, 1024


def _groups(root: str) -> tuple[Path, Path]:
    return Path(root) / "proc/self/cgroup", Path(root) / "sys/fs/cgroup"


def cores(context: Context) -> Finding:
    """The process may use enough cores, and no quota takes parts of them away."""
    quota = quota_cores(*_groups(context.root))
    usable = available_cores() if quota is None else min(available_cores(), quota)
    found = f"{usable:g} of {count_of(psutil.cpu_count() or 1, 'core')}" + (
        "" if quota is None else f" (quota {quota:g})"
    )
    expected = f"{MIN_CORES} or more, in whole cores"
    if usable != int(usable):
        reason = "a quota stops all threads for the rest of each period once it is used up, which shows as slow steps"
        return Finding(WARN, found, expected, reason, "give whole cores instead of a quota: docker run --cpuset-cpus")
    if usable < MIN_CORES:
        reason = "loading images and training share the cores, so that both are slow"
        return Finding(WARN, found, expected, reason, "give the container more cores: docker run --cpus 4")
    return Finding(OK, found, expected)


def governor(context: Context) -> Finding:
    """The processor isn't slowed to save power."""
    name = cpu_governor(Path(context.root))
    if name is None:
        return skip("the kernel reports no frequency governor, as in most virtual machines")
    if name == "performance":
        return Finding(OK, name, "performance")
    return Finding(
        WARN,
        name,
        "performance",
        "clocks that follow the load make two runs differ",
        "sudo cpupower frequency-set -g performance",
    )


def memory(context: Context) -> Finding:
    """Enough memory is free for a rank, within the container's limit."""
    psutil.PROCFS_PATH = str(Path(context.root) / "proc")
    free, limit = psutil.virtual_memory().available, memory_limit_bytes(*_groups(context.root))
    usable = free if limit is None else min(free, limit)
    found = f"{usable / GIB:.1f} GiB free" + ("" if limit is None else f" (limit {limit / GIB:.1f} GiB)")
    expected = f"{GOOD_MEMORY_BYTES / GIB:g} GiB or more"
    if usable >= GOOD_MEMORY_BYTES:
        return Finding(OK, found, expected)
    reason = "a rank takes 1 GiB and more, and the kernel ends a process for which there is none"
    cure = "end other programs (ps aux --sort -rss), or raise the container's limit: docker run --memory"
    return Finding(WARN if usable >= MIN_MEMORY_BYTES else FAIL, found, expected, reason, cure)


def shared_memory(context: Context) -> Finding:
    """The shared memory in /dev/shm is large enough for NCCL."""
    folder = Path(context.root) / "dev/shm"
    expected = f"{GOOD_SHM_BYTES / GIB:g} GiB or more free"
    cure = "docker run --shm-size=1g, or: sudo mount -o remount,size=1g /dev/shm"
    try:
        free = _free_bytes(folder)
    except OSError as error:
        reason = f"{error.strerror}; NCCL's ranks hand over data through it"
        return Finding(WARN, "no /dev/shm", expected, reason, cure)
    found = f"{free / GIB:.2f} GiB free"
    if free < GOOD_SHM_BYTES:
        reason = "NCCL's ranks hand over data through it; several GPUs fail where it is full, one GPU and CPUs don't"
        return Finding(WARN, found, expected, reason, cure)
    return Finding(OK, found, expected)


def disk(context: Context) -> Finding:
    """The folder of --results can be written, fast enough, and has room."""
    folder = Path(context.results).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    elsewhere = "name a folder on another disk: --results /path/to/folder"
    expected = f"{GOOD_DISK_BYTES / GIB:g} GiB or more free, written at {GOOD_WRITE_BYTES_PER_SECOND / 1e6:g} MB/s"
    free = _free_bytes(existing)
    if free < MIN_DISK_BYTES:
        reason = "there is no room for a run's tables and checkpoints"
        return Finding(FAIL, f"{free / GIB:.2f} GiB free in {existing}", expected, reason, elsewhere)
    try:
        rate = _write_rate(existing)
    except OSError as error:
        return Finding(FAIL, f"can't write in {existing}", expected, error.strerror or str(error), elsewhere)
    found = f"{free / GIB:.1f} GiB free, written at {rate / 1e6:.0f} MB/s"
    if free < GOOD_DISK_BYTES:
        return Finding(WARN, found, expected, "a long run's tables and checkpoints may not fit", elsewhere)
    if rate < GOOD_WRITE_BYTES_PER_SECOND:
        return Finding(WARN, found, expected, "training waits while a checkpoint is written", elsewhere)
    return Finding(OK, found, expected)


def _free_bytes(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def _write_rate(folder: Path) -> float:
    """Returns bytes per second, up to the disk and not only to its cache; the file never has a name."""
    block = os.urandom(BLOCK_BYTES)
    with tempfile.TemporaryFile(dir=folder) as stream:
        began, written = time.monotonic(), 0
        while written < WRITTEN_BYTES and time.monotonic() - began < WRITE_SECONDS:
            stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
            written += len(block)
        return written / max(time.monotonic() - began, 1e-9)


def open_files(_: Context) -> Finding:
    """A process may open enough files."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    found, expected = f"{limit:,} per process", f"{GOOD_OPEN_FILES:,} or more"
    if limit >= GOOD_OPEN_FILES or limit == resource.RLIM_INFINITY:
        return Finding(OK, found, expected)
    reason = "DALI opens the images of a batch, and each rank its libraries and connections"
    cure = f"ulimit -n {GOOD_OPEN_FILES}" + ("" if most >= GOOD_OPEN_FILES else " (as root: the hard limit is lower)")
    return Finding(WARN if limit >= MIN_OPEN_FILES else FAIL, found, expected, reason, cure)
