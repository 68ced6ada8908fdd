"""Loaders of other projects as sources of batches: Pillow, torchvision and SPDL; see `benchmarks.contestants`."""

from __future__ import annotations

import gc
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from paddle.utils import dlpack
from PIL import Image

from pipelines.augmentation import MEAN, STD, Augmentation
from pipelines.batch import Batch
from pipelines.image_lists import ImageList
from pipelines.opencv_images import Images, Item, TrainingImages, draw_crop
from pipelines.opencv_source import OpenCvSource
from pipelines.sampling import Position
from pipelines.settings import PipelineSettings

# Factors and summands by which levels of 0 to 255 are normalised, per channel.
_FACTORS = np.array([1 / (255 * deviation) for deviation in STD], np.float32)
_SUMMANDS = np.array([-mean / deviation for mean, deviation in zip(MEAN, STD, strict=True)], np.float32)


class PillowImages(Images):
    """A list's images as `Images` has them, by Pillow, which smooths as it makes them smaller.

    Not in `draft` mode, in which libjpeg would decode fewer pixels than the file has.
    """

    def __getitem__(self, item: tuple[int, int]) -> Item | None:
        if self._stopped[0]:
            return None
        index, seed = item
        prepare, rng = self.prepare, np.random.default_rng(seed)
        assert isinstance(prepare, TrainingImages)
        with Image.open(io.BytesIO(self._content(index))) as image:
            crop = draw_crop(image.height, image.width, prepare.augmentation, rng)
            box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
            resized = image.convert("RGB").resize(
                (prepare.size.width, prepare.size.height), Image.Resampling.BILINEAR, box=box
            )
        if rng.random() < prepare.augmentation.flip_probability:
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return prepare.normalised(np.asarray(resized)), self.images.labels[index], None


class PillowSource(OpenCvSource):
    """The OpenCV loader, with Pillow in its worker processes."""

    def _build(self, position: Position) -> None:
        super()._build(position)
        self._shared = self._loader.dataset = PillowImages(self._images, self._prepare)


@dataclass(frozen=True, slots=True)
class _TorchvisionImages:
    """A list's images by index, for PyTorch's loader: transformed, with their labels."""

    images: ImageList
    transform: Any

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from torchvision.io import ImageReadMode, decode_image

        picture = decode_image(f"{self.images.root}/{self.images.paths[index]}", mode=ImageReadMode.RGB)
        return self.transform(picture), self.images.labels[index]


class TorchvisionSource:
    """PyTorch's DataLoader with torchvision's decoder and transforms, as torchvision's reference training has them.

    Images are tensors from the decoder on, and smoothed as they are made smaller.
    """

    def __init__(self, images: ImageList, batches: Iterator[list[int]], settings: PipelineSettings) -> None:
        import torch
        from torch.utils.data import DataLoader
        from torchvision.transforms import v2

        limits = Augmentation()
        transform = v2.Compose([
            v2.RandomResizedCrop(
                (settings.size.height, settings.size.width),
                scale=(limits.crop_area_min, limits.crop_area_max),
                ratio=(limits.aspect_min, limits.aspect_max),
                antialias=True,
            ),
            v2.RandomHorizontalFlip(limits.flip_probability),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ])  # fmt: skip
        self._batches = iter(
            DataLoader(
                _TorchvisionImages(images, transform),
                batch_sampler=batches,
                num_workers=settings.workers,
                prefetch_factor=settings.prefetch,
                worker_init_fn=_start_worker,
            )
        )

    def __iter__(self) -> TorchvisionSource:
        return self

    def __next__(self) -> Batch:
        images, labels = next(self._batches)
        return Batch(dlpack.from_dlpack(images), dlpack.from_dlpack(labels), len(labels))

    def close(self) -> None:
        """End the worker processes."""
        del self._batches


def _start_worker(_: int) -> None:
    """Prepare a worker process of PyTorch's."""
    # Garbage of the parent stays: Paddle's and DALI's threads, which it may wait for, are not here.
    gc.freeze()
    # From 0.29 on, about its decoder, which a package of its own is to follow.
    warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)


class SpdlSource:
    """SPDL's pipeline as its examples for images write it: each thread makes a whole batch by FFmpeg."""

    def __init__(self, images: ImageList, batches: Iterator[list[int]], settings: PipelineSettings) -> None:
        from spdl.pipeline import PipelineBuilder

        self._images, self._size = images, settings.size.height
        sequence = np.random.SeedSequence(settings.seed)
        # It reports how it did, whenever it ends.
        logging.getLogger("spdl").setLevel(logging.WARNING)
        self._pipeline = (
            PipelineBuilder()
            .add_source((batch, sequence.spawn(1)[0]) for batch in batches)
            .pipe(self._loaded, concurrency=settings.decode_threads)
            .add_sink(settings.prefetch)
            .build(num_threads=settings.decode_threads, max_failures=0)
        )
        self._pipeline.start()

    def _loaded(self, item: tuple[Sequence[int], np.random.SeedSequence]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The images [batch, 3, size, size] and labels [batch] at these places of the list."""
        import spdl.io

        batch, seed = item
        rng = np.random.default_rng(seed)
        paths = (f"{self._images.root}/{self._images.paths[index]}" for index in batch)
        pictures = spdl.io.to_numpy(spdl.io.convert_frames([self._decoded(path, rng) for path in paths]))
        normalised = np.empty((len(batch), 3, self._size, self._size), np.float32)
        for channel in range(3):
            np.multiply(pictures[..., channel], _FACTORS[channel], out=normalised[:, channel])
            normalised[:, channel] += _SUMMANDS[channel]
        return normalised, np.array([self._images.labels[index] for index in batch], np.int64)

    def _decoded(self, path: str, rng: np.random.Generator) -> Any:
        """An image's random region, resized and mirrored at random by FFmpeg's filters."""
        import spdl.io

        packets, limits = spdl.io.demux_image(path), Augmentation()
        crop = draw_crop(packets.codec.height, packets.codec.width, limits, rng)
        filters = [
            f"crop={crop.width}:{crop.height}:{crop.left}:{crop.top}:exact=1",
            f"scale={self._size}:{self._size}:flags=bilinear",
            *(["hflip"] if rng.random() < limits.flip_probability else []),
            "format=pix_fmts=rgb24",
        ]
        return spdl.io.decode_packets(packets, filter_desc=",".join(filters))

    def __iter__(self) -> SpdlSource:
        return self

    def __next__(self) -> Batch:
        images, labels = self._pipeline.get_item()
        return Batch(dlpack.from_dlpack(images), dlpack.from_dlpack(labels), len(labels))

    def close(self) -> None:
        """End the pipeline and its threads."""
        self._pipeline.stop()
