"""Loaders feeding the same training in turns, in one process: what each costs a training that computes meanwhile.

usage: end_to_end.py [--settings compute loader] [--rounds 5] [--segment-seconds 10] [--threads N] [--large-photos DIR]

Two settings: in `compute` the training takes the time (x1_0 at 224 px, the built-in photos), in `loader` the images
(x0_25 at 32 px, 12-megapixel JPEGs). In each round the training runs on cached batches and on the batches of each
contestant of benchmarks/peers.py; the steps before a contestant is as full of batches as it will be don't count.
Prints medians of the rates with their ranges, and of each round's ratios to the cached batches and to the OpenCV
loader. --large-photos keeps the large JPEGs (210 MB) for the next time; without it they are made again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.large_photos import write_large_photos
from benchmarks.side_by_side import in_turns, print_table
from harness.machine.device import choose_devices, worker_environment
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import RunPlan, facts_of
from pipelines.dataset import Dataset, open_dataset
from pipelines.page_cache import read_into_memory

CACHED = "cached batches"
LARGE_PHOTOS = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained, and on which images (None: the large photos)."""

    model: str
    image_size: int
    batch_size: int
    data: str | None


SETTINGS = {"compute": Setting("x1_0", 224, 16, "photos"), "loader": Setting("x0_25", 32, 8, None)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--segment-seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=None, help="of DALI, and worker processes of the others")
    parser.add_argument("--large-photos", type=Path, default=None, metavar="DIR")
    arguments = parser.parse_args()
    # DALI says so of every pipeline with a feed; none is saved here.
    warnings.filterwarnings("ignore", message="Checkpointing enabled in a pipeline with external source")
    # Batch norm says so once a model, and Paddle as it is loaded.
    warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
    warnings.filterwarnings("ignore", message="No ccache found")
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.settings:
            setting = SETTINGS[name]
            data = setting.data or large_photos(arguments.large_photos or Path(scratch) / "large")
            dataset, plan = planned(setting, data, arguments.threads)
            compare(name, dataset, plan, arguments.rounds, arguments.segment_seconds)


def large_photos(folder: Path) -> str:
    """The folder of large JPEGs, which are made if they aren't there."""
    if not (folder / "train_list.txt").exists():
        write_large_photos(folder, LARGE_PHOTOS)
    return str(folder)


def planned(setting: Setting, data: str, threads: int | None) -> tuple[Dataset, RunPlan]:
    """The data set and the plan of one rank on the CPU; sets Paddle's environment, as for a worker."""
    config = RunConfig(
        throughput_only=True, device="cpu", gpus=1, model=setting.model, image_size=setting.image_size,
        batch_size=setting.batch_size, data=data, decode_threads=threads,
    )  # fmt: skip
    devices, _ = choose_devices("cpu", 1, os.environ)
    dataset = open_dataset(data)
    plan = make_plan(config, devices, facts_of(dataset, data), os.environ)
    os.environ.update(worker_environment(devices, plan.training.compute_threads, os.environ, plan.training.tf32))
    read_into_memory([f"{dataset.root}/{path}" for path in dataset.train.paths])
    return dataset, plan


def compare(name: str, dataset: Dataset, plan: RunPlan, rounds: int, seconds: float) -> None:
    """Measure cached batches and each contestant once a round, and print the table."""
    # Paddle is loaded after its environment was set.
    from benchmarks.contestants import CONTESTANTS, OPENCV, absent
    from benchmarks.training_segments import TrainingSegments, images_per_second
    from pipelines.source import CachedSource

    missing = absent()
    threads = plan.pipeline.decode_threads
    settings = replace(plan.pipeline.of_rank(0), workers=threads)
    training = TrainingSegments(plan)
    kept = next(CONTESTANTS[contestant] for contestant in CONTESTANTS if contestant not in missing)
    loader = kept.make(dataset, settings)
    cached = CachedSource(loader, 4)
    loader.close()

    def measure(contestant: str) -> float:
        if contestant == CACHED:
            return images_per_second(training.run(cached, seconds, 1))
        loader = CONTESTANTS[contestant].make(dataset, settings)
        first = 2 + CONTESTANTS[contestant].batches_ahead(settings)
        try:
            steps = training.run(loader, seconds, first)
            # Workers that each make a batch deliver together: as many batches of each are counted.
            return images_per_second(steps[: len(steps) // threads * threads] or steps)
        finally:
            loader.close()

    training.run(cached, seconds, 0)
    print(
        f"\n{name}: {plan.model}, {settings.image_size} px, batches of {settings.batch_size},"
        f" {plan.training.compute_threads} compute threads, {threads} threads or worker processes,"
        f" {rounds} rounds of {seconds:g} s, load {os.getloadavg()[0]:.1f}",
        # Before processes are forked, which would write it again.
        flush=True,
    )
    rates = in_turns([CACHED, *(name for name in CONTESTANTS if name not in missing)], rounds, measure)
    print_table(rates, (CACHED, OPENCV), missing)
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
