"""What a run will do, with every default decided; its ranks read nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from harness.machine.placement.core_lists import parse_cores
from harness.machine.placement.shares import NONE
from harness.plan.kinds import RunKind
from harness.plan.option_groups.measuring import ALL_PHASES
from harness.plan.options import RunConfig
from models.architecture import BOTH
from models.words import count_of
from pipelines.augmentation import Augmentation
from pipelines.builtin import BUILTIN
from pipelines.dataset import IMAGENET_TRAIN_IMAGES, IMAGENET_VAL_IMAGES, Dataset, fingerprint, is_imagenet
from pipelines.errors import DataError
from pipelines.imagenet.numbering import IMAGENET_CLASSES
from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT, Lists
from pipelines.settings import PipelineSettings

# Loading libraries from a slow disk takes minutes.
MIN_START_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a plan needs to know about a data set.

    source is what `open_dataset` takes: a folder or a built-in set's name; so are num_classes_asked, outputs (of
    weights that are only evaluated) and lists. A split that the run doesn't read has 0 images. imagenet: whether the
    counts are ILSVRC2012's. shards says in which the images are; empty for files of their own. fingerprint is that of
    the lists; empty where it wasn't computed. classes says where the classes are from.
    """

    source: str
    name: str
    train_images: int
    val_images: int
    num_classes: int
    augmentation: Augmentation
    imagenet: bool
    builtin: bool
    fingerprint: str = ""
    classes: str = ""
    num_classes_asked: int | None = None
    outputs: int | None = None
    lists: Lists = field(default_factory=Lists)
    shards: str = ""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What was found about the decoder of the run's GPUs before the run.

    obstacle is why it can't be used; empty if it can. hw_decoder_load is the fastest share of images for the JPEG
    engine, of those in rates (images per second of the slowest GPU, by share). The hints are the width and height in
    pixels of the largest image that was looked at, 0 if there was none.
    """

    obstacle: str = ""
    hw_decoder_load: float = 0.65
    width_hint: int = 0
    height_hint: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)


DEFAULT_FOLDER = "dataset/ILSVRC2012"
IMAGENET = DataFacts(
    DEFAULT_FOLDER,
    "ILSVRC2012",
    IMAGENET_TRAIN_IMAGES,
    IMAGENET_VAL_IMAGES,
    IMAGENET_CLASSES,
    Augmentation(),
    True,
    False,
)


def facts_of(
    dataset: Dataset,
    source: str,
    num_classes_asked: int | None = None,
    outputs: int | None = None,
    lists: Lists = Lists(),  # noqa: B008 - it is frozen
) -> DataFacts:
    """The facts of a data set that `open_dataset` opened from source, with these arguments."""
    counts = {split: len(images) for split, images in dataset.splits.items()}
    return DataFacts(
        source=source,
        name=dataset.name,
        train_images=counts.get(TRAIN_SPLIT, 0),
        val_images=counts.get(VAL_SPLIT, 0),
        num_classes=dataset.num_classes,
        augmentation=dataset.augmentation,
        imagenet=is_imagenet(dataset),
        builtin=dataset.builtin,
        fingerprint=fingerprint(dataset),
        classes=dataset.classes.origin,
        num_classes_asked=num_classes_asked,
        outputs=outputs,
        lists=lists,
        shards=_shards(dataset),
    )


def _shards(dataset: Dataset) -> str:
    extents = next(iter(dataset.splits.values())).extents
    return "" if extents is None else f"{count_of(len(extents.files), 'shard')} of {extents.format}"


def declared_facts(name: str, kind: RunKind, num_classes_asked: int | None) -> DataFacts:
    """The facts of a built-in set, without making it. Raises DataError for fewer classes than it has."""
    declared = BUILTIN[name]
    count, origin = declared.num_classes, declared.origin
    if num_classes_asked is not None:
        count, origin = num_classes_asked, f"{num_classes_asked:,}, from --classes"
    if count < declared.num_classes:
        raise DataError(f"{name} has {declared.num_classes:,} classes", f"Use --classes {declared.num_classes}.")
    counts = {split: images for split, images in declared.images.items() if split in kind.splits}
    return DataFacts(
        source=name,
        name=name,
        train_images=counts.get(TRAIN_SPLIT, 0),
        val_images=counts.get(VAL_SPLIT, 0),
        num_classes=count,
        augmentation=declared.augmentation,
        imagenet=False,
        builtin=True,
        classes=origin,
        num_classes_asked=num_classes_asked,
    )


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How weights are updated. A step is one update, from `accumulation_steps` batches of each rank.

    epochs and steps_per_epoch are global; compute_threads are per rank. The learning rate rises from 0 over
    lr_warmup_epochs. amp is off, bf16 or fp16; amp_depthwise: at O1 depthwise convolutions are in 16 bits, too;
    master_grad: at O2 gradients are converted to float32. tf32 is on, off, or None for Paddle's default. pretrained is
    the file of initial weights, if there is one; pretrained_head is what happens to its last layer, keep or new.
    strides is what the network's stages halve, see `models.architecture.BOTH`.
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float
    lr_warmup_epochs: int
    momentum: float
    weight_decay: float
    label_smoothing: float
    accumulation_steps: int
    bn_stats: str
    amp: str
    amp_level: str
    to_static: bool
    compute_threads: int
    pretrained: str | None
    pretrained_head: str | None = None
    amp_depthwise: bool = False
    master_grad: bool = False
    tf32: str | None = None
    strides: str = BOTH

    @property
    def precision(self) -> str:
        """Mixed precision with its level in one word: off, bf16-O1 and so on."""
        return "off" if self.amp == "off" else f"{self.amp}-{self.amp_level}"

    @property
    def dtype(self) -> str:
        """The number format in which most of the network computes."""
        return {"off": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.amp]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """When measuring begins and ends.

    At least warmup_steps come before the measured window, or exactly that number if warmup_given. A throughput run ends
    when the half-width of the throughput's 95 % interval is at most the fraction target_ci of the throughput, or after
    max_seconds of measured time. phases says which phases it measures.
    """

    warmup_steps: int
    warmup_given: bool
    target_ci: float
    max_seconds: float
    phases: str = ALL_PHASES

    @property
    def given_warmup(self) -> int | None:
        """The user's warm-up in steps; None where it is found in the step times."""
        return self.warmup_steps if self.warmup_given else None


@dataclass(frozen=True, slots=True)
class OperationPlan:
    """How a long run is supervised and recorded: time-outs (s), checkpoints, telemetry, unusable images.

    telemetry_library is the path of a library that speaks NVML's calls; None is NVML's own, for GPUs only. profile is
    the number of training steps that rank 0 traces; None for no trace.
    """

    stall_timeout: float
    rendezvous_timeout: float
    checkpoint_minutes: float
    telemetry_interval: float
    bad_images: str
    max_bad_images: int
    max_bad_share: float
    telemetry_library: str | None = None
    profile: int | None = None

    def start_seconds(self, nodes: int) -> float:
        """Returns the seconds that a rank may take before its first step: to join, list images and build pipelines.

        That takes as long however short a step's limit is.
        """
        return max(self.stall_timeout, MIN_START_SECONDS) + (self.rendezvous_timeout if nodes > 1 else 0.0)


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """Which cores this node's ranks run on.

    affinity is pin or none. With pin, rank_cores are the cores of each rank, as in "0-3,8"; without, they are empty.
    """

    affinity: str = NONE
    rank_cores: tuple[str, ...] = ()

    def cores_per_rank(self, all_cores: int, ranks: int) -> int:
        """Returns how many cores every rank has, if the ranks may use all_cores together; at least 1."""
        return max(1, min(all_cores // ranks, *(len(parse_cores(cores)) for cores in self.rank_cores), all_cores))


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything that decides what the ranks do; they read nothing else.

    ranks are those of all nodes, one on each device; device is cpu or gpu. compares_loaders: a throughput run measures
    PaddleClas's loader in turns with pipeline's. notes say where the plan deviates from the recipe.
    """

    kind: RunKind
    model: str
    device: str
    device_name: str
    ranks: int
    nodes: int
    data: DataFacts
    pipeline: PipelineSettings
    training: TrainingPlan
    window: WindowPlan
    operation: OperationPlan
    placement: PlacementPlan = PlacementPlan()
    compares_loaders: bool = False
    notes: tuple[str, ...] = ()

    @property
    def beside(self) -> PipelineSettings | None:
        """The settings of the loader that is measured in turns with pipeline's; None without one."""
        return self.pipeline.with_opencv() if self.compares_loaders else None

    @property
    def ranks_per_node(self) -> int:
        """The number of devices of each node."""
        return self.ranks // self.nodes

    @property
    def global_batch(self) -> int:
        """The number of images in one step of all ranks."""
        return self.pipeline.batch_size * self.training.accumulation_steps * self.ranks

    @property
    def total_steps(self) -> int:
        """The number of training steps in all epochs."""
        return self.training.epochs * self.training.steps_per_epoch


# The parts of a plan whose fields are settings themselves.
PARTS = ("pipeline", "training", "window", "operation", "placement")


def decided_values(config: RunConfig, plan: RunPlan) -> dict[str, Any]:
    """Every setting of a run by name: the configuration's, overridden by what the plan decided."""
    return {**asdict(config), **settings_of(plan)}


def settings_of(plan: RunPlan) -> dict[str, Any]:
    """Every setting of a plan, those of its parts included, by name; one that is named like an option has its value."""
    found: dict[str, Any] = {}
    for item in fields(plan):
        value = getattr(plan, item.name)
        if isinstance(value, RunKind):
            found[item.name] = value.name
        elif item.name in PARTS:
            found |= {name.name: getattr(value, name.name) for name in fields(value)}
        else:
            found[item.name] = value
    return found
