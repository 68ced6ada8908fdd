"""What a run will do, with every default decided: the published recipe on these devices and this data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from harness.machine.host import available_cores
from harness.plan.config import SYNC, RunConfig
from models.sizes import SIZES
from pipelines.augmentation import Augmentation
from pipelines.dataset import (
    IMAGENET_CLASSES,
    IMAGENET_TRAIN_IMAGES,
    IMAGENET_VAL_IMAGES,
    Dataset,
    fingerprint,
    is_imagenet,
)
from pipelines.sharding import steps_per_epoch

GPU_BATCH_SIZE = 512  # the published recipe's, on each of 4 GPUs
CPU_BATCH_SIZE = 16  # as fast as 32, with twice as many steps to know it by
LEARNING_RATE_PER_IMAGE = 0.1 / 256  # the published 0.8 at 2048 images a step
WARMUP_EPOCHS = 5
GPU_WARMUP_STEPS = 20  # cuDNN tries its algorithms, DALI its buffers, the clocks rise
CPU_WARMUP_STEPS = 3
NOTED_EXCESS = 0.05  # of an epoch's full batches over the data set
OTHER_NODES = "utilisation, power and what disturbed the run are those of node 0; images and times are of all nodes"
MAX_DECODE_THREADS = 8  # beyond it DALI's threads contend with the training's


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a plan needs to know of a data set.

    source is what `open_dataset` takes: a folder or a built-in set's name. imagenet: the counts are ILSVRC2012's.
    fingerprint is that of the lists; empty where it wasn't taken.
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


def facts_of(dataset: Dataset, source: str) -> DataFacts:
    """The facts of a data set opened from source."""
    return DataFacts(
        source=source,
        name=dataset.name,
        train_images=len(dataset.train),
        val_images=len(dataset.val) if dataset.val is not None else 0,
        num_classes=dataset.num_classes,
        augmentation=dataset.augmentation,
        imagenet=is_imagenet(dataset),
        builtin=dataset.builtin,
        fingerprint=fingerprint(dataset),
    )


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run's figures. Counts of images, steps and epochs are global; batch_size and the threads are per rank.

    A step is one update of the weights, from `accumulate` batches of each rank. total_steps is None with
    --throughput-only, whose window ends by precision or time, and 0 with --eval-only. warmup_steps come before the
    measured window at least, or exactly if warmup_given; lr_warmup_epochs are the recipe's, over which the learning
    rate rises. notes say where the plan leaves the recipe. ranks are those of all nodes.
    """

    model: str
    device: str
    device_name: str
    ranks: int
    data: DataFacts
    image_size: int
    batch_size: int
    steps_per_epoch: int
    epochs: int
    total_steps: int | None
    learning_rate: float
    lr_warmup_epochs: int
    weight_decay: float
    warmup_steps: int
    compute_threads: int
    decode_threads: int
    notes: tuple[str, ...] = ()
    warmup_given: bool = False
    nodes: int = 1
    accumulation_steps: int = 1
    auto_augment: bool = False
    amp: str = "off"

    @property
    def ranks_per_node(self) -> int:
        """The number of devices of each node."""
        return self.ranks // self.nodes

    @property
    def global_batch(self) -> int:
        """Images in one step of all ranks."""
        return self.batch_size * self.accumulation_steps * self.ranks


def make_plan(config: RunConfig, devices: Devices, data: DataFacts, environment: Mapping[str, str]) -> RunPlan:
    """Decide everything the configuration leaves open.

    Raises UsageError when the batch is larger than a rank's share of the images, or the warm-up longer than the run,
    MachineError for what these devices can't do.
    """
    on_gpu = devices.kind == "gpu"
    if not on_gpu:
        _refuse_on_cpu(config)
    ranks = devices.count * config.nnodes
    batch_size, notes = _batch_size(config, devices.kind, ranks, data)
    step_images = batch_size * config.accumulation_steps
    epoch_steps = steps_per_epoch(data.train_images, ranks, step_images)
    total_steps = None if config.throughput_only else 0 if config.eval_only else config.epochs * epoch_steps
    warmup = config.warmup
    if warmup is None:
        # Longer than what DALI decodes ahead while the first steps are slow.
        warmup = max(GPU_WARMUP_STEPS if on_gpu else CPU_WARMUP_STEPS, config.prefetch + 1)
        # A short run keeps three quarters of its steps to measure.
        warmup = warmup if total_steps is None else min(warmup, total_steps // 4)
    elif total_steps is not None and warmup >= total_steps and not config.eval_only:
        raise UsageError(
            f"--warmup {warmup} leaves nothing to measure: the run has {total_steps} steps"
            f" ({config.epochs} epochs of {epoch_steps})",
            f"Use --warmup {total_steps - 1} or less, or more --epochs.",
        )
    epoch_images = epoch_steps * step_images * ranks
    if not config.eval_only and epoch_images > (1 + NOTED_EXCESS) * data.train_images:
        notes += (
            f"an epoch of {epoch_steps} full batches trains on {epoch_images:,} images, {data.name} has"
            f" {data.train_images:,}",
        )
    if config.preprocessing == "dali":
        notes += ("images are cropped and resized as DALI does by default, not as published",)
    if config.nnodes > 1:
        notes += (OTHER_NODES,)
    share = max(1, available_cores() // devices.count)
    size = SIZES[config.model]
    auto_augment = size.auto_augment if config.auto_augment is None else config.auto_augment
    if auto_augment != size.auto_augment and not config.eval_only:
        published, here = ("AutoAugment", "none") if size.auto_augment else ("no AutoAugment", "it")
        notes += (f"published: {published} for {config.model}; this run has {here}",)
    return RunPlan(
        model=config.model,
        device=devices.kind,
        device_name=devices.name,
        ranks=ranks,
        data=replace(data, augmentation=_augmentation(config, data.augmentation)),
        image_size=config.image_size,
        batch_size=batch_size,
        steps_per_epoch=epoch_steps,
        epochs=config.epochs,
        total_steps=total_steps,
        learning_rate=config.learning_rate or LEARNING_RATE_PER_IMAGE * step_images * ranks,
        # PaddleClas shortens the warm-up of a run that is shorter than it.
        lr_warmup_epochs=config.lr_warmup_epochs
        if config.lr_warmup_epochs is not None
        else min(WARMUP_EPOCHS, config.epochs),
        weight_decay=config.weight_decay if config.weight_decay is not None else size.weight_decay,
        warmup_steps=warmup,
        compute_threads=config.compute_threads or _positive_int(environment.get("OMP_NUM_THREADS")) or share,
        decode_threads=config.decode_threads or min(MAX_DECODE_THREADS, share),
        notes=notes,
        warmup_given=config.warmup is not None,
        nodes=config.nnodes,
        accumulation_steps=config.accumulation_steps,
        auto_augment=auto_augment,
        amp=config.amp_mode,
    )


def _refuse_on_cpu(config: RunConfig) -> None:
    for asked, lacking in (
        (config.amp != "off", f"--amp {config.amp} needs GPUs: Paddle has no {config.amp} convolutions for CPUs"),
        (config.bn_stats == SYNC, "--bn-stats sync needs GPUs: Paddle has it for no CPU"),
    ):
        if asked:
            raise MachineError(lacking, "Leave it away to train on the CPU.")


def _batch_size(config: RunConfig, kind: str, ranks: int, data: DataFacts) -> tuple[int, tuple[str, ...]]:
    """Images per rank and step, and a note where a small data set makes them fewer than the default."""
    if config.eval_only:
        # What a batch lacks is filled, and not counted.
        return config.batch_size or (GPU_BATCH_SIZE if kind == "gpu" else CPU_BATCH_SIZE), ()
    shard = -(-data.train_images // ranks)  # the largest; a smaller one's reader goes on into its next pass
    usual = GPU_BATCH_SIZE if kind == "gpu" else CPU_BATCH_SIZE
    few = f"{data.train_images:,} training images of {data.name} over {ranks} ranks leave at most {shard} each"
    if data.train_images < ranks:
        raise UsageError(f"fewer images than ranks: {data.train_images} over {ranks}", "Use fewer --gpus.")
    largest = shard // config.accumulation_steps
    if not largest:
        raise UsageError(
            f"a step of {config.accumulation_steps} batches is larger than a rank's shard: {few}",
            f"Use --accumulation-steps {shard} or less, or fewer --gpus.",
        )
    wanted = config.batch_size or min(usual, largest)
    if wanted > largest:
        several = f"a step of {config.accumulation_steps} batches" if config.accumulation_steps > 1 else "a batch"
        raise UsageError(
            f"{several} of {wanted} images is larger than a rank's shard: {few}",
            f"Use --batch-size {largest} or less, or fewer --gpus.",
        )
    if config.batch_size is None and wanted < usual:
        return wanted, (f"batch of {wanted} images per rank, not {usual}: {few}",)
    return wanted, ()


def _augmentation(config: RunConfig, own: Augmentation) -> Augmentation:
    changes = {
        name: value for name in ("crop_area_min", "flip_probability") if (value := getattr(config, name)) is not None
    }
    try:
        return replace(own, **changes)
    except ValueError as error:
        raise UsageError(f"the training crops' settings contradict the data set's: {error}") from error


def _positive_int(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and int(text) else None


def run_name(plan: RunPlan, local_time: str) -> str:
    """A name that sorts by time and says what it was; local_time is like 20261124-153012."""
    return f"{local_time}-{plan.model}-{plan.device}{plan.ranks}"


def default_data(config: RunConfig) -> str:
    """The data set of a run that names none."""
    if config.data is not None:
        return config.data
    if os.path.isdir(DEFAULT_FOLDER):  # noqa: PTH112
        return DEFAULT_FOLDER
    return "photos" if config.throughput_only else "digits"
