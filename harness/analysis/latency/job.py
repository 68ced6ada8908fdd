"""What a measurement of latency was asked for; the processes that time read their orders here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.artifacts.atomic import read_whole, write_whole
from models.architecture import BOTH, IMAGE_CHANNELS
from models.flops import macs
from models.image_size import ImageSize, PlainSize


@dataclass(frozen=True, slots=True)
class Job:
    """A measurement: every size with every engine.

    sizes are keys of `models.sizes.SIZES`, in their order; engines names of `harness.latency.engines`. rounds is the
    number of turns of each size with each engine, turn_seconds the length of one. cores are those that an engine is
    kept on; none: it isn't kept anywhere. gpu is the number of the GPU, in Paddle's counting. has_weights: the folder
    has a file of weights, for the only size; otherwise they are random, from the seed. strides is what the networks'
    stages halve, see `models.architecture.BOTH`.
    """

    sizes: tuple[str, ...]
    engines: tuple[str, ...]
    device: str
    threads: int = 1
    batch_size: int = 1
    image_size: PlainSize = 224
    num_classes: int = 1000
    rounds: int = 20
    turn_seconds: float = 0.6
    cores: tuple[int, ...] = ()
    has_weights: bool = False
    seed: int = 0
    strides: str = BOTH

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every size with every engine, (size, engine), sizes first."""
        return tuple((size, engine) for size in self.sizes for engine in self.engines)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of a call's images, channels first."""
        return (self.batch_size, *ImageSize.of(self.image_size).of_images(IMAGE_CHANNELS))

    def macs(self, size: str) -> int:
        """The multiply-accumulates of one image in a network of this size."""
        return macs(size, self.image_size, self.num_classes, self.strides)


def write_job(path: Path, job: Job) -> None:
    """Write a job as JSON. Raises MachineError."""
    write_whole(path, json.dumps(asdict(job)))


def read_job(path: Path) -> Job:
    """Returns the job that `write_job` wrote. Raises MachineError."""
    return job_of(json.loads(read_whole(path)))


def job_of(values: Mapping[str, Any]) -> Job:
    """Returns the job whose values JSON has, in which tuples are lists. Raises TypeError for other values."""
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Job(**read)
