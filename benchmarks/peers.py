"""Loading pipelines side by side in one process: how near ours is to the decoder alone, and to what others would use.

usage: peers.py [DATA] [--threads 2 1] [--rounds 7] [--batch-size 64] [--image-size 224]

Each contestant makes training batches of the same images without end, in float32 and channels first; they take turns in
rounds. The limit reads the files and decodes the regions of drawn crops, and does nothing else. OpenCV has as many
worker processes as DALI has threads. Prints medians of the rates with their ranges, and of each round's ratio to the
limit. Other programs on the machine disturb it: its load is printed before and after.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cold_disk import print_median
from pipelines.augmentation import MEAN, STD, Augmentation
from pipelines.bad_image_probe import file_name
from pipelines.dali_graphs import Feed, training_graph
from pipelines.dataset import Dataset, open_dataset
from pipelines.fused.operator import drawn_crops
from pipelines.opencv_images import training_images
from pipelines.opencv_source import OpenCvSource
from pipelines.page_cache import read_into_memory
from pipelines.sampling import TrainingOrder
from pipelines.settings import DALI_RESIZE, FUSED_RESIZE, PipelineSettings
from pipelines.source import DaliSource

LIMIT = "region decode alone (the limit)"
# Batches of a turn that don't count, and those that do.
FIRST, COUNTED = 8, 8
# What makes a batch, and what ends it.
Contestant = tuple[Callable[[], Any], Callable[[], object]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="photos")
    parser.add_argument("--threads", type=int, nargs="+", default=(2, 1))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224)
    arguments = parser.parse_args()
    # DALI says so of every pipeline with a feed; none is saved here.
    warnings.filterwarnings("ignore", message="Checkpointing enabled in a pipeline with external source")
    dataset = open_dataset(arguments.data)
    read_into_memory([f"{dataset.root}/{path}" for path in dataset.train.paths])
    for threads in arguments.threads:
        settings = PipelineSettings(
            arguments.batch_size, arguments.image_size, decode_threads=threads, workers=threads, resize=FUSED_RESIZE
        )
        print(f"\n{threads} threads or worker processes, load {os.getloadavg()[0]:.1f}")
        compare(dataset, settings, arguments.rounds)
        print(f"load {os.getloadavg()[0]:.1f}")


def compare(dataset: Dataset, settings: PipelineSettings, rounds: int) -> None:
    """Measure each contestant once a round, and print the medians."""
    rates: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds):
        # The order alternates, because the first may run on a cooler processor.
        for name in sorted(CONTESTANTS, reverse=bool(number % 2)):
            # Each is ended after its turn: what fills its queue would slow the next one down.
            following, end = CONTESTANTS[name](dataset, settings)
            for _ in range(FIRST + (settings.batches_ahead if name == OPENCV else 0)):
                following()
            began = time.perf_counter()
            for _ in range(COUNTED):
                following()
            rates[name].append(COUNTED * settings.batch_size / (time.perf_counter() - began))
            end()
    for name, found in rates.items():
        print_median(name, found, "images/s", 0)
    for name, found in rates.items():
        print_median(f"{name} / limit", [a / b for a, b in zip(found, rates[LIMIT], strict=True)], "", 3)
    ours = rates[OURS]
    for name in (PLAIN, OPENCV):
        print_median(f"ours / {name}", [a / b for a, b in zip(ours, rates[name], strict=True)], "", 2)


def by_harness(resize: str) -> Callable[[Dataset, PipelineSettings], Contestant]:
    """A contestant: the pipeline of a run with this way to resize."""

    def make(dataset: Dataset, settings: PipelineSettings) -> Contestant:
        chosen = replace(settings, resize=resize)

        def graph(feed: Feed, seed: int, state: bytes | None) -> Any:
            return training_graph(feed, Augmentation(), chosen, seed, state)

        source = DaliSource(dataset.train, order(dataset, settings), graph, chosen, lambda *_: None)
        return lambda: next(source), source.close

    return make


def by_opencv(dataset: Dataset, settings: PipelineSettings) -> Contestant:
    """A contestant: PaddleClas's loader."""
    chosen = settings.with_opencv()
    prepare = training_images(Augmentation(), chosen)
    source = OpenCvSource(dataset.train, order(dataset, settings), prepare, chosen, lambda *_: None)
    return lambda: next(source), source.close


def by_dali(finish: Callable[[Any, PipelineSettings], Any]) -> Callable[[Dataset, PipelineSettings], Contestant]:
    """A contestant: a DALI pipeline that reads the files and does what finish says."""

    def make(dataset: Dataset, settings: PipelineSettings) -> Contestant:
        names = batches(dataset, settings)

        @pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=settings.batch_size,
            num_threads=settings.decode_threads,
            device_id=None,
            seed=3,
            prefetch_queue_depth=settings.prefetch,
        )
        def graph() -> Any:
            files = fn.external_source(source=lambda: next(names), batch=True, dtype=types.UINT8, ndim=1)
            return finish(fn.io.file.read(files, dont_use_mmap=True), settings)

        pipeline = graph()
        pipeline.build()
        return lambda: pipeline.run(), lambda: None

    return make


def batches(dataset: Dataset, settings: PipelineSettings) -> Iterator[list[Any]]:
    """The names of the images of one batch after another, without end."""
    names = [file_name(f"{dataset.root}/{path}") for path in dataset.train.paths]
    place = 0
    while True:
        yield [names[(place + number) % len(names)] for number in range(settings.batch_size)]
        place += settings.batch_size


def order(dataset: Dataset, settings: PipelineSettings) -> TrainingOrder:
    """The order of one rank."""
    return TrainingOrder(len(dataset.train), 0, 1, settings.batch_size, 3)


def regions(encoded: Any, _: PipelineSettings) -> Any:
    """Decode the regions of crops that are drawn as ours are."""
    anchor, shape, _mirror, _excess = drawn_crops(fn.peek_image_shape(encoded, dtype=types.INT32), Augmentation())
    return fn.decoders.image_slice(
        encoded, anchor, shape, normalized_anchor=False, normalized_shape=False, axis_names="HW",
        output_type=types.RGB, device="cpu",
    )  # fmt: skip


def as_examples_do(antialias: bool) -> Callable[[Any, PipelineSettings], Any]:
    """Prepare images as the pipelines in DALI's documentation do: random crop while decoding, resize, normalise."""

    def finish(encoded: Any, settings: PipelineSettings) -> Any:
        limits = Augmentation()
        images = fn.decoders.image_random_crop(
            encoded, device="cpu", output_type=types.RGB,
            random_aspect_ratio=[limits.aspect_min, limits.aspect_max],
            random_area=[limits.crop_area_min, limits.crop_area_max],
        )  # fmt: skip
        side = settings.image_size
        images = fn.resize(images, size=[side, side], interp_type=types.INTERP_LINEAR, antialias=antialias)
        return fn.crop_mirror_normalize(
            images, mirror=fn.random.coin_flip(), dtype=types.FLOAT, output_layout="CHW",
            mean=[255 * value for value in MEAN], std=[255 * value for value in STD],
        )  # fmt: skip

    return finish


OURS, PLAIN, OPENCV = "ours", "plain DALI", "OpenCV loader"
CONTESTANTS: dict[str, Callable[[Dataset, PipelineSettings], Contestant]] = {
    LIMIT: by_dali(regions),
    OURS: by_harness(FUSED_RESIZE),
    "ours, --resize dali": by_harness(DALI_RESIZE),
    PLAIN: by_dali(as_examples_do(antialias=False)),
    "plain DALI, antialiasing": by_dali(as_examples_do(antialias=True)),
    OPENCV: by_opencv,
}


if __name__ == "__main__":
    main()
