"""Which kernels of oneDNN run in a call: counted in processes of their own, as counting slows calls down."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from harness.analysis.latency.job import Job
from harness.analysis.latency.kernels import KernelProfile, instructions_in, kernels_in
from harness.latency.engines import ENGINES
from harness.latency.processes import EngineProcess

VERBOSE = {"ONEDNN_VERBOSE": "1"}
# The first calls put weights into the layout of the kernels; the others are counted.
SKIPPED_CALLS, COUNTED_CALLS = 3, 10


def profile_kernels(job: Job, folder: Path, environment: Mapping[str, str]) -> list[KernelProfile]:
    """Returns what oneDNN executes in a call of each size, for each engine that runs its kernels or disables them.

    The folder has the exported models. Raises EngineFailed.
    """
    profiles = []
    for engine in job.engines:
        if not ENGINES[engine].prints_kernels:
            continue
        with EngineProcess(engine, folder, {**environment, **VERBOSE}) as process:
            for size in job.sizes:
                before = len(process.printed)
                process.load(size)
                timed = process.profile(size, SKIPPED_CALLS + COUNTED_CALLS)
                printed = process.printed
                profiles.append(
                    KernelProfile(
                        size=size,
                        engine=engine,
                        instructions=instructions_in(printed),
                        milliseconds=statistics.median(timed.milliseconds[SKIPPED_CALLS:]),
                        kernels=kernels_in(printed[before:], SKIPPED_CALLS),
                    )
                )
    return profiles
