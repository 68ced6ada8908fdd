"""In what two runs differ besides their figures: the job, its settings, its files and the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.artifacts.bad_image import LEFT_OUT_COLUMNS
from harness.artifacts.record import RunRecord
from harness.machine.device_kinds import GPU
from harness.plan.declaration import HIDDEN
from harness.plan.options import run_options
from harness.plan.plan import IMAGENET, decided_values
from models.architecture import BOTH
from models.image_size import PlainSize
from pipelines.settings import PADDLECLAS_CROPS

# Of the files' profile: what decoding costs, and where the bytes came from.
PROFILED = ("mean_bytes", "bits_per_pixel", "page_cache.state")
# The name of a part of the machine, which says nothing of its speed; the platform's is made of the kernel's.
NAMES = ("uuid", "pci_bus_id", "index", "platform")

SETTINGS, FILES, ENVIRONMENT = "settings", "files", "environment"


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """One thing that two runs don't share. where is settings, files or environment; None is unset or unknown."""

    where: str
    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Job:
    """What must be the same for two rates to be rates of the same work. batch_size is per device."""

    model: str
    image_size: PlainSize
    data_set: str
    device: str
    devices: int
    batch_size: int
    mixed_precision: str = "off"
    accumulated_batches: int = 1
    auto_augment: bool = False
    preprocessing: str = PADDLECLAS_CROPS
    strides: str = BOTH

    def unlike(self, other: Job) -> list[str]:
        """What differs between the two, in words."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name.replace('_', ' ')} ({mine[name]}, {theirs[name]})" for name in mine if mine[name] != theirs[name]
        ]


# PaddleClas's recipe as DeepSparkHub runs it; see results/bi_v100.csv.
REFERENCE_JOB = Job("x1_0", 224, IMAGENET.name, GPU.name, 4, GPU.batch_size)


def job_of(record: RunRecord) -> Job:
    """The job that a run did."""
    plan = record.plan
    data_set = IMAGENET.name if plan.data.imagenet else plan.data.name
    return Job(
        plan.model,
        plan.pipeline.image_size,
        data_set,
        plan.device,
        plan.ranks,
        plan.pipeline.batch_size,
        plan.training.precision,
        plan.training.accumulation_steps,
        plan.pipeline.auto_augment,
        plan.pipeline.preprocessing,
        plan.training.strides,
    )


def differences(a: RunRecord, b: RunRecord) -> list[SettingDifference]:
    """Everything recorded of both runs that differs between them, but for what can't change their speed.

    Settings are those decided, not those asked for. Names of nested values have dots. A fact about the files or the
    environment that only one of the records holds is not compared.
    """
    return [
        *_differing(SETTINGS, settings(a), settings(b)),
        *_differing(FILES, *_in_both(_files(a), _files(b))),
        *_differing(ENVIRONMENT, *_in_both(a.environment, b.environment)),
    ]


def settings(record: RunRecord) -> dict[str, Any]:
    """A run's settings by their dotted names, but for those whose options are declared as hidden.

    Its notes repeat what the other settings say.
    """
    hidden = {name for name, option in run_options().items() if option.compare == HIDDEN} | {"notes"}
    shown = {name: value for name, value in decided_values(record.config, record.plan).items() if name not in hidden}
    return dict(_flat("", {**shown, "data": asdict(record.plan.data)}))


def _files(record: RunRecord) -> dict[str, Any]:
    flat = dict(_flat("", record.profile))
    left_out = {name: record.summary[name] for name in LEFT_OUT_COLUMNS.values() if name in record.summary}
    return {**{name: flat[name] for name in PROFILED if name in flat}, **left_out}


def _in_both(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The leaves of what both records have a place for."""
    kept_a, kept_b = ({name: one[name] for name in one if name in other} for one, other in ((a, b), (b, a)))
    return dict(_flat("", kept_a)), dict(_flat("", kept_b))


def _differing(where: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[SettingDifference]:
    for name in {**a, **b}:
        if name.rpartition(".")[2] not in NAMES and a.get(name) != b.get(name):
            yield SettingDifference(where, name, a.get(name), b.get(name))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists by their dotted names; an empty one has none."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _flat(f"{name}.{number}", item)
    else:
        yield name, value
