"""What a data set's files are like: a throughput means little without the size of the images."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from pipelines.image_lists import ImageList, spread


@dataclass(frozen=True, slots=True)
class DataProfile:
    """The sizes of a data set's files.

    Bytes are over all images. Pixels are over the sampled_images whose header could be read, and None if there were
    none; bits_per_pixel is 8 * bytes / pixels over the same images, so that large images have the same weight as in
    decoding. Raises ValueError if the figures contradict each other.
    """

    images: int
    mean_bytes: float
    total_bytes: int
    sampled_images: int
    mean_width_pixels: float | None
    mean_height_pixels: float | None
    bits_per_pixel: float | None

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"{self.images} images; a profile needs at least 1")
        if not 0 <= self.sampled_images <= self.images:
            raise ValueError(f"{self.sampled_images} of {self.images} images sampled")
        pixels = (self.mean_width_pixels, self.mean_height_pixels, self.bits_per_pixel)
        if any((figure is None) != (self.sampled_images == 0) for figure in pixels):
            raise ValueError(f"{self.sampled_images} images sampled, but pixel figures are {pixels}")


def _dimensions(images: ImageList, index: int) -> tuple[int, int] | None:
    """Width and height in pixels from the header of an image, or None if Pillow can't read them."""
    try:
        path = images.file(index)
        # Checked before opening, as opening a pipe would wait for its other end.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return None
        # Of files of their own, the header is read and nothing else.
        source = path if images.extents is None else BytesIO(images.content(index))
        with Image.open(source) as image:
            return image.width, image.height
    except Exception:
        # With damaged headers the parsers raise almost anything; the command verify reports files that can't be read.
        return None


def _sampled(image_list: ImageList, samples: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Index, and width and height in pixels, of images spread evenly over the list whose headers can be read."""
    pixel_limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and refuses very large images to guard a decoder; only headers are read here.
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            for index in spread(len(image_list), samples):
                size = _dimensions(image_list, index)
                if size is not None:
                    yield index, size
        finally:
            Image.MAX_IMAGE_PIXELS = pixel_limit


def largest_dimensions(image_list: ImageList, samples: int = 512) -> tuple[int, int]:
    """Returns the largest width and the largest height in pixels of at most `samples` images; 0 if none can be read."""
    sizes = [size for _, size in _sampled(image_list, samples)]
    return max((width for width, _ in sizes), default=0), max((height for _, height in sizes), default=0)


def profile(image_list: ImageList, sizes_bytes: Sequence[int], samples: int = 512) -> DataProfile:
    """Describe the files; sizes_bytes holds each file's bytes in the list's order, as check_files returns them.

    Dimensions come from the headers of at most `samples` images spread evenly over the list, which for ImageNet gives
    the mean to about 1 %. Raises ValueError for an empty list, a missing size or samples below 1.
    """
    if not image_list:
        raise ValueError("0 images; a profile needs at least 1")
    if len(sizes_bytes) != len(image_list):
        raise ValueError(f"{len(image_list)} images, but {len(sizes_bytes)} sizes")
    if samples < 1:
        raise ValueError(f"samples is {samples}; it must be at least 1")

    images = len(image_list)
    widths = heights = pixels = sampled_bytes = sampled = 0
    for index, (width, height) in _sampled(image_list, samples):
        sampled += 1
        widths += width
        heights += height
        pixels += width * height
        sampled_bytes += sizes_bytes[index]
    total_bytes = sum(sizes_bytes)
    return DataProfile(
        images=images,
        mean_bytes=total_bytes / images,
        total_bytes=total_bytes,
        sampled_images=sampled,
        mean_width_pixels=widths / sampled if sampled else None,
        mean_height_pixels=heights / sampled if sampled else None,
        bits_per_pixel=8 * sampled_bytes / pixels if sampled else None,
    )
