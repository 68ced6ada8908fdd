"""Finds out before a run whether the GPUs' decoder works here, and how it is fastest, in processes that may crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from harness import ROOT
from harness.machine.device import Devices, worker_environment
from harness.plan.plan import Decoding, RunPlan
from pipelines.image_lists import ImageList
from pipelines.profile import largest_dimensions
from pipelines.settings import HW_DECODER_LOADS

COMMAND = (sys.executable, "-m", "pipelines.decoder_trial")
# Loading Paddle and DALI takes most of it; a GPU's first use may compile kernels.
LIMIT_SECONDS = 90.0
SECONDS_PER_LOAD = 1.5
# A share of the JPEG engine that is less than this faster than DALI's default isn't worth another setting.
WORTHWHILE = 1.05
# Open reports of users, by what they look like here.
KNOWN_ISSUES = {
    "nvImageCodec failure: '#8'": "NVIDIA/nvImageCodec issue 55 reports this for regions of images",
    "SIGSEGV": "NVIDIA/nvImageCodec issue 55 reports this for regions of images",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one GPU's trial found: images per second by share of the JPEG engine, and why it failed, if it did."""

    error: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)


def probe_decoder(
    plan: RunPlan, devices: Devices, images: ImageList, environment: Mapping[str, str], loads: Sequence[float]
) -> Decoding:
    """Decode some of the run's images on each of its GPUs as the plan says, with each share of the JPEG engine.

    Returns what was found; its obstacle is empty if every GPU can decode.
    """
    batch = plan.pipeline.batch_size
    sample = [images.paths[place * len(images) // batch] for place in range(min(batch, len(images)))]
    request = {
        "root": str(images.root.resolve()),
        "paths": sample,
        "settings": asdict(replace(plan.pipeline, batch_size=len(sample), device_id=0)),
        "loads": list(loads),
        "seconds": SECONDS_PER_LOAD,
    }
    places = [
        worker_environment(replace(devices, count=1, gpus=(gpu,)), plan.training.compute_threads, environment)
        for gpu in devices.gpus
    ]
    width, height = largest_dimensions(images)
    return concluded(ask_all(request, places), width, height)


def ask_all(
    request: Mapping[str, Any],
    environments: Sequence[Mapping[str, str]],
    command: Sequence[str] = COMMAND,
    limit_seconds: float = LIMIT_SECONDS,
) -> list[Answer]:
    """The answers of one trial in each environment; they run at the same time, each at most limit_seconds."""
    ask = partial(_ask, json.dumps(request), command=command, limit_seconds=limit_seconds)
    with ThreadPoolExecutor(max(1, len(environments))) as pool:
        return list(pool.map(ask, environments))


def _ask(request: str, environment: Mapping[str, str], command: Sequence[str], limit_seconds: float) -> Answer:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        start_new_session=True,
    )
    try:
        printed, complaint = process.communicate(request, timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a process that hangs in its driver can't be ended
            process.communicate(timeout=5)
        return Answer(f"no answer within {limit_seconds:g} s")
    if process.returncode < 0:
        return Answer(f"its process was ended by {signal.Signals(-process.returncode).name}")
    if process.returncode:
        last = (complaint.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return Answer(f"its process failed: {last}")
    return Answer(**json.loads(printed.strip().splitlines()[-1]))


def concluded(answers: Sequence[Answer], width: int, height: int) -> Decoding:
    """What the trials of all GPUs come to; width and height are those of the largest image (0: unknown)."""
    obstacles = [f"GPU {number}: {answer.error}" for number, answer in enumerate(answers) if answer.error]
    issue = next((known for sign, known in KNOWN_ISSUES.items() if any(sign in one for one in obstacles)), "")
    # The slowest GPU decides; all of them decode with the same share.
    loads = set.intersection(*(set(answer.rates) for answer in answers)) if answers else set()
    rates = {load: min(answer.rates[load] for answer in answers) for load in sorted(loads, key=float)}
    usual = Decoding().hw_decoder_load
    best = max(rates, key=lambda load: rates[load], default=None)
    faster = best is not None and rates[best] > WORTHWHILE * rates.get(str(usual), 0.0)
    return Decoding(
        obstacle="; ".join([*obstacles, *([f"known: {issue}"] if issue else [])]),
        hw_decoder_load=float(best) if faster and best is not None else usual,
        width_hint=width,
        height_hint=height,
        rates=rates,
    )


def loads_to_try(asked: float | None) -> tuple[float, ...]:
    """The shares of the JPEG engine to try: the one asked for, or several."""
    return HW_DECODER_LOADS if asked is None else (asked,)
