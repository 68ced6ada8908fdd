"""The DALI graphs for training and evaluation, written once: the device decides where decoding and resizing run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline

from pipelines import auto_augment
from pipelines.augmentation import MEAN, STD, Augmentation, eval_cover
from pipelines.crops import draw_crop, middle
from pipelines.errors import LoaderError
from pipelines.graph_settings import WHOLE_FLIP
from pipelines.quick_loading import quick_loading
from pipelines.settings import (
    CPU_DECODER,
    DALI_CROPS,
    FUSED_RESIZE,
    MAX_PIXELS,
    WHOLE_IMAGES,
    PipelineSettings,
)

DTYPES = {"float32": types.FLOAT, "float16": types.FLOAT16}
LAYOUTS = {"nchw": "CHW", "nhwc": "HWC"}
# The number of a file's first bytes that identify its format.
SIGNATURE_BYTES = 16
Files = Callable[[], Sequence[npt.NDArray[np.uint8]]]
# What DALI calls for each batch; it returns the files' names, as bytes [length], and their labels [batch, 1].
Feed = Callable[[], tuple[Sequence[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Contents:
    """What names files, a feed or Files, where it returns the files' contents [length] in place of their names.

    All arrays that a feed returns must stay as they are until the pipeline has returned their batch.
    """

    following: Callable[[], Any]

    def __call__(self) -> Any:
        """The next batch."""
        return self.following()


def training_graph(
    feed: Feed, augmentation: Augmentation, settings: PipelineSettings, seed: int, state: bytes | None = None
) -> Pipeline:
    """The batches that feed names: decode a random crop, resize, flip, AutoAugment if asked for, normalise.

    Outputs: images [batch, 3, height, width] (or channels last) and labels [batch], int64. seed is that of all random
    numbers. state, from `Pipeline.checkpoint()` of an equal graph, continues their sequence; feed must continue by
    itself.
    """
    options = {"enable_checkpointing": True, "checkpoint": state, "enable_conditionals": settings.auto_augment}

    @_pipeline(settings, seed, **options)  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        encoded, labels = _files(feed, settings)
        return prepared_for_training(encoded, augmentation, settings), _class_indices(labels, settings)

    return graph()


def prepared_for_training(encoded: Any, augmentation: Augmentation, settings: PipelineSettings) -> Any:
    """Decode a random region of each encoded file, resize, flip and normalise it, within a graph.

    Where preprocessing is WHOLE_IMAGES the region is all of the image. With auto_augment the graph must be made with
    enable_conditionals.
    """
    # In pixels, although the published crop's values have a floating-point type.
    region: dict[str, Any] = {"normalized_anchor": False, "normalized_shape": False, "axis_names": "HW"}
    fused = _fused_operators() if settings.resize == FUSED_RESIZE else None
    if settings.preprocessing == WHOLE_IMAGES:
        whole = _decoded(encoded, _height_and_width(encoded), settings)
        if fused is not None:
            return fused.prepared(whole, settings, _flip(augmentation, WHOLE_FLIP))
        return _finished(whole, augmentation, settings, name=WHOLE_FLIP)
    if fused is not None:
        anchor, shape, mirror, excess = fused.drawn_crops(fn.peek_image_shape(encoded, dtype=types.INT32), augmentation)
        # As in _height_and_width, slicing fails for an image that is too large.
        anchor = fn.slice(anchor, excess, 2, axes=[0])
        of_header = anchor
    else:
        of_header = _height_and_width(encoded)
        anchor, shape = draw_crop(of_header, augmentation, settings.preprocessing)
    if settings.decode_region:
        crops = fn.decoders.image_slice(encoded, anchor, shape, **region, **_as_rgb(settings))
    else:
        crops = fn.slice(_decoded_whole(encoded, of_header, settings), anchor, shape, **region)
    if fused is not None:
        return fused.prepared(crops, settings, mirror)
    return _finished(crops, augmentation, settings)


def evaluation_graph(feed: Feed, settings: PipelineSettings) -> Pipeline:
    """The batches that feed names: resize, centre crop, normalise. Outputs as in training.

    An image is resized until it just covers `eval_cover`. The sides, the sampled places and the crop's place are those
    of PaddleClas's ResizeImage and CropImage, except where the long side comes to exactly a half pixel (short sides
    that are a multiple of 512): DALI rounds it up, Python to the even number. Where preprocessing is WHOLE_IMAGES all
    of the image is resized to the whole result.
    """

    @_pipeline(settings, settings.seed)  # type: ignore[untyped-decorator]
    def graph() -> tuple[Any, Any]:
        encoded, labels = _files(feed, settings)
        size = _height_and_width(encoded)
        whole = _decoded(encoded, size, settings)
        cover = None if settings.preprocessing == WHOLE_IMAGES else eval_cover(settings.size)
        if settings.resize == FUSED_RESIZE:
            images = _fused_operators().prepared(whole, settings, 0, cover)
        elif cover is None:
            images = _normalised(_resized_whole(whole, settings), settings, mirror=0)
        else:
            covering = {**middle(size, settings.size), "size": cover, "mode": "not_smaller"}
            images = _normalised(_resized(whole, settings, **covering), settings, mirror=0)
        return images, _class_indices(labels, settings)

    return graph()


def decoding_graph(names: Files, settings: PipelineSettings) -> Pipeline:
    """The files that names returns, decoded whole and not resized: images [height, width, 3].

    Nothing is prepared in advance, so that the graph can continue after a batch that fails.
    """

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=settings.batch_size,
        num_threads=settings.decode_threads,
        device_id=settings.device_id,
        # One batch at a time: see _height_and_width on what a second failing batch does.
        prefetch_queue_depth=1,
        exec_async=False,
        exec_pipelined=False,
    )
    def graph() -> Any:
        files = fn.external_source(source=names, batch=True, dtype=types.UINT8, ndim=1)
        encoded = _read(files, names)
        return _decoded(encoded, _height_and_width(encoded), replace(settings, decode_region=False))

    return graph()


def checking_graph(names: Files, settings: PipelineSettings, max_pixels: int) -> Pipeline:
    """The files that names returns, until it raises StopIteration, decoded whole unless larger than max_pixels.

    Outputs: images [height, width, 3] (one black pixel in place of those that are larger), their height and width [2]
    as int32, and the file's first bytes [SIGNATURE_BYTES], with zeros after its end.
    """

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=settings.batch_size,
        num_threads=settings.decode_threads,
        device_id=settings.device_id,
        prefetch_queue_depth=settings.prefetch,
        enable_conditionals=True,
    )
    def graph() -> tuple[Any, Any, Any]:
        encoded = _read(fn.external_source(source=names, batch=True, dtype=types.UINT8, ndim=1), names)
        size = fn.slice(fn.peek_image_shape(encoded, dtype=types.INT32), 0, 2, axes=[0])
        # The product of two sizes may be beyond int32.
        if fn.cast(size[0], dtype=types.INT64) * size[1] > max_pixels:
            image = types.Constant(np.zeros((1, 1, 3), np.uint8), layout="HWC", device="cpu")
        else:
            image = fn.decoders.image(encoded, output_type=types.RGB, device="cpu")
        signature = fn.slice(encoded, 0, SIGNATURE_BYTES, axes=[0], out_of_bounds_policy="pad")
        return image, size, signature

    return graph()


def _files(feed: Feed, settings: PipelineSettings) -> tuple[Any, Any]:
    """The encoded files that feed names, and their labels."""
    # Who feeds contents keeps them until their batch is returned. A GPU's decoder may still read them then.
    kept: dict[str, Any] = {"no_copy": True} if isinstance(feed, Contents) and settings.decoder == CPU_DECODER else {}
    files, labels = fn.external_source(
        source=feed, num_outputs=2, batch=True, dtype=[types.UINT8, types.INT64], ndim=[1, 1], **kept
    )
    return _read(files, feed), labels


def _read(files: Any, named_by: Callable[[], Any]) -> Any:
    """The contents of files, which named_by returns already if it is a Contents."""
    if isinstance(named_by, Contents):
        return files
    # With mmap, a file that becomes shorter while it is read would end the process (SIGBUS).
    return fn.io.file.read(files, dont_use_mmap=True)


def _height_and_width(encoded: Any) -> Any:
    """The height and width [2] of each image, from its header; slicing fails for one of more than MAX_PIXELS.

    Decoders that depend on them never see a file whose header can't be read, or whose pixels would need gigabytes. With
    DALI 2.4's dynamic executor, successive batches in which decoders fail on such files can end the process
    (segmentation fault).
    """
    shape = fn.peek_image_shape(encoded, dtype=types.INT32)
    # The product of two sizes may be beyond int32. Of the shape's three numbers there are no two after the first two.
    too_large = fn.cast(shape[0], dtype=types.INT64) * shape[1] > MAX_PIXELS
    return fn.slice(shape, 2 * fn.cast(too_large, dtype=types.INT32), 2, axes=[0])


def _decoded(encoded: Any, size: Any, settings: PipelineSettings) -> Any:
    """The whole images, decoded after their headers were read: size is the height and width [2] from each header."""
    if settings.decode_region:
        return fn.decoders.image_slice(encoded, start=[0, 0], shape=size, axis_names="HW", **_as_rgb(settings))
    return _decoded_whole(encoded, size, settings)


def _decoded_whole(encoded: Any, of_header: Any, settings: PipelineSettings) -> Any:
    """The whole images by the decoder that takes no region; of_header are whole numbers that follow from the header."""
    # It takes no size, but bytes that are cut at a place which depends on it.
    return fn.decoders.image(fn.slice(encoded, start=0 * of_header[0], axes=[0]), **_as_rgb(settings))


def _as_rgb(settings: PipelineSettings) -> dict[str, Any]:
    return {"output_type": types.RGB, **settings.decoder_arguments()}


def _pipeline(settings: PipelineSettings, seed: int, **state_options: Any) -> Any:
    if settings.resize == FUSED_RESIZE:
        # numba keeps errors that it met when it was loaded, with all frames that were there: none of a graph may be.
        _fused_operators()
    return pipeline_def(
        batch_size=settings.batch_size,
        num_threads=settings.decode_threads,
        device_id=settings.device_id,
        seed=seed,
        prefetch_queue_depth=settings.prefetch,
        **state_options,
    )


def _fused_operators() -> ModuleType:
    """The module with our own operators. Raises LoaderError when numba can't be loaded."""
    # Only where it is used, as numba takes half a second and need not be installed.
    try:
        with quick_loading():
            from pipelines.fused import operator
    except ImportError as error:
        raise LoaderError(f"numba, which resizes images, can't be loaded: {error}", "Use --resize dali.") from error
    return operator


def _flip(augmentation: Augmentation, name: str | None) -> Any:
    return fn.random.coin_flip(probability=augmentation.flip_probability, name=name)


def _finished(crops: Any, augmentation: Augmentation, settings: PipelineSettings, name: str | None = None) -> Any:
    """Resize what training uses of images, flip it, AutoAugment if asked for, and normalise, by DALI's operators.

    name is that of the operator that draws flips.
    """
    crops = _resized_whole(crops, settings)
    # Drawn after resizing: the order of operators decides their seeds.
    flip = _flip(augmentation, name)
    if settings.auto_augment:
        # As in PaddleClas, rotations and shears apply to the flipped image.
        return _normalised(auto_augment.augmented(fn.flip(crops, horizontal=flip)), settings, mirror=0)
    return _normalised(crops, settings, mirror=flip)


def _resized_whole(images: Any, settings: PipelineSettings) -> Any:
    return _resized(images, settings, size=[settings.size.height, settings.size.width])


def _resized(images: Any, settings: PipelineSettings, **size: Any) -> Any:
    """Resize by bilinear interpolation, as OpenCV does; DALI's preprocessing smooths first, fn.resize's default."""
    return fn.resize(
        images,
        interp_type=types.INTERP_LINEAR,
        antialias=settings.preprocessing == DALI_CROPS,
        # The whole image becomes the whole result, although its longer side was rounded to whole pixels.
        subpixel_scale=False,
        **size,
    )


def _normalised(images: Any, settings: PipelineSettings, mirror: Any) -> Any:
    """Crop the centre (a no-op on training crops), mirror if asked, and normalise by the recipe's mean and deviation.

    When the number of excess pixels is odd, the right and the bottom lose one more, as in PaddleClas's CropImage.
    """
    return fn.crop_mirror_normalize(
        images,
        crop=[settings.size.height, settings.size.width],
        rounding="truncate",
        mirror=mirror,
        mean=[255 * m for m in MEAN],
        std=[255 * s for s in STD],
        dtype=DTYPES[settings.dtype],
        output_layout=LAYOUTS[settings.layout],
    )


def _class_indices(labels: Any, settings: PipelineSettings) -> Any:
    """Labels as int64 [batch], on the same device as the images."""
    labels = fn.squeeze(labels, axes=0)
    return labels if settings.decoder == CPU_DECODER else labels.gpu()
