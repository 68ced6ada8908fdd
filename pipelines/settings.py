"""The settings of a run's DALI graphs; their values are checked where the options are declared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from models.image_size import ImageSize, PlainSize

# Where images are decoded: on the host, or shared between the host and the GPU.
CPU_DECODER, MIXED_DECODER = "cpu", "mixed"
# What resizes and normalises them: the project's own operator for CPUs (pipelines/fused), or DALI's.
FUSED_RESIZE, DALI_RESIZE = "fused", "dali"
# What makes batches: a DALI pipeline, or PaddleClas's way, OpenCV in the worker processes of paddle.io.DataLoader.
DALI_LOADER, OPENCV_LOADER = "dali", "opencv"
# How images are cropped and resized: as published, as DALI does by default, or not cropped at all.
PADDLECLAS_CROPS, DALI_CROPS, WHOLE_IMAGES = "paddleclas", "dali", "whole"
BOTH_LOADERS = f"{DALI_LOADER},{OPENCV_LOADER}"
# The decoder's first buffers in bytes, on the GPU and on the host, as DALI's ImageNet examples set them. Without them
# DALI 2.4 begins with none, and allocates while the first batches are decoded.
DEVICE_PADDING, HOST_PADDING = 211_025_920, 140_544_512
# Shares of the images for the GPU's JPEG engine that are worth a try: none, DALI's default, and all. GPUs have between
# none and several of these engines.
HW_DECODER_LOADS = (0.0, 0.65, 1.0)


# The pixels of the largest image that is decoded, which take 0.5 GB. Above this Pillow treats an image as an attack
# (twice Image.MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """How a graph runs on one rank.

    image_size is that of the images that the network gets, see `models.image_size.PlainSize`.
    decoder is CPU_DECODER or MIXED_DECODER. decode_region: the decoder skips what lies outside a crop as far as it can;
    else it decodes the whole image, which is then cropped. device_id is the GPU's CUDA index, None without one.
    decode_threads is the number of DALI's worker threads on this rank, prefetch the number of batches that are ready
    ahead of the consumer. hw_decoder_load is the share of images decoded by the GPU's JPEG engine; width_hint and
    height_hint (pixels, 0 for none) let the GPU decoder allocate once for the largest image. dtype is "float32" or
    "float16", layout "nchw" or "nhwc". preprocessing is PADDLECLAS_CROPS, the published crop (see draw_crop) and
    resizing without smoothing; DALI_CROPS, DALI's own crop and its antialiasing; or WHOLE_IMAGES, which resizes all of
    an image to image_size without smoothing, in training and in evaluation. auto_augment adds AutoAugment to training.
    resize is FUSED_RESIZE, one operator for all that follows decoding, or DALI_RESIZE; FUSED_RESIZE needs the CPU's
    decoder, no DALI_CROPS and no AutoAugment. loader is DALI_LOADER or OPENCV_LOADER; with the second one
    workers is the number of its processes, each of which prepares prefetch batches ahead; OpenCV decodes whole images
    and resizes them, and the settings that are DALI's alone have no effect. shuffle_window is that of
    `sampling.ShardShuffle`; 0: all images are shuffled.
    cache is "ram" where their files are kept in memory.
    """

    batch_size: int
    image_size: PlainSize
    decoder: str = CPU_DECODER
    decode_region: bool = True
    device_id: int | None = None
    decode_threads: int = 1
    seed: int = 0
    prefetch: int = 2
    hw_decoder_load: float = 0.65
    width_hint: int = 0
    height_hint: int = 0
    dtype: str = "float32"
    layout: str = "nchw"
    preprocessing: str = PADDLECLAS_CROPS
    auto_augment: bool = False
    resize: str = DALI_RESIZE
    loader: str = DALI_LOADER
    workers: int = 4
    shuffle_window: int = 0
    cache: str = "none"

    @property
    def size(self) -> ImageSize:
        """Height and width of the images that the network gets."""
        return ImageSize.of(self.image_size)

    @property
    def batches_ahead(self) -> int:
        """The number of batches that the loader makes in advance."""
        return self.prefetch * (1 if self.loader == DALI_LOADER else self.workers)

    def with_opencv(self) -> PipelineSettings:
        """These settings with OPENCV_LOADER."""
        return replace(self, loader=OPENCV_LOADER, decoder=CPU_DECODER, decode_region=False, resize=OPENCV_LOADER)

    def of_rank(self, local_rank: int) -> PipelineSettings:
        """These settings for the rank of this number on its host, which has the GPU of this index, if DALI uses one."""
        return replace(self, device_id=local_rank if self.decoder == MIXED_DECODER else None)

    def decoder_arguments(self) -> dict[str, Any]:
        """The decoder's arguments: where it runs, and on a GPU how its engines and memory are used."""
        if self.decoder == CPU_DECODER:
            return {"device": self.decoder}
        return {
            "device": self.decoder,
            "hw_decoder_load": self.hw_decoder_load,
            "preallocate_width_hint": self.width_hint,
            "preallocate_height_hint": self.height_hint,
            "device_memory_padding": DEVICE_PADDING,
            "host_memory_padding": HOST_PADDING,
        }
