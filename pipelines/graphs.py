"""The DALI graphs for training and evaluation, written once: the device decides where decoding and resizing run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline

from pipelines.augmentation import MEAN, STD, Augmentation, eval_resize
from pipelines.lists import ImageList

READER = "reader"
DTYPES = {"float32": types.FLOAT, "float16": types.FLOAT16}
LAYOUTS = {"nchw": "CHW", "nhwc": "HWC"}


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """How a graph runs on one rank.

    device is "cpu" (decode on the host) or "gpu" (DALI's mixed decoder); device_id is the GPU's CUDA index, None on the
    CPU. threads are DALI's worker threads of this rank. prefetch counts batches ready ahead of the consumer,
    reader_prefetch those of encoded files ahead of the decoder. hw_decoder_load is the share of images that goes to the
    GPU's JPEG engine; width_hint and height_hint (pixels, 0 for none) let the GPU decoder allocate once for the largest
    image. dtype is "float32" or "float16", layout "nchw" or "nhwc".
    """

    batch_size: int
    image_size: int
    device: str = "cpu"
    device_id: int | None = None
    threads: int = 1
    seed: int = 0
    prefetch: int = 2
    reader_prefetch: int = 2
    hw_decoder_load: float = 0.65
    width_hint: int = 0
    height_hint: int = 0
    dtype: str = "float32"
    layout: str = "nchw"

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "threads", "prefetch", "reader_prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.device not in ("cpu", "gpu"):
            raise ValueError(f"device is {self.device!r}; it must be 'cpu' or 'gpu'")
        if not 0.0 <= self.hw_decoder_load <= 1.0:
            raise ValueError(f"hw_decoder_load is {self.hw_decoder_load}; it must lie within 0 and 1")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}; it must be one of {', '.join(LAYOUTS)}")

    def decoder(self) -> dict[str, Any]:
        """The decoder's arguments: where it runs, and on a GPU how its engines and memory are used."""
        if self.device == "cpu":
            return {"device": "cpu"}
        return {
            "device": "mixed",
            "hw_decoder_load": self.hw_decoder_load,
            "preallocate_width_hint": self.width_hint,
            "preallocate_height_hint": self.height_hint,
        }


def training_graph(
    images: ImageList,
    rank: int,
    world_size: int,
    augmentation: Augmentation,
    settings: PipelineSettings,
    state: bytes | None = None,
) -> Pipeline:
    """Endless shuffled batches of this rank's shard: decode the random crop's region, resize, flip, normalise.

    The whole list is shuffled again for every pass, by a seed that all ranks share, and each rank reads its own part; a
    batch may span two passes, so that every batch is full. Outputs: images [batch, 3, size, size] (or channels last)
    and labels [batch], int64. state continues where `Pipeline.checkpoint()` of an equal graph stood.
    """

    @_pipeline(settings, settings.seed + rank, enable_checkpointing=True, checkpoint=state)  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        encoded, labels = fn.readers.file(
            name=READER,
            file_root=str(images.root),
            files=list(images.paths),
            labels=list(images.labels),
            shard_id=rank,
            num_shards=world_size,
            shuffle_after_epoch=True,
            shuffle_after_epoch_seed=settings.seed,
            prefetch_queue_depth=settings.reader_prefetch,
        )
        crops = fn.decoders.image_random_crop(
            encoded,
            output_type=types.RGB,
            random_area=[augmentation.crop_area_min, augmentation.crop_area_max],
            random_aspect_ratio=[augmentation.aspect_min, augmentation.aspect_max],
            **settings.decoder(),
        )
        # PaddleClas resizes with plain bilinear interpolation; DALI would smooth first by default.
        crops = fn.resize(
            crops,
            size=[settings.image_size, settings.image_size],
            interp_type=types.INTERP_LINEAR,
            antialias=False,
        )
        flip = fn.random.coin_flip(probability=augmentation.flip_probability)
        return _normalised(crops, settings, mirror=flip), _class_indices(labels, settings)

    return graph()


def evaluation_graph(images: ImageList, indices: Sequence[int], settings: PipelineSettings) -> Pipeline:
    """Batches of the images at indices, in that order and over again: short side resized, centre crop, normalise.

    len(indices) must be a multiple of the batch size, so that every pass begins with a batch. Outputs as in training.
    Raises ValueError otherwise.
    """
    if len(indices) % settings.batch_size:
        raise ValueError(f"{len(indices)} indices are no multiple of the batch size {settings.batch_size}")

    @_pipeline(settings, settings.seed)  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        encoded, labels = fn.readers.file(
            name=READER,
            file_root=str(images.root),
            files=[images.paths[i] for i in indices],
            labels=[images.labels[i] for i in indices],
            prefetch_queue_depth=settings.reader_prefetch,
        )
        whole = fn.decoders.image(encoded, output_type=types.RGB, **settings.decoder())
        whole = fn.resize(
            whole,
            resize_shorter=eval_resize(settings.image_size),
            interp_type=types.INTERP_LINEAR,
            antialias=False,
        )
        return _normalised(whole, settings, mirror=0), _class_indices(labels, settings)

    return graph()


def read_back(pipeline: Pipeline) -> dict[str, Any]:
    """The settings that a built pipeline reports, by PipelineSettings' names.

    hw_decoder_load is read from the decoder's own specification; None for a decoder that has none (a CPU's), or where
    this DALI doesn't tell.
    """
    specifications = "\n".join(str(operator.spec) for operator in getattr(pipeline, "_ops", ()))
    load = re.search(r"^\s*hw_decoder_load: ([0-9.eE+-]+)$", specifications, re.MULTILINE)
    return {
        "threads": pipeline.num_threads,
        "prefetch": pipeline.prefetch_queue_depth,
        "hw_decoder_load": float(load[1]) if load else None,
    }


def _pipeline(settings: PipelineSettings, seed: int, **state_options: Any) -> Any:
    return pipeline_def(
        batch_size=settings.batch_size,
        num_threads=settings.threads,
        device_id=settings.device_id,
        seed=seed,
        prefetch_queue_depth=settings.prefetch,
        **state_options,
    )


def _normalised(images: Any, settings: PipelineSettings, mirror: Any) -> Any:
    """Centre-cropped (a no-op on training crops), mirrored where asked, with the recipe's mean and deviation."""
    return fn.crop_mirror_normalize(
        images,
        crop=[settings.image_size, settings.image_size],
        mirror=mirror,
        mean=[255 * m for m in MEAN],
        std=[255 * s for s in STD],
        dtype=DTYPES[settings.dtype],
        output_layout=LAYOUTS[settings.layout],
    )


def _class_indices(labels: Any, settings: PipelineSettings) -> Any:
    """Labels as int64 [batch], on the device the images are on."""
    labels = fn.squeeze(fn.cast(labels, dtype=types.INT64), axes=0)
    return labels.gpu() if settings.device == "gpu" else labels
