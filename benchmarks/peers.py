"""Loading pipelines side by side in one process: how near ours is to the decoder alone, and to what others would use.

usage: peers.py [DATA] [--threads 2 1] [--rounds 7] [--batch-size 64] [--image-size 224]

Each contestant makes training batches of the same images without end, in float32 and channels first; they take turns in
rounds. The limit reads the files and decodes the regions of drawn crops, and does nothing else. Loaders with worker
processes have as many of them as DALI has threads. Prints a table: medians of the rates with their ranges, and of each
round's ratios to the limit, to plain DALI and to the OpenCV loader. Loaders that aren't installed are named. Other
programs disturb it: the machine's load is printed before and after. benchmarks/end_to_end.py feeds the same batches to
a training.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import CONTESTANTS, OPENCV, PLAIN, SEED, absent
from benchmarks.side_by_side import in_turns, print_table
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import file_name
from pipelines.dataset import Dataset, open_dataset
from pipelines.fused.operator import drawn_crops
from pipelines.page_cache import read_into_memory
from pipelines.settings import FUSED_RESIZE, PipelineSettings

LIMIT = "region decode alone"
# Batches of a turn that don't count, besides those made in advance by several processes, and those that do.
FIRST, COUNTED = 8, 8


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
        # Written before processes are forked, which would write it again.
        print(f"\n{threads} threads or worker processes, load {os.getloadavg()[0]:.1f}", flush=True)
        compare(dataset, settings, arguments.rounds)
        print(f"load {os.getloadavg()[0]:.1f}")


def compare(dataset: Dataset, settings: PipelineSettings, rounds: int) -> None:
    """Measure the limit and each contestant once a round, and print the table."""
    missing = absent()

    def measure(name: str) -> float:
        # Each is ended after its turn: what fills its queue would slow the next one down.
        if name == LIMIT:
            return rate(decoded_regions(dataset, settings), FIRST, settings)
        loader = CONTESTANTS[name].make(dataset, settings)
        try:
            return rate(loader, FIRST + CONTESTANTS[name].batches_ahead(settings), settings)
        finally:
            loader.close()

    rates = in_turns([LIMIT, *(name for name in CONTESTANTS if name not in missing)], rounds, measure)
    print_table(rates, (LIMIT, PLAIN, OPENCV), missing)


def rate(batches: Iterator[Any], first: int, settings: PipelineSettings) -> float:
    """Returns the images per second of the batches after the first ones."""
    for _ in range(first):
        next(batches)
    began = time.perf_counter()
    for _ in range(COUNTED):
        next(batches)
    return COUNTED * settings.batch_size / (time.perf_counter() - began)


def decoded_regions(dataset: Dataset, settings: PipelineSettings) -> Iterator[Any]:
    """The limit: the regions of crops that are drawn as ours are, decoded."""
    names = file_names(dataset, settings)

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=settings.batch_size,
        num_threads=settings.decode_threads,
        device_id=None,
        seed=SEED,
        prefetch_queue_depth=settings.prefetch,
    )
    def graph() -> Any:
        files = fn.external_source(source=lambda: next(names), batch=True, dtype=types.UINT8, ndim=1)
        encoded = fn.io.file.read(files, dont_use_mmap=True)
        anchor, shape, _mirror, _excess = drawn_crops(fn.peek_image_shape(encoded, dtype=types.INT32), Augmentation())
        return fn.decoders.image_slice(
            encoded, anchor, shape, normalized_anchor=False, normalized_shape=False, axis_names="HW",
            output_type=types.RGB, device="cpu",
        )  # fmt: skip

    pipeline = graph()
    pipeline.build()
    while True:
        yield pipeline.run()


def file_names(dataset: Dataset, settings: PipelineSettings) -> Iterator[list[Any]]:
    """The names of the images of one batch after another, without end."""
    names = [file_name(f"{dataset.root}/{path}") for path in dataset.train.paths]
    place = 0
    while True:
        yield [names[(place + number) % len(names)] for number in range(settings.batch_size)]
        place += settings.batch_size


if __name__ == "__main__":
    main()
