"""What could feed Paddle's training on a CPU, each as a source of batches: ours, plain DALI, and other loaders.

All of them make endless batches of the same images in the same way, as far as their libraries can: a random region of
each image, resized to a square bilinearly, mirrored at random and normalised, float32 [batch, 3, size, size], with
labels. DALI and spdl have settings.decode_threads threads, the others settings.workers processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Protocol

from nvidia.dali import fn, pipeline_def, types
from paddle.utils import dlpack

from pipelines.augmentation import MEAN, STD, Augmentation
from pipelines.batch import Batch, Source
from pipelines.dali_graphs import Feed, training_graph
from pipelines.dataset import Dataset
from pipelines.sampling import BEGINNING, Order, TrainingOrder
from pipelines.settings import DALI_RESIZE, FUSED_RESIZE, PipelineSettings
from pipelines.source import DaliSource

SEED = 3


class Loader(Source, Protocol):
    """Endless batches, and what makes them."""

    def close(self) -> object:
        """End what makes the batches."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way of making batches.

    modules are those that it needs beyond what every installation has. probe fails where they are there but can't be
    used. by_processes: it has worker processes, each of which makes batches in advance.
    """

    make: Callable[[Dataset, PipelineSettings], Loader]
    modules: Sequence[str] = ()
    probe: Callable[[], object] = lambda: None
    by_processes: bool = False

    def obstacle(self) -> str:
        """Why it can't take part here; empty if it can."""
        missing = [name for name in self.modules if find_spec(name) is None]
        if missing:
            return f"not installed ({', '.join(missing)})"
        try:
            self.probe()
        except (ImportError, OSError, RuntimeError) as error:
            return f"can't be loaded: {str(error).splitlines()[0][:100]}"
        return ""

    def batches_ahead(self, settings: PipelineSettings) -> int:
        """The number of batches that it makes in advance."""
        return settings.prefetch * (settings.workers if self.by_processes else 1)


def order(dataset: Dataset, settings: PipelineSettings) -> TrainingOrder:
    """The order of one rank."""
    return TrainingOrder(len(dataset.train), 0, 1, settings.batch_size, SEED)


def indices(batches: Order) -> Iterator[list[int]]:
    """The images of one batch after another, by their places in the list."""
    position = BEGINNING
    while True:
        draw = batches.draw(position, frozenset())
        yield draw.indices.tolist()
        position = draw.next


def by_harness(resize: str) -> Callable[[Dataset, PipelineSettings], Loader]:
    """The pipeline of a run with this way to resize."""

    def make(dataset: Dataset, settings: PipelineSettings) -> Loader:
        chosen = replace(settings, resize=resize)

        def graph(feed: Feed, seed: int, state: bytes | None) -> Any:
            return training_graph(feed, Augmentation(), chosen, seed, state)

        return DaliSource(dataset.train, order(dataset, settings), graph, chosen, lambda *_: None)

    return make


def by_opencv(dataset: Dataset, settings: PipelineSettings) -> Loader:
    """PaddleClas's loader, as a run has it."""
    from pipelines.opencv_images import training_images
    from pipelines.opencv_source import OpenCvSource

    chosen = settings.with_opencv()
    prepare = training_images(Augmentation(), chosen)
    return OpenCvSource(dataset.train, order(dataset, settings), prepare, chosen, lambda *_: None)


class PlainDali:
    """A pipeline as NVIDIA's examples write it: file reader, random crop while decoding, resize, normalise.

    Its batches reach Paddle through DLPack, as ours do: DALI 2.4's own iterator for Paddle needs a GPU.
    """

    def __init__(self, dataset: Dataset, settings: PipelineSettings, *, antialias: bool) -> None:
        images, side, limits = dataset.train, settings.size.height, Augmentation()
        self._batch_size = settings.batch_size

        @pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=settings.batch_size,
            num_threads=settings.decode_threads,
            device_id=None,
            seed=SEED,
            prefetch_queue_depth=settings.prefetch,
        )
        def graph() -> Any:
            encoded, labels = fn.readers.file(
                files=[f"{images.root}/{path}" for path in images.paths],
                labels=list(images.labels),
                random_shuffle=True,
                # DALI's default, unless the set is smaller.
                initial_fill=min(1024, len(images)),
            )
            crops = fn.decoders.image_random_crop(
                encoded,
                device="cpu",
                output_type=types.RGB,
                random_aspect_ratio=[limits.aspect_min, limits.aspect_max],
                random_area=[limits.crop_area_min, limits.crop_area_max],
            )
            resized = fn.resize(crops, size=[side, side], interp_type=types.INTERP_LINEAR, antialias=antialias)
            normalised = fn.crop_mirror_normalize(
                resized,
                mirror=fn.random.coin_flip(probability=limits.flip_probability),
                dtype=types.FLOAT,
                output_layout="CHW",
                mean=[255 * value for value in MEAN],
                std=[255 * value for value in STD],
            )
            return normalised, fn.squeeze(fn.cast(labels, dtype=types.INT64), axes=0)

        self._pipeline = graph()
        self._pipeline.build()

    def __iter__(self) -> PlainDali:
        return self

    def __next__(self) -> Batch:
        images, labels = self._pipeline.run()
        return Batch(dlpack.from_dlpack(images.as_tensor()), dlpack.from_dlpack(labels.as_tensor()), self._batch_size)

    def close(self) -> None:
        """Let go of the pipeline and its threads."""
        del self._pipeline


def plain_dali(*, antialias: bool) -> Callable[[Dataset, PipelineSettings], Loader]:
    """`PlainDali`, with DALI's default of smoothing before images are made smaller, or without."""
    return lambda dataset, settings: PlainDali(dataset, settings, antialias=antialias)


def by_pillow(dataset: Dataset, settings: PipelineSettings) -> Loader:
    """OpenCV's loader with Pillow in its place."""
    from benchmarks.other_loaders import PillowSource
    from pipelines.opencv_images import training_images

    chosen = settings.with_opencv()
    prepare = training_images(Augmentation(), chosen)
    return PillowSource(dataset.train, order(dataset, settings), prepare, chosen, lambda *_: None)


def by_torchvision(dataset: Dataset, settings: PipelineSettings) -> Loader:
    """PyTorch's loader with torchvision in worker processes."""
    from benchmarks.other_loaders import TorchvisionSource

    return TorchvisionSource(dataset.train, indices(order(dataset, settings)), settings)


def by_spdl(dataset: Dataset, settings: PipelineSettings) -> Loader:
    """SPDL's pipeline, FFmpeg in threads."""
    from benchmarks.other_loaders import SpdlSource

    return SpdlSource(dataset.train, indices(order(dataset, settings)), settings)


def _load_torchvision() -> None:
    import torchvision.io  # noqa: F401


def _load_ffmpeg() -> None:
    from spdl.io.utils import get_ffmpeg_versions

    get_ffmpeg_versions()


OURS, PLAIN, OPENCV = "ours", "plain DALI", "OpenCV loader"
CONTESTANTS = {
    OURS: Contestant(by_harness(FUSED_RESIZE), ("numba",)),
    "ours, --resize dali": Contestant(by_harness(DALI_RESIZE)),
    PLAIN: Contestant(plain_dali(antialias=False)),
    "plain DALI, antialiasing": Contestant(plain_dali(antialias=True)),
    OPENCV: Contestant(by_opencv, ("cv2",), by_processes=True),
    # OpenCV is loaded with what the two have in common.
    "Pillow loader": Contestant(by_pillow, ("cv2",), by_processes=True),
    "torchvision": Contestant(by_torchvision, ("torch", "torchvision"), _load_torchvision, by_processes=True),
    "spdl": Contestant(by_spdl, ("spdl", "cv2"), _load_ffmpeg),
}


def absent() -> dict[str, str]:
    """Why contestants can't take part here, by their names."""
    obstacles = {name: contestant.obstacle() for name, contestant in CONTESTANTS.items()}
    return {name: obstacle for name, obstacle in obstacles.items() if obstacle}
