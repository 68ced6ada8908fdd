"""Compares images in shards with the same images as files, from a cold disk and from the page cache.

usage: packed.py [DATA] [--copies 16] [--rounds 5] [--batch-size 64] [--threads N] [--folder FOLDER] [--reads N]

DATA's training images (by default those of photos) are written to a new folder this many times, as a run would find
them that has many; the folder is packed into each format. Measured in turns: the pipeline as a run has it, through all
images in the order of the run's shuffle (and for shards in windows of 1,000 images, too), with nothing of the data in
the page cache, and with all of it; and DALI's own reader of each format before the same operators, with its own
shuffle. Printed: medians and ranges of the rates, and of their ratios to the folder's. Where this runs as root the
kernel's memory of names and of where files lie is dropped, too. A disk with its own cache may still be warm, and a
fast one hides what is compared: --reads lets the kernel make this many requests per second while the cache is cold (as
root).
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, tfrecord

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cold_disk import prepare
from harness.artifacts.atomic import replaced
from harness.machine.host import available_cores
from pipelines.augmentation import Augmentation
from pipelines.dali_graphs import Feed, prepared_for_training, training_graph
from pipelines.dataset import Dataset, open_dataset
from pipelines.file_checks import check_files
from pipelines.packed.manifest import MANIFEST
from pipelines.packed.packing import plan_shards, write_shards
from pipelines.packed.shards import FORMATS
from pipelines.sampling import ShardShuffle, TrainingOrder
from pipelines.settings import FUSED_RESIZE, PipelineSettings
from pipelines.source import DaliSource

SHARD_BYTES = 64 << 20
WINDOW = 1000
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="photos")
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--reads", type=int, default=None, help="requests per second that the disk may take")
    arguments = parser.parse_args()
    settings = PipelineSettings(
        arguments.batch_size, image_size=224, decode_threads=arguments.threads, resize=FUSED_RESIZE
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = copied(open_dataset(arguments.data), Path(place) / "folder", arguments.copies)
        sets = {"folder": folder, **{name: packed(folder, name, Path(place) / name) for name in FORMATS}}
        turns: dict[str, tuple[Dataset, Callable[[], Callable[[], Any]]]] = {}
        for name, dataset in sets.items():
            turns[name] = (dataset, lambda dataset=dataset: as_a_run(dataset, settings))  # type: ignore[misc]
        for name in FORMATS:
            one = sets[name]
            turns[f"{name}, windows"] = (one, lambda one=one: as_a_run(one, settings, WINDOW))  # type: ignore[misc]
            reader = (one, lambda one=one, name=name: by_reader(one, name, settings))
            turns[f"{name}, DALI's reader"] = reader
        measure(turns, settings, arguments.rounds, arguments.reads)


def measure(
    turns: dict[str, tuple[Dataset, Callable[[], Callable[[], Any]]]],
    settings: PipelineSettings,
    rounds: int,
    reads: int | None,
) -> None:
    """Measure each of turns in each round and print the rates."""
    for cache in ("warm", "cold"):
        if cache == "cold" and reads is not None:
            limit_reads(reads, next(iter(turns.values()))[0].root)
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(rounds):
            for name in sorted(turns, reverse=bool(number % 2)):
                dataset, make = turns[name]
                steps = len(dataset.train) // settings.batch_size
                prepare(list(dataset.train.files()), cache)
                if cache == "cold" and os.geteuid() == 0:
                    DROP_CACHES.write_text("2")
                following = make()
                # What building the graph takes is not reading's.
                following()
                began = time.perf_counter()
                for _ in range(steps - 1):
                    following()
                rates[name].append((steps - 1) * settings.batch_size / (time.perf_counter() - began))
        for name, values in rates.items():
            ratios = [own / folder for own, folder in zip(values, rates["folder"], strict=True)]
            print(f"{cache}, {name:<28} {text(values, 0):>24} images/s, {text(ratios, 2)} of the folder's", flush=True)


def limit_reads(reads: int, folder: Path) -> None:
    """Limit this process to a number of read requests per second to the disk that has a folder, by a control group."""
    device = os.stat(folder).st_dev  # noqa: PTH116
    place = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    disk = ((place.parent if (place / "partition").exists() else place) / "dev").read_text().strip()
    groups = Path("/sys/fs/cgroup")
    old = (groups / "blkio").is_dir()
    group = (groups / "blkio" if old else groups) / "pplcnet-bench-packed"
    group.mkdir(exist_ok=True)
    if old:
        (group / "blkio.throttle.read_iops_device").write_text(f"{disk} {reads}")
    else:
        (group / "io.max").write_text(f"{disk} riops={reads}")
    (group / "cgroup.procs").write_text(str(os.getpid()))
    atexit.register(leave_group, group)


def leave_group(group: Path) -> None:
    """Take this process out of a control group, and remove it."""
    (group.parent / "cgroup.procs").write_text(str(os.getpid()))
    group.rmdir()


def text(values: list[float], digits: int) -> str:
    """A median with its range."""
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def copied(dataset: Dataset, folder: Path, copies: int) -> Dataset:
    """A folder with this number of copies of each training image."""
    images = dataset.train
    for number in range(copies):
        for index in range(len(images)):
            place = folder / "train" / str(images.labels[index]) / f"{number:03d}-{Path(images.paths[index]).name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(images.file(index), place)
    os.sync()
    return open_dataset(folder)


def packed(dataset: Dataset, name: str, folder: Path) -> Dataset:
    """The same images in shards."""
    kind = FORMATS[name]
    plan = plan_shards(dataset, {"train": check_files(dataset.train)}, kind, SHARD_BYTES)
    (folder / "train").mkdir(parents=True)
    for state in write_shards(plan, dataset, kind, folder, 2, replaced, lambda _: None):
        (folder / MANIFEST).write_text(state.as_text())
    os.sync()
    return open_dataset(folder)


def as_a_run(dataset: Dataset, settings: PipelineSettings, window: int = 0) -> Callable[[], Any]:
    """Returns a function that returns the next batch, as a run loads it."""

    def graph(feed: Feed, seed: int, state: bytes | None) -> Any:
        return training_graph(feed, Augmentation(), settings, seed, state)

    images, settings = dataset.train, replace(settings, shuffle_window=window)
    shards = ShardShuffle.of(images.extents.numbers, window) if window and images.extents is not None else None
    order = TrainingOrder(len(images), 0, 1, settings.batch_size, seed=0, shards=shards)
    source = DaliSource(images, order, graph, settings, refuse)
    return lambda: next(source)


def refuse(*_: Any) -> None:
    """Every image is good."""
    raise SystemExit("an image can't be used")


def by_reader(dataset: Dataset, name: str, settings: PipelineSettings) -> Callable[[], Any]:
    """Returns a function that returns the next batch from DALI's own reader of the format."""
    shards = [Path(file) for file in dataset.train.files()]
    paths, indices = [str(shard) for shard in shards], [str(shard.with_suffix(".idx")) for shard in shards]
    shuffled: dict[str, Any] = {"random_shuffle": True, "initial_fill": WINDOW, "dont_use_mmap": True}

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=settings.batch_size, num_threads=settings.decode_threads, device_id=None, seed=0,
        prefetch_queue_depth=settings.prefetch,
    )  # fmt: skip
    def graph() -> tuple[Any, Any]:
        readers: Any = fn.readers
        if name == "webdataset":
            encoded, label = readers.webdataset(paths=paths, index_paths=indices, ext=["jpg", "cls"], **shuffled)
        elif name == "recordio":
            # It takes one file alone.
            encoded, label = readers.mxnet(path=paths[:1], index_path=indices[:1], **shuffled)
        else:
            features = {
                "image/encoded": tfrecord.FixedLenFeature([], tfrecord.string, ""),
                "image/class/label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
            }
            found = readers.tfrecord(path=paths, index_path=indices, features=features, **shuffled)
            encoded, label = found["image/encoded"], found["image/class/label"]
        return prepared_for_training(encoded, Augmentation(), settings), label

    pipeline = graph()
    pipeline.build()
    return pipeline.run  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
