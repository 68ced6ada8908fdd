"""Every check of the doctor, in one table, and running them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from harness.doctor import devices, host, loaders, pipeline, ranks, software
from harness.doctor.check import DEVICES, FAIL, LEVELS, OK, PIPELINE, QUICK, RANKS, SKIP, WARN, Check, Context, Finding
from harness.doctor.isolation import run_isolated
from harness.errors import UsageError

ALL = "all"
# What needs no Paddle answers at once; Paddle alone may take half a minute to load from a network disk.
QUICK_SECONDS, PADDLE_SECONDS, RANKS_SECONDS = 15.0, 60.0, 90.0

CHECKS = (
    Check(
        "python", QUICK, "Python's version is one that the packages have builds for.", QUICK_SECONDS, software.python
    ),
    Check(
        "packages", QUICK, "Every package has a version that pyproject.toml asks for.", QUICK_SECONDS, software.packages
    ),
    Check(
        "paddle-package",
        QUICK,
        "One of Paddle's packages is installed, and only one.",
        QUICK_SECONDS,
        software.paddle_package,
    ),
    Check(
        "driver",
        QUICK,
        "NVIDIA's driver answers through NVML; GPUs, driver and Paddle fit together.",
        QUICK_SECONDS,
        software.driver,
    ),
    Check("gpu-processes", QUICK, "No other program computes on the GPUs.", QUICK_SECONDS, software.gpu_processes),
    Check("cores", QUICK, "This process may use enough cores, in whole cores.", QUICK_SECONDS, host.cores),
    Check("governor", QUICK, "The processor isn't slowed to save power.", QUICK_SECONDS, host.governor),
    Check("memory", QUICK, "Enough memory is free, within the container's limit.", QUICK_SECONDS, host.memory),
    Check(
        "shm",
        QUICK,
        "The shared memory (/dev/shm) has room for what NCCL's ranks hand over.",
        QUICK_SECONDS,
        host.shared_memory,
    ),
    Check("disk", QUICK, "The folder of --results has room, and is written fast enough.", QUICK_SECONDS, host.disk),
    Check("open-files", QUICK, "A process may open enough files.", QUICK_SECONDS, host.open_files),
    Check(
        "paddle",
        DEVICES,
        "Paddle loads, and offers the devices that a run would take.",
        PADDLE_SECONDS,
        devices.paddle_loads,
    ),
    Check(
        "device",
        DEVICES,
        "Each GPU or plugin device allocates memory and multiplies matrices.",
        PADDLE_SECONDS,
        devices.each_device,
    ),
    Check(
        "training-step",
        DEVICES,
        "Three training steps of PP-LCNet x0_25 give the stored losses.",
        PADDLE_SECONDS,
        devices.training_step,
    ),
    Check(
        "all-reduce",
        RANKS,
        "Ranks that Paddle's launcher starts add up numbers to the right sum.",
        RANKS_SECONDS,
        ranks.all_reduce,
    ),
    Check(
        "decode",
        PIPELINE,
        "DALI decodes JPEGs on the CPU to the pixels that Pillow has.",
        PADDLE_SECONDS,
        pipeline.decode,
    ),
    Check(
        "hand-over",
        PIPELINE,
        "DALI's batches reach Paddle on the host without a copy.",
        PADDLE_SECONDS,
        pipeline.hand_over,
    ),
    Check(
        "fused",
        PIPELINE,
        "Our own operators for CPUs compile, resize as DALI's do, and their code can be kept.",
        PADDLE_SECONDS,
        loaders.fused,
    ),
    Check(
        "opencv",
        PIPELINE,
        "OpenCV, for --loader opencv alone, decodes JPEGs to the pixels that Pillow has.",
        PADDLE_SECONDS,
        loaders.opencv,
    ),
    Check("data", PIPELINE, "The first images of --data can be read and decoded.", PADDLE_SECONDS, pipeline.data),
)


def select_checks(level: str, names: Sequence[str] = (), checks: Sequence[Check] = CHECKS) -> list[Check]:
    """Returns the checks of a level (ALL: every one), or those of these names. Raises UsageError for unknown ones."""
    if level not in (ALL, *LEVELS):
        raise UsageError(f"--level {level!r} is not a level", f"Levels: {', '.join((*LEVELS, ALL))}.")
    known = {check.id: check for check in checks}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            cure = f"Did you mean {close[0]!r}?" if close else "python run_bench.py doctor --list names them."
            raise UsageError(f"there is no check {name!r}", cure)
    if names and level != ALL:
        raise UsageError("--level and names of checks exclude each other", "Name the checks alone, or the level.")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    return [check for check in checks if level in (ALL, check.level)]


def run_checks(
    checks: Sequence[Check], context: Context, environment: Mapping[str, str] = os.environ
) -> Iterator[tuple[Check, Finding]]:
    """Yields each check with what it found, one after another, so that none disturbs another's figures."""
    for check in checks:
        yield check, run_isolated(check.function, context, check.limit_seconds, environment=environment)


def worst(statuses: Sequence[str]) -> str:
    """Returns the status of all together: fail before warn before ok; skip if every check was skipped."""
    return next((status for status in (FAIL, WARN, OK) if status in statuses), SKIP)
