"""The settings that the tuner may vary, in one table: when each applies, and its values in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from harness.analysis.remedies import COMPUTE_STAGE, PIPELINE_STAGE
from harness.analysis.tuning.trial import Candidate
from harness.machine.device_kinds import DeviceKind, device_kind
from harness.machine.host import available_cores
from harness.plan.declaration import AUTO
from harness.plan.plan import RunPlan
from pipelines.fused.fit import obstacle
from pipelines.settings import (
    CPU_DECODER,
    DALI_CROPS,
    DALI_LOADER,
    DALI_RESIZE,
    MIXED_DECODER,
    OPENCV_LOADER,
)

# Numbers to step along: each is enough above the one before to show.
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MAX_PREFETCH = 12
# The value farther up that is tried beside the next one is at most this number of times the own one.
FAR = 4


@dataclass(frozen=True, slots=True)
class Scope:
    """What the machine allows: cores of each rank, the kind of its devices, whether OpenCV and the fused operator work.

    fused is for the host's decoder; without it there is one way to resize.
    """

    cores: int
    device: DeviceKind
    opencv: bool
    fused: bool


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting: name is the option's. values are those to choose from in a candidate's company; none: not there.

    stage is the one that it makes faster. ordered: its neighbours are tried, and then those beyond the better one.
    """

    name: str
    stage: str
    values: Callable[[Candidate, Scope], tuple[Any, ...]]
    ordered: bool = True


def _threads(scope: Scope) -> tuple[int, ...]:
    """Numbers of threads from one to twice the cores."""
    return tuple(number for number in STEPS if number <= 2 * scope.cores)


def _by_dali(candidate: Candidate) -> bool:
    return bool(candidate["loader"] == DALI_LOADER)


def _if(applies: bool, *values: Any) -> tuple[Any, ...]:
    return values if applies else ()


KNOBS = (
    Knob("decode_threads", PIPELINE_STAGE, lambda c, scope: _if(_by_dali(c), *_threads(scope))),
    Knob("workers", PIPELINE_STAGE, lambda c, scope: _if(not _by_dali(c), *_threads(scope))),
    Knob("prefetch", PIPELINE_STAGE, lambda *_: tuple(number for number in STEPS if number <= MAX_PREFETCH)),
    Knob(
        "decoder",
        PIPELINE_STAGE,
        lambda c, scope: _if(_by_dali(c) and scope.device.decoder == MIXED_DECODER, MIXED_DECODER, CPU_DECODER),
        ordered=False,
    ),
    Knob(
        "hw_decoder_load",
        PIPELINE_STAGE,
        lambda c, _: _if(_by_dali(c) and c["decoder"] == MIXED_DECODER, 0.0, 0.25, 0.5, 0.65, 0.8, 0.9, 1.0),
    ),
    Knob(
        "resize",
        PIPELINE_STAGE,
        lambda c, scope: _if(_by_dali(c) and c["decoder"] == CPU_DECODER and scope.fused, AUTO, DALI_RESIZE),
        ordered=False,
    ),
    Knob("loader", PIPELINE_STAGE, lambda _, scope: _if(scope.opencv, DALI_LOADER, OPENCV_LOADER), ordered=False),
    Knob("compute_threads", COMPUTE_STAGE, lambda _, scope: _if(scope.device.on_host, *_threads(scope))),
    Knob("layout", COMPUTE_STAGE, lambda *_: ("nchw", "nhwc"), ordered=False),
    Knob(
        "amp",
        COMPUTE_STAGE,
        lambda _, scope: _if(scope.device.sixteen_bit, "off", "bf16", "fp16"),
        ordered=False,
    ),
    Knob(
        "batch_size",
        COMPUTE_STAGE,
        lambda c, _: (c["batch_size"] // 2 or 1, c["batch_size"], 2 * c["batch_size"]),
    ),
)
KNOB_NAMES = tuple(knob.name for knob in KNOBS)
# Varied unless others are asked for: how images are loaded, which doesn't change what is trained.
USUAL = tuple(knob.name for knob in KNOBS if knob.stage == PIPELINE_STAGE)


def neighbours(knob: Knob, candidate: Candidate, scope: Scope) -> tuple[Candidate, ...]:
    """The candidates beside one along a knob, or all others if its values have no order.

    These are the values before and after its own, and one farther up: along a gentle slope each step brings less than
    noise lets see, and several together bring more. None where the knob doesn't apply, or has no other value.
    """
    own, values = candidate[knob.name], knob.values(candidate, scope)
    if not knob.ordered:
        return tuple(candidate.but(knob.name, value) for value in values if value != own) if own in values else ()
    below = [value for value in values if value < own]
    above = [value for value in values if value > own]
    far = [value for value in above[1:] if value <= FAR * own][-1:]
    return tuple(candidate.but(knob.name, value) for value in (*below[-1:], *above[:1], *far))


def applies(name: str, candidate: Candidate, scope: Scope) -> bool:
    """Returns whether the setting of that name has an effect beside a candidate's other values."""
    return any(knob.name == name and knob.values(candidate, scope) for knob in KNOBS)


def initial(values: Mapping[str, Any]) -> Candidate:
    """The candidate of a plan, from its settings by name."""
    return Candidate.of(**{name: values[name] for name in KNOB_NAMES})


def scope_of(plan: RunPlan) -> Scope:
    """What the machine allows a plan's settings to be."""
    return Scope(
        cores=max(1, available_cores() // plan.ranks_per_node),
        device=device_kind(plan.device),
        opencv=(
            find_spec("cv2") is not None
            and plan.pipeline.preprocessing != DALI_CROPS
            and not plan.pipeline.auto_augment
        ),
        fused=not obstacle(replace(plan.pipeline, decoder=CPU_DECODER)),
    )
