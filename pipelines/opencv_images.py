"""Single images as PaddleClas prepares them with OpenCV: what a loader's worker processes do."""

from __future__ import annotations

import gc
import io
import math
import mmap
import multiprocessing
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import simplejpeg
from paddle.io import get_worker_info
from PIL import Image

from models.image_size import ImageSize
from pipelines.augmentation import MEAN, STD, Augmentation, eval_cover
from pipelines.crops import MAX_ASPECT
from pipelines.errors import LoaderError
from pipelines.free_blocks import use_up_large_free_blocks
from pipelines.image_lists import ImageList
from pipelines.jpeg_data import START_OF_IMAGE, with_end
from pipelines.settings import MAX_PIXELS, WHOLE_IMAGES, PipelineSettings

try:
    import cv2
except ImportError as _error:
    raise LoaderError(
        "opencv-python-headless is not installed" if _error.name == "cv2" else f"OpenCV can't be loaded: {_error}",
        "Install it (pip install opencv-python-headless), or use --loader dali.",
    ) from _error

Picture = npt.NDArray[np.uint8]
# What levels are multiplied by, and the mean and deviation of each channel.
_SCALE = np.float32(1 / 255)
_MEAN, _STD = (np.array(values, np.float32) for values in (MEAN, STD))
# Signals that ask a run to end. They may come to all of its processes; a worker ends when its parent says so.
_OF_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# What a worker sends to itself.
_PARENT_ENDED = signal.SIGRTMIN
# How long the batch that is on its way into shared memory may take: a worker that ends meanwhile may leave it there.
LAST_BATCH_SECONDS = 1.0
MAX_REASON = 200


class Prepare(Protocol):
    """Makes a network's input of a picture; see `training_images` and `evaluation_images`."""

    def __call__(self, picture: Picture, rng: np.random.Generator) -> npt.NDArray[Any]:
        """The input of a picture [height, width, 3], R, G, B."""

    def blank(self) -> npt.NDArray[Any]:
        """Zeros in the shape and type of an input."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A region of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_crop(height: int, width: int, augmentation: Augmentation, rng: np.random.Generator) -> Crop:
    """Draw a region of an image of this height and width in pixels, as PaddleClas's RandCropImage does.

    See `crops.draw_crop`. Where only the largest crop that fits is allowed, double precision may lose a pixel of a
    side, as it does in PaddleClas.
    """
    aspect = math.sqrt(rng.uniform(augmentation.aspect_min, augmentation.aspect_max))
    largest = min(width / height / aspect**2, height / width * aspect**2)
    share = rng.uniform(min(augmentation.crop_area_min, largest), min(augmentation.crop_area_max, largest))
    side = math.sqrt(width * height * share)
    crop_height, crop_width = max(1, int(side / aspect)), max(1, int(side * aspect))
    left = int(rng.integers(0, width - crop_width, endpoint=True))
    top = int(rng.integers(0, height - crop_height, endpoint=True))
    return Crop(top, left, crop_height, crop_width)


@dataclass(frozen=True, slots=True)
class _Output:
    """An image of a size as the network reads it."""

    size: ImageSize
    dtype: str
    layout: str

    def normalised(self, picture: Picture) -> npt.NDArray[Any]:
        """The picture [height, width, 3] in this layout and type, (x * (1 / 255) - mean) / deviation in float32.

        In PaddleClas's order, pixel by pixel. Plane by plane would take a sixth of the time, but this is the loader
        that others are compared with.
        """
        pixels = (picture.astype(np.float32) * _SCALE - _MEAN) / _STD
        ordered = pixels.transpose(2, 0, 1) if self.layout == "nchw" else pixels
        return np.asarray(ordered.astype(self.dtype, order="C", copy=False))

    def blank(self) -> npt.NDArray[Any]:
        """Zeros in the shape and type of an input."""
        return np.zeros(self.size.of_images(3, self.layout), self.dtype)


@dataclass(frozen=True, slots=True)
class TrainingImages(_Output):
    """PaddleClas's RandCropImage, RandFlipImage and NormalizeImage; see `training_images`."""

    augmentation: Augmentation

    def __call__(self, picture: Picture, rng: np.random.Generator) -> npt.NDArray[Any]:
        """The input of a picture [height, width, 3], R, G, B; the crop and the flip follow from rng."""
        height, width = picture.shape[:2]
        crop = draw_crop(height, width, self.augmentation, rng)
        region = picture[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        resized = _resized(region, self.size.height, self.size.width)
        flipped = rng.random() < self.augmentation.flip_probability
        return self.normalised(resized[:, ::-1] if flipped else resized)


@dataclass(frozen=True, slots=True)
class EvaluationImages(_Output):
    """PaddleClas's ResizeImage, CropImage and NormalizeImage; see `evaluation_images`."""

    def __call__(self, picture: Picture, rng: np.random.Generator) -> npt.NDArray[Any]:  # noqa: ARG002
        """The input of a picture [height, width, 3], R, G, B; nothing is random."""
        picture = _middle(picture, self.size)
        height, width = picture.shape[:2]
        cover_height, cover_width = eval_cover(self.size)
        share = max(cover_height / height, cover_width / width)
        resized = _resized(picture, round(height * share), round(width * share))
        top, left = (resized.shape[0] - self.size.height) // 2, (resized.shape[1] - self.size.width) // 2
        return self.normalised(resized[top : top + self.size.height, left : left + self.size.width])


@dataclass(frozen=True, slots=True)
class WholeImages(_Output):
    """PaddleClas's ResizeImage to a height and width, RandFlipImage and NormalizeImage."""

    flip_probability: float = 0.0

    def __call__(self, picture: Picture, rng: np.random.Generator) -> npt.NDArray[Any]:
        """The input of a picture [height, width, 3], R, G, B; the flip follows from rng."""
        resized = _resized(picture, self.size.height, self.size.width)
        return self.normalised(resized[:, ::-1] if rng.random() < self.flip_probability else resized)


def training_images(augmentation: Augmentation, settings: PipelineSettings) -> TrainingImages | WholeImages:
    """How training images are prepared: a random crop, resized bilinearly, flipped at random, and normalised.

    An image becomes [3, height, width], or [height, width, 3] with settings.layout "nhwc", of settings.dtype. Where
    settings.preprocessing is WHOLE_IMAGES the whole image takes the crop's place.
    """
    if settings.preprocessing == WHOLE_IMAGES:
        return WholeImages(settings.size, settings.dtype, settings.layout, augmentation.flip_probability)
    return TrainingImages(settings.size, settings.dtype, settings.layout, augmentation)


def evaluation_images(settings: PipelineSettings) -> EvaluationImages | WholeImages:
    """How evaluation images are prepared: resized bilinearly, cropped at the centre and normalised.

    A resized image just covers `eval_cover`; both sides are rounded as Python does. Of an image that is longer or wider
    than MAX_ASPECT allows only the middle is resized. Where settings.preprocessing is WHOLE_IMAGES the image is resized
    to the whole result. The result is as of `training_images`.
    """
    if settings.preprocessing == WHOLE_IMAGES:
        return WholeImages(settings.size, settings.dtype, settings.layout)
    return EvaluationImages(settings.size, settings.dtype, settings.layout)


def _resized(picture: Picture, height: int, width: int) -> Picture:
    resized: Picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def _middle(picture: Picture, crop: ImageSize) -> Picture:
    """All of a picture, unless it is longer or wider than MAX_ASPECT allows for the crop; see `crops.middle`."""
    height, width = picture.shape[:2]
    short = MAX_ASPECT * min(height * crop.width, width * crop.height)
    top, left = max(0, height - short // crop.width) // 2, max(0, width - short // crop.height) // 2
    return picture[top : height - top, left : width - left]


def decoded(content: bytes) -> Picture:
    """The picture [height, width, 3], R, G, B, in a file's content, turned as its EXIF orientation says.

    A JPEG that lacks only its end marker (see `jpeg_data`) is decoded, too. Raises ValueError for more than MAX_PIXELS
    pixels and where OpenCV finds no image, and cv2.error.
    """
    if _pixels(content) > MAX_PIXELS:
        raise ValueError(f"it has more than {MAX_PIXELS:,} pixels")
    picture = _bgr(content)
    if picture is None and (ended := with_end(content)) is not None:
        picture = _bgr(ended)
    if picture is None:
        raise ValueError("it finds no image in the file")
    rgb: Picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return rgb


def _bgr(content: bytes) -> Picture | None:
    picture: Picture | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return picture


def _pixels(content: bytes) -> int:
    """The number of pixels by the header; 0 where it can't be read, so that OpenCV finds out."""
    try:
        if content.startswith(START_OF_IMAGE):
            # 20 times as fast as Pillow.
            height, width, *_ = simplejpeg.decode_jpeg_header(content)
            return int(height * width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return int(image.width * image.height)
    except Image.DecompressionBombError:
        return MAX_PIXELS + 1
    except (OSError, SyntaxError, ValueError):
        return 0


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be prepared: its index in the list and why; unread: its file could not be read."""

    index: int
    reason: str
    unread: bool


Item = tuple[npt.NDArray[Any], int, Failure | None]


@dataclass(frozen=True)
class Images:
    """A list's images by index, for paddle.io.DataLoader: prepared, with their labels.

    An item is asked for with the seed of its random numbers. It is blank where an image can't be used. After `stop`
    there is only None, so that a worker soon has no more to do.
    """

    images: ImageList
    prepare: Prepare
    # One byte that all processes share. Nobody waits for it, unlike for the lock of an event.
    _stopped: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: tuple[int, int]) -> Item | None:
        if self._stopped[0]:
            return None
        index, seed = item
        label = self.images.labels[index]
        try:
            return self.prepare(decoded(self._content(index)), np.random.default_rng(seed)), label, None
        except _UnreadError as error:
            failure = Failure(index, str(error), unread=True)
        except Exception as error:
            # Whatever is wrong with a file, what to do about it is for the parent to decide.
            failure = Failure(index, str(error).strip()[:MAX_REASON] or type(error).__name__, unread=False)
        return self.prepare.blank(), label, failure

    def stop(self) -> None:
        """Let the workers prepare no other image."""
        self._stopped[0] = 1

    def _content(self, index: int) -> bytes:
        try:
            return self.images.content(index)
        except OSError as error:
            raise _UnreadError(error.strerror or type(error).__name__) from error


class _UnreadError(Exception):
    """A file can't be read."""


def collate(items: Sequence[Item | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], list[Failure]]:
    """The images [batch, ...] and labels [batch] of some items, and the failures among them; next to nothing for None.

    Arrays, although Paddle copies them twice on their way into shared memory: a worker that ends frees a tensor which
    another of its threads may still send (Paddle 3.3.1).
    """
    prepared = [item for item in items if item is not None]
    if len(prepared) < len(items):
        return np.zeros(1), np.zeros(1, np.int64), []
    images, labels, failures = zip(*prepared, strict=True)
    return np.stack(images), np.array(labels, np.int64), [failure for failure in failures if failure is not None]


def start_worker(_: int) -> None:
    """Prepare a worker process, which ends by itself only if its parent does."""
    # Garbage of the parent stays: Paddle's queues would wait for threads that are not here, and hold this process up.
    gc.freeze()
    gc.enable()
    # So that its speed doesn't depend on what the parent did before.
    use_up_large_free_blocks()
    # As in PaddleClas: the workers share the processors.
    cv2.setNumThreads(0)
    for number in _OF_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    # Paddle's worker ends at KeyboardInterrupt, and removes its files from /dev/shm.
    signal.signal(_PARENT_ENDED, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process after its parent. Paddle's own watch for the parent waits for work instead (3.3.1)."""
    parent, main = multiprocessing.parent_process(), threading.main_thread().ident
    if parent is not None and main is not None:
        parent.join()
        get_worker_info().dataset.stop()
        time.sleep(LAST_BATCH_SECONDS)
        signal.pthread_kill(main, _PARENT_ENDED)
