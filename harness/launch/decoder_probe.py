"""Finds out before a run whether the GPUs' decoder works here, and how it is fastest, in processes that may crash."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.launch.limited_process import LimitedProcess, last_line, read_whole
from harness.launch.private_folder import private_folder
from harness.machine.device import Devices, worker_environment
from harness.plan.plan import Decoding, RunPlan
from pipelines.decoder_versions import decoder_versions
from pipelines.image_lists import ImageList, spread
from pipelines.profile import largest_dimensions
from pipelines.settings import HW_DECODER_LOADS, PipelineSettings
from pipelines.stored_lists import save_list

COMMAND = (sys.executable, "-m", "pipelines.decoder_trial")
# Loading Paddle and DALI takes most of it; a GPU's first use may compile kernels.
LIMIT_SECONDS = 90.0
SECONDS_PER_LOAD = 1.5
# A share of the JPEG engine that is less than this faster than DALI's default isn't worth another setting.
WORTHWHILE = 1.05
MAX_IMAGES = 512
# What users' reports of decoders that fail on regions look like here.
FAILS_ON_REGIONS = ("nvImageCodec failure: '#8'", "SIGSEGV")
KNOWN_ISSUE = "known: NVIDIA/nvImageCodec issue 55 reports this for regions of images; --decode-region off"


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
    places = [
        worker_environment(replace(devices, count=1, gpus=(gpu,)), plan.training.compute_threads, environment)
        for gpu in devices.gpus
    ]
    tried = images.part(spread(len(images), MAX_IMAGES))
    with private_folder("decoder") as folder:
        request = request_of(folder, tried, plan.pipeline.of_rank(0), loads, SECONDS_PER_LOAD)
        answers = ask_all(request, places)
    return concluded(answers, *largest_dimensions(images), regions=plan.pipeline.decode_region)


def request_of(
    folder: Path, images: ImageList, settings: PipelineSettings, loads: Sequence[float], seconds: float
) -> dict[str, Any]:
    """What a trial is asked; folder keeps the list of its images until it has ended."""
    save_list(folder, images)
    asked = {"list": str(folder), "root": str(images.root.resolve()), "settings": asdict(settings)}
    return {**asked, "loads": list(loads), "seconds": seconds}


def ask_all(
    request: Mapping[str, Any],
    environments: Sequence[Mapping[str, str]],
    command: Sequence[str] = COMMAND,
    limit_seconds: float = LIMIT_SECONDS,
) -> list[Answer]:
    """The answers of one trial in each environment; they run at the same time, each at most limit_seconds."""
    with ExitStack() as stack:
        trials = [
            stack.enter_context(_Trial(json.dumps(request), environment, command, limit_seconds))
            for environment in environments
        ]
        return [trial.answer() for trial in trials]


class _Trial(ExitStack):
    """A trial that runs from when this is made; inside a `with`, at whose end it is over."""

    def __init__(
        self, request: str, environment: Mapping[str, str], command: Sequence[str], limit_seconds: float
    ) -> None:
        super().__init__()
        self._limit_seconds = limit_seconds
        asked, self._printed, self._complaint = (self._file(name) for name in ("asked", "printed", "complaint"))
        os.write(asked, request.encode())
        os.lseek(asked, 0, os.SEEK_SET)
        self._process = self.enter_context(
            LimitedProcess(
                command,
                limit_seconds,
                environment=environment,
                cwd=ROOT,
                stdin=asked,
                stdout=self._printed,
                stderr=self._complaint,
            )
        )

    def _file(self, name: str) -> int:
        """A file in memory."""
        descriptor = os.memfd_create(name)
        self.callback(os.close, descriptor)
        return descriptor

    def answer(self) -> Answer:
        """Wait for its end. Returns what it found."""
        end = self._process.end()
        if not end.in_time:
            return Answer(f"no answer within {self._limit_seconds:g} s")
        if end.signal_name:
            return Answer(f"its process was ended by {end.signal_name}")
        if end.code:
            return Answer(f"its process failed: {last_line(read_whole(self._complaint)) or f'exit code {end.code}'}")
        return Answer(**json.loads(last_line(read_whole(self._printed), sys.maxsize)))


def concluded(answers: Sequence[Answer], width: int, height: int, *, regions: bool) -> Decoding:
    """What the trials of all GPUs come to; width and height are those of the largest image (0: unknown).

    regions: whether regions of images were decoded.
    """
    obstacles = [f"GPU {number}: {answer.error}" for number, answer in enumerate(answers) if answer.error]
    versions = decoder_versions()
    if obstacles and versions not in "".join(obstacles):
        obstacles.append(versions)
    if regions and any(sign in one for sign in FAILS_ON_REGIONS for one in obstacles):
        obstacles.append(KNOWN_ISSUE)
    # The slowest GPU decides; all of them decode with the same share.
    loads = set.intersection(*(set(answer.rates) for answer in answers)) if answers else set()
    rates = {load: min(answer.rates[load] for answer in answers) for load in sorted(loads, key=float)}
    usual = Decoding().hw_decoder_load
    best = max(rates, key=lambda load: rates[load], default=None)
    faster = best is not None and rates[best] > WORTHWHILE * rates.get(str(usual), 0.0)
    return Decoding(
        obstacle="; ".join(obstacles),
        hw_decoder_load=float(best) if faster and best is not None else usual,
        width_hint=width,
        height_hint=height,
        rates=rates,
    )


def loads_to_try(asked: float | None) -> tuple[float, ...]:
    """The shares of the JPEG engine to try: the one asked for, or several."""
    return HW_DECODER_LOADS if asked is None else (asked,)
