"""What a command line of `latency` asks for, checked against what there is to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.latency.job import Job
from harness.commands.stored.export import Exported, describe, weights_of
from harness.errors import MachineError, UsageError
from harness.latency.cores import timing_cores
from harness.latency.engines import ENGINES, USUAL, engines_for
from harness.machine.device import Devices, choose_devices
from harness.machine.device_kinds import CPU
from harness.machine.host import allowed_cores, available_cores
from harness.machine.placement.pinning import can_pin
from harness.machine.placement.topology import read_topology
from harness.plan.declaration import MAX_INT, Limits, check_sides
from models.architecture import BOTH, HEIGHT, MIN_IMAGE_SIZE
from models.image_size import PlainSize
from models.sizes import RECIPE, SIZES
from models.words import count_of

ALL = "all"
USUAL_DEVICE = CPU.name
USUAL_ROUNDS, USUAL_SECONDS = 20, 12.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options as they were given; None is not given.

    model and engine are names with commas between them; seconds are those of each size with each engine, over all
    rounds; weights is the name of a run in results, or a file.
    """

    results: str
    model: str | None = None
    engine: str | None = None
    device: str = USUAL_DEVICE
    threads: int = 1
    batch_size: int = 1
    image_size: PlainSize = RECIPE.image_size
    strides: str | None = None
    weights: str | None = None
    seconds: float = USUAL_SECONDS
    rounds: int = USUAL_ROUNDS


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured: the job, whose weights it times (None: random ones), and the devices."""

    job: Job
    weights: Exported | None
    devices: Devices
    notices: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Whose weights are timed, in words."""
        return "random weights" if self.weights is None else describe(self.weights)


def asked(options: Options, environment: Mapping[str, str]) -> Asked:
    """Returns what the options ask for. Raises UsageError, MachineError or WeightsError if that can't be measured."""
    Limits(at_least=1, at_most=MAX_INT).check("batch_size", options.batch_size)
    Limits(at_least=1, at_most=MAX_INT).check("rounds", options.rounds)
    Limits(above=0).check("seconds", options.seconds)
    check_sides("image_size", options.image_size, Limits(at_least=MIN_IMAGE_SIZE, at_most=MAX_INT))
    if options.device not in USUAL:
        raise UsageError(f"--device is {options.device!r}; networks are timed on {' or '.join(USUAL)}", "Name one.")
    engines = _engines(options.engine, options.device)
    _check_threads(options.threads)
    weights = None if options.weights is None else weights_of(options.weights, Path(options.results))
    sizes = _sizes(options.model, weights)
    devices, notices = _devices(options.device, environment)
    job = Job(
        sizes=sizes,
        engines=engines,
        device=options.device,
        threads=options.threads,
        batch_size=options.batch_size,
        image_size=options.image_size,
        strides=_strides(options.strides, weights),
        num_classes=RECIPE.classes if weights is None else int(weights.metadata["num_classes"]),
        rounds=options.rounds,
        turn_seconds=options.seconds / options.rounds,
        cores=timing_cores(read_topology(), allowed_cores(), options.threads) if can_pin() else (),
        has_weights=weights is not None,
    )
    return Asked(job, weights, devices, notices)


def _sizes(text: str | None, weights: Exported | None) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in SIZES:
            raise UsageError(f"--model: unknown size {name!r}", f"Known: {', '.join(SIZES)}.")
    if weights is None:
        return tuple(size for size in SIZES if not names or size in names)
    own = weights.metadata["model"]
    if names and set(names) != {own}:
        raise UsageError(f"--weights are those of {own}, not of {', '.join(names)}", f"Omit --model, or: --model {own}")
    return (own,)


def _strides(given: str | None, weights: Exported | None) -> str:
    """What the networks' stages halve: as given, else as in the run that the weights are from, else both sides."""
    if given not in (None, BOTH, HEIGHT):
        raise UsageError(f"unknown strides {given!r}", f"Known: {BOTH}, {HEIGHT}.")
    own = BOTH if weights is None else weights.metadata.get("strides", BOTH)
    return own if given is None else given


def _engines(text: str | None, device: str) -> tuple[str, ...]:
    """The names of the engines, without repeats; all that are installed for "all"."""
    there = engines_for(device)
    if text == ALL:
        return tuple(engine.name for engine in there if not engine.missing)
    names = tuple(dict.fromkeys(_names(text))) or (USUAL[device],)
    for name in names:
        if name not in ENGINES or ENGINES[name].device != device:
            raise UsageError(
                f"--engine: {name!r} doesn't run on {device}",
                f"Known: {', '.join(engine.name for engine in there)}, and {ALL} for those that are installed.",
            )
        if missing := ENGINES[name].missing:
            raise MachineError(f"--engine {name} needs {' and '.join(missing)}", ENGINES[name].install)
    return names


def _names(text: str | None) -> Sequence[str]:
    return [] if text is None else [part.strip() for part in text.split(",")]


def _check_threads(threads: int) -> None:
    Limits(at_least=1, at_most=MAX_INT).check("threads", threads)
    if threads > (cores := available_cores()):
        raise MachineError(
            f"--threads {threads}: this process may use {count_of(cores, 'core')}, and each thread needs one",
            f"--threads {cores}",
        )


def _devices(device: str, environment: Mapping[str, str]) -> tuple[Devices, tuple[str, ...]]:
    try:
        return choose_devices(device, 1, environment)
    except MachineError as error:
        raise MachineError(error.message, "To time the processor's engines instead, omit --device.") from error
