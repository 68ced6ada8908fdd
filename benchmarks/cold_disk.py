"""Compares the training pipeline with DALI's own file reader, on files from a cold disk and from the page cache.

usage: cold_disk.py [DATA] [--pairs 5] [--batch-size 16] [--threads N]

Each measurement goes through the data set's training images in the same order, cropped, resized and normalised: as a
run loads them (files by name, with read-ahead by the kernel), and with DALI's file reader before the same operators;
both with no file in the page cache, and with all of them in it. The two pipelines alternate. Prints medians and ranges
of the rates, and of their ratios to the reader's. A disk with its own cache may still be warm.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.machine.host import available_cores
from pipelines.augmentation import Augmentation
from pipelines.dali_graphs import Feed, prepared_for_training, training_graph
from pipelines.dataset import Dataset, open_dataset
from pipelines.page_cache import read_into_memory, resident_share
from pipelines.sampling import BEGINNING, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.source import DaliSource

COLD = 0.05  # the maximum share of pages that may remain in the page cache


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="photos")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.data)
    settings = PipelineSettings(arguments.batch_size, image_size=224, decode_threads=arguments.threads)
    order = TrainingOrder(len(dataset.train), 0, 1, settings.batch_size, seed=0)
    steps = len(dataset.train) // settings.batch_size
    paths = [f"{dataset.root}/{path}" for path in dataset.train.paths]
    turns: dict[str, Callable[[], Callable[[], Any]]] = {
        "by name": lambda: by_name(dataset, order, settings),
        "reader": lambda: by_reader(dataset, order, settings, steps),
    }
    rates: dict[tuple[str, str], list[float]] = {(cache, name): [] for cache in ("cold", "warm") for name in turns}
    for pair in range(arguments.pairs):
        for cache in ("cold", "warm"):
            # The order alternates, because the first may run on a cooler processor.
            for name in sorted(turns, reverse=bool(pair % 2)):
                prepare(paths, cache)
                following = turns[name]()
                began = time.perf_counter()
                for _ in range(steps):
                    following()
                rates[cache, name].append(steps * settings.batch_size / (time.perf_counter() - began))
    for cache in ("cold", "warm"):
        for name in turns:
            print_median(f"{cache}, {name}", rates[cache, name], "images/s", 0)
        ratios = [ours / theirs for ours, theirs in zip(rates[cache, "by name"], rates[cache, "reader"], strict=True)]
        print_median(f"{cache}, by name / reader", ratios, "", 3)


def prepare(paths: list[str], cache: str) -> None:
    """Load every file into the page cache, or drop all of them from it."""
    if cache == "warm":
        read_into_memory(paths)
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    share = resident_share(paths)
    if share is None or share > COLD:
        raise SystemExit(f"the page cache keeps {share} of the files: a cold disk can't be measured here")


def by_name(dataset: Dataset, order: TrainingOrder, settings: PipelineSettings) -> Callable[[], Any]:
    """Returns a function that returns the next batch, as a run loads it."""

    def graph(feed: Feed, seed: int, state: bytes | None) -> Any:
        return training_graph(feed, Augmentation(), settings, seed, state)

    source = DaliSource(dataset.train, order, graph, settings, lambda *_: None)
    return lambda: next(source)


def by_reader(dataset: Dataset, order: TrainingOrder, settings: PipelineSettings, steps: int) -> Callable[[], Any]:
    """Returns a function that returns the next batch of the same images in the same order, from DALI's reader."""
    position, chosen = BEGINNING, []
    for _ in range(steps):
        draw = order.draw(position, frozenset())
        chosen += draw.indices.tolist()
        position = draw.next
    images = dataset.train

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=settings.batch_size,
        num_threads=settings.decode_threads,
        device_id=None,
        prefetch_queue_depth=settings.prefetch,
        seed=0,
    )
    def graph() -> tuple[Any, Any]:
        encoded, labels = fn.readers.file(
            files=[f"{dataset.root}/{images.paths[index]}" for index in chosen],
            labels=[images.labels[index] for index in chosen],
            prefetch_queue_depth=settings.prefetch,
            dont_use_mmap=True,
        )
        return prepared_for_training(encoded, Augmentation(), settings), labels

    pipeline = graph()
    pipeline.build()
    return lambda: pipeline.run()


def print_median(what: str, values: list[float], unit: str, digits: int) -> None:
    """Print a median with its range."""
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    print(f"{what:<26} {middle:>8} {unit} ({low} to {high})")


if __name__ == "__main__":
    main()
