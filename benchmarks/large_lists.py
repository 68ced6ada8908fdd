"""Measures what a list of millions of images costs before the first step: time and memory of the plan and of the ranks.

usage: large_lists.py [--images 1280000 14000000] [--classes 21841] [--ranks 4] [--sorted]

Writes a list of that many images in as many classes as ImageNet-21k has, in random order unless --sorted, to a
temporary folder; the files that it names don't exist. A new process then plans a training on it, as `run_bench.py` does
before it looks at the files: it opens the data set, notes what is odd about it, and makes the plan. It leaves its lists
to ranks, new processes that have loaded Paddle and DALI, and draw their first batch. Prints for each list the seconds
of the plan and the largest memory of its process until then; the seconds from a rank's lists to its first batch, of the
slowest rank; and the memory of the largest rank and of all processes together when all have drawn, in which a page that
several share counts once. "loaded" is what the ranks took before they had lists; "core s" are seconds of a processor.
Ends with the machine's load.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH, SEED, BLOCK = 256, 1, 1 << 20
ITSELF = (sys.executable, "-m", "benchmarks.large_lists")
COLUMNS = (
    "images", "list MB", "plan s", "plan core s", "plan MB", "first batch s", "first batch core s", "a rank MB",
    "together MB", "loaded MB",
)  # fmt: skip


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_280_000, 14_000_000])
    parser.add_argument("--classes", type=int, default=21_841)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--sorted", action="store_true")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plan is not None:
        plan(given.plan, given.ranks)
    elif given.rank is not None:
        rank(Path(given.rank[0]), int(given.rank[1]), int(given.rank[2]))
    else:
        print("", "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS), sep="\n", flush=True)
        for images in given.images:
            with tempfile.TemporaryDirectory(prefix="pplcnet-lists-") as folder:
                write_list(Path(folder) / "train_list.txt", images, given.classes, ordered=given.sorted)
                command = (*ITSELF, "--plan", folder, "--ranks", str(given.ranks))
                answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
                size = (Path(folder) / "train_list.txt").stat().st_size
            print("| " + " | ".join([f"{images:,}", f"{size / 1e6:,.0f}", *answer]) + " |", flush=True)
        print(f"load of the last minute {os.getloadavg()[0]:.1f}, cores {os.cpu_count()}")


def write_list(file: Path, images: int, classes: int, *, ordered: bool) -> None:
    """Write a list of images with names like ImageNet's."""
    generator = np.random.default_rng(0)
    order = np.arange(images) if ordered else generator.permutation(images)
    names = [f"n{1_440_764 + 613 * label:08}" for label in range(classes)]
    with file.open("w", encoding="ascii") as stream:
        for begin in range(0, images, BLOCK):
            places = order[begin : begin + BLOCK].tolist()
            labels = (order[begin : begin + BLOCK] * classes // images).tolist()
            stream.writelines(
                f"{names[label]}/{names[label]}_{place}.JPEG {label}\n"
                for place, label in zip(places, labels, strict=True)
            )


def plan(folder: Path, ranks: int) -> None:
    """Plan a training on a folder's list, start ranks, and print what both took: the texts of the table's columns."""
    begun = time.perf_counter()
    from harness.commands.inputs import find_inputs
    from harness.launch.private_folder import private_folder
    from harness.launch.rank_files import LISTS, leave_lists
    from harness.plan.options import RunConfig
    from harness.report.console import Console

    config = RunConfig(data=str(folder), device="cpu", gpus=ranks, batch_size=BATCH, throughput_only=True)
    inputs = find_inputs(config, Console(), os.environ)
    seconds, cores = time.perf_counter() - begun, time.process_time()
    largest = memory_bytes(os.getpid(), "status", "VmHWM")
    with private_folder("lists") as private:
        leave_lists(private, inputs.dataset.splits)
        command = (*ITSELF, "--rank", str(private / LISTS))
        started = [
            subprocess.Popen((*command, str(one), str(ranks)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for one in range(ranks)
        ]
        loaded = [said(process) for process in started]
        # All begin at the same time, as after a rendezvous.
        for process in started:
            tell(process)
        drawn = [said(process) for process in started]
        alone = [memory_bytes(process.pid, "smaps_rollup", "Pss") for process in started]
        together = memory_bytes(os.getpid(), "smaps_rollup", "Pss") + sum(alone)
        for process in started:
            process.communicate()
    figures = (
        f"{seconds:.1f}", f"{cores:.1f}", f"{largest / 1e6:,.0f}",
        f"{max(one['seconds'] for one in drawn):.2f}", f"{max(one['cores'] for one in drawn):.2f}",
        f"{max(alone) / 1e6:,.0f}", f"{together / 1e6:,.0f}", f"{sum(one['bytes'] for one in loaded) / 1e6:,.0f}",
    )  # fmt: skip
    print(json.dumps(figures))


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of a rank."""
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def tell(process: subprocess.Popen[str]) -> None:
    """Let a rank that waits go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def rank(lists: Path, number: int, ranks: int) -> None:
    """Load what a rank loads, draw its first batch from the lists in a folder, and wait until all have done so."""
    import harness.training.worker  # noqa: F401 - what it loads is what takes memory
    from harness.launch.rank_files import lists_left
    from pipelines.sampling import BEGINNING, TrainingOrder

    gc.collect()
    print(json.dumps({"bytes": memory_bytes(os.getpid(), "smaps_rollup", "Pss")}), flush=True)
    sys.stdin.readline()
    begun, used = time.perf_counter(), time.process_time()
    images = lists_left(lists)["train"]
    order = TrainingOrder(len(images), number, ranks, BATCH, SEED)
    drawn = order.draw(BEGINNING, frozenset())
    batch = [images.paths[index] for index in drawn.indices.tolist()]
    labels = images.labels.array[drawn.indices].astype(np.int64)
    assert len(batch) == len(labels) == BATCH
    print(json.dumps({"seconds": time.perf_counter() - begun, "cores": time.process_time() - used}), flush=True)
    sys.stdin.read()


def memory_bytes(process: int, file: str, field: str) -> int:
    """A figure of a process's memory, as Linux has it in /proc."""
    lines = Path(f"/proc/{process}/{file}").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


if __name__ == "__main__":
    main()
