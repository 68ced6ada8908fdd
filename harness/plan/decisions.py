"""Decides everything that a configuration leaves open: the published recipe on these devices and this data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from harness.machine.device_kinds import ON, DeviceKind, device_kind
from harness.machine.host import available_cores
from harness.plan.declaration import AUTO
from harness.plan.notes import notes_of, notes_of_weights
from harness.plan.option_groups.training import SYNC
from harness.plan.options import RunConfig
from harness.plan.placement import decide_placement
from harness.plan.plan import DEFAULT_FOLDER, DataFacts, Decoding, OperationPlan, RunPlan, TrainingPlan, WindowPlan
from harness.plan.published import recipe_learning_rate, recipe_lr_warmup
from models.fitting import WeightsFile
from models.notes import Note
from models.sizes import SIZES
from models.words import count_of
from pipelines.augmentation import Augmentation
from pipelines.fused.fit import NOT_INSTALLED, obstacle
from pipelines.settings import (
    BOTH_LOADERS,
    CPU_DECODER,
    DALI_LOADER,
    DALI_RESIZE,
    FUSED_RESIZE,
    MIXED_DECODER,
    OPENCV_LOADER,
    WHOLE_IMAGES,
    PipelineSettings,
)
from pipelines.sharding import steps_per_epoch

MAX_DECODE_THREADS = 8  # with more, DALI's threads compete with the training's


def make_plan(
    config: RunConfig,
    devices: Devices,
    data: DataFacts,
    environment: Mapping[str, str],
    decoding: Decoding | None = None,
    pretrained: WeightsFile | None = None,
) -> RunPlan:
    """Decide everything that the configuration leaves open.

    decoding is what a trial of the GPUs' decoder found; None without one. pretrained describes the file of initial
    weights; None without one, and where it isn't read.

    Raises UsageError when the batch is larger than a rank's share of the images or the warm-up is as long as the run,
    MachineError for what these devices can't do.
    """
    kind, decoding = device_kind(devices.kind), decoding or Decoding()
    _refuse_what_lacks(config, kind)
    ranks = devices.count * config.nnodes
    batch_size, notes = _batch_size(config, kind, ranks, data)
    step_images = batch_size * config.accumulation_steps
    # An evaluation reads no training images.
    epoch_steps = steps_per_epoch(data.train_images, ranks, step_images) if data.train_images else 0
    placement, placement_notes = decide_placement(config.affinity, devices, environment)
    share = placement.cores_per_rank(available_cores(), devices.count)
    if config.shuffle_window is not None and not data.shards:
        raise UsageError(
            f"--shuffle-window is for images in shards, and those of {data.name} are files of their own",
            "Omit it, or pack them: run_bench.py pack.",
        )
    pipeline, pipeline_notes = _pipeline(config, kind, decoding, batch_size, share)
    plan = RunPlan(
        kind=config.kind,
        model=config.model,
        device=devices.kind,
        device_name=devices.name,
        ranks=ranks,
        nodes=config.nnodes,
        data=replace(data, augmentation=_augmentation(config, data.augmentation)),
        pipeline=pipeline,
        placement=placement,
        compares_loaders=config.loader == BOTH_LOADERS,
        training=TrainingPlan(
            epochs=config.epochs,
            steps_per_epoch=epoch_steps,
            learning_rate=config.learning_rate or recipe_learning_rate(step_images * ranks),
            lr_warmup_epochs=_given(config.lr_warmup_epochs, recipe_lr_warmup(config.epochs)),
            momentum=config.momentum,
            weight_decay=SIZES[config.model].weight_decay if config.weight_decay is None else config.weight_decay,
            label_smoothing=config.label_smoothing,
            accumulation_steps=config.accumulation_steps,
            bn_stats=config.bn_stats,
            amp=config.amp,
            amp_level=config.amp_level or "O1",
            to_static=config.to_static,
            compute_threads=config.compute_threads or _positive_int(environment.get("OMP_NUM_THREADS")) or share,
            pretrained=config.pretrained,
            pretrained_head=config.pretrained_head if pretrained is None else pretrained.head,
            amp_depthwise=config.amp_depthwise,
            master_grad=config.master_grad,
            tf32=config.tf32,
            strides=config.strides,
        ),
        window=_window(config, kind, epoch_steps),
        operation=OperationPlan(
            stall_timeout=config.stall_timeout,
            rendezvous_timeout=config.rendezvous_timeout,
            checkpoint_minutes=config.checkpoint_minutes,
            telemetry_interval=config.telemetry_interval,
            bad_images=config.bad_images,
            max_bad_images=config.max_bad_images,
            max_bad_share=config.max_bad_share,
            telemetry_library=config.telemetry_library,
            profile=config.profile,
        ),
    )
    of_weights = () if pretrained is None else notes_of_weights(pretrained, data.num_classes)
    return replace(plan, notes=(*notes, *pipeline_notes, *placement_notes, *of_weights, *notes_of(plan)))


def _pipeline(
    config: RunConfig, kind: DeviceKind, decoding: Decoding, batch_size: int, cores: int
) -> tuple[PipelineSettings, tuple[str, ...]]:
    """The loader's settings, for a rank with this number of cores, and notes on what is slower than it could be."""
    decoder = config.decoder if config.decoder != AUTO else CPU_DECODER if decoding.obstacle else kind.decoder
    published = SIZES[config.model].auto_augment
    pipeline = PipelineSettings(
        batch_size=batch_size,
        image_size=config.image_size,
        decoder=decoder,
        decode_region=(
            decoder == CPU_DECODER and config.preprocessing != WHOLE_IMAGES
            if config.decode_region == AUTO
            else config.decode_region == ON
        ),
        decode_threads=config.decode_threads or min(MAX_DECODE_THREADS, cores),
        seed=config.seed,
        prefetch=config.prefetch,
        hw_decoder_load=_given(config.hw_decoder_load, decoding.hw_decoder_load),
        width_hint=_given(config.width_hint, decoding.width_hint),
        height_hint=_given(config.height_hint, decoding.height_hint),
        # Half the bytes. DALI has no bfloat16: the device converts, and float16 keeps all levels of a pixel apart.
        dtype="float32" if config.amp == "off" else "float16",
        layout=config.layout,
        preprocessing=config.preprocessing,
        auto_augment=published if config.auto_augment is None else config.auto_augment,
        workers=config.workers,
        shuffle_window=config.shuffle_window or 0,
        cache=config.cache,
    )
    if config.loader == OPENCV_LOADER:
        return pipeline.with_opencv(), ()
    notes = []
    if config.decoder == AUTO and decoding.obstacle:
        notes.append(
            Note(
                f"images are decoded on the CPU, as the GPUs' decoder can't be used: {decoding.obstacle}",
                "--decoder cpu says so without a trial; run_bench.py doctor --gpu-day 1 tries the decoder.",
            )
        )
    why_not = obstacle(pipeline)
    if config.resize == FUSED_RESIZE and why_not:
        raise UsageError(f"--resize fused can't be used: {why_not}", "Omit it to resize with DALI.")
    if config.resize == AUTO and why_not == NOT_INSTALLED:
        notes.append(
            Note(
                f"images are resized by DALI, which is slower, as {why_not}",
                "Install it: pip install numba. --resize dali says so without a note.",
            )
        )
    fused = config.resize != DALI_RESIZE and not why_not
    return replace(pipeline, resize=FUSED_RESIZE if fused else DALI_RESIZE), tuple(notes)


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _refuse_what_lacks(config: RunConfig, kind: DeviceKind) -> None:
    if config.decoder == MIXED_DECODER != kind.decoder:
        raise MachineError(
            f"--decoder mixed needs GPUs: DALI has no decoder for {kind.plural}", "Omit it to decode on the CPU."
        )
    if config.loader != DALI_LOADER and find_spec("cv2") is None:
        raise MachineError(
            f"--loader {config.loader} needs OpenCV, which is not installed",
            "Install it (pip install opencv-python-headless), or use --loader dali.",
        )
    for refused, name, lacking in (
        (config.amp != "off" and not kind.sixteen_bit, f"--amp {config.amp}", f"{config.amp} convolutions"),
        (config.tf32 is not None and not kind.cudnn, f"--tf32 {config.tf32}", "TF32"),
        (config.bn_stats == SYNC and not kind.sync_batch_norm, "--bn-stats sync", "synchronised batch norm"),
    ):
        if refused:
            raise MachineError(
                f"{name} needs GPUs: Paddle has no {lacking} for {kind.plural}", "Omit it to train without."
            )


def _window(config: RunConfig, kind: DeviceKind, epoch_steps: int) -> WindowPlan:
    total = config.epochs * epoch_steps if config.kind.in_epochs else None
    warmup = config.warmup
    if warmup is None:
        # Longer than the batches last that DALI decodes ahead while the first steps are slow.
        warmup = max(kind.warmup_steps, config.prefetch + 1)
        # A short run keeps three quarters of its steps for measuring.
        warmup = warmup if total is None else min(warmup, total // 4)
    elif total is not None and warmup >= total:
        raise UsageError(
            f"--warmup {warmup} leaves nothing to measure: the run has {count_of(total, 'step')}"
            f" ({count_of(config.epochs, 'epoch')} of {epoch_steps})",
            f"Use --warmup {total - 1} or less, or more --epochs.",
        )
    if total is not None and config.profile is not None and warmup + config.profile > total:
        raise UsageError(
            f"--profile {config.profile} is more than the {count_of(total - warmup, 'training step')} after a warm-up"
            f" of {warmup}",
            "Trace fewer steps, or train for more --epochs.",
        )
    return WindowPlan(warmup, config.warmup is not None, config.target_ci, config.max_seconds, config.phases)


def _batch_size(config: RunConfig, kind: DeviceKind, ranks: int, data: DataFacts) -> tuple[int, tuple[str, ...]]:
    """Images per rank and batch, and a note if a small data set makes them fewer than the default."""
    usual = kind.batch_size
    if not config.kind.in_epochs:
        # A throughput run draws images without end; an evaluation fills a batch up with images that are not counted.
        return config.batch_size or usual, ()
    shard = -(-data.train_images // ranks)  # the largest one; a smaller one repeats its first images
    images, over = count_of(data.train_images, "training image"), count_of(ranks, "rank")
    few = f"{images} of {data.name} over {over} leave at most {shard} each"
    if data.train_images < ranks:
        raise UsageError(f"fewer training images than ranks: {images}, {over}", "Use fewer --gpus.")
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
            f"{several} of {count_of(wanted, 'image')} is larger than a rank's shard: {few}",
            f"Use --batch-size {largest} or less, or fewer --gpus.",
        )
    if config.batch_size is None and wanted < usual:
        return wanted, (f"batch of {count_of(wanted, 'image')} per rank, not {usual}: {few}",)
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
    """A run's name, which sorts by time and states model, device and ranks; local_time is like 20261124-153012."""
    return f"{local_time}-{plan.model}-{plan.device}{plan.ranks}"


def default_data(config: RunConfig) -> str:
    """The data set of a run: --data, or what is used without it."""
    if config.data is not None:
        return config.data
    if config.image_root is not None:
        return config.image_root
    if (listed := config.train_list or config.val_list) is not None:
        return os.path.dirname(listed) or "."  # noqa: PTH120
    # pathlib would raise for a folder that can't be accessed.
    return DEFAULT_FOLDER if os.path.isdir(DEFAULT_FOLDER) else config.kind.default_data  # noqa: PTH112
