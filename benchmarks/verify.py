"""Compares the speed of `run_bench.py verify` with DALI only decoding the same files.

usage: verify.py [DATA] [--pairs 5] [--threads N] [--passes 3]

Each pair goes through the data set's training images `passes` times in two ways: as verify checks them (file, header,
pixels, and table), and in a bare loop that reads and decodes, with the same batch size. Prints the median of verify's
rate / the bare rate, with its range: per second of time, and per second of processor time, which is less sensitive to
other processes.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, pipeline_def, types

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.artifacts.shared_schema import BAD_FILES
from harness.artifacts.tables import TableWriter
from harness.machine.host import available_cores
from pipelines.bad_image_probe import file_name
from pipelines.dataset import open_dataset
from pipelines.image_lists import ImageList
from pipelines.page_cache import read_into_memory
from pipelines.storage import Storage
from pipelines.verification import BATCH_SIZE, Verification


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="photos")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--passes", type=int, default=3)
    arguments = parser.parse_args()
    images = open_dataset(arguments.data).train
    # So that neither of the two waits for the disk.
    read_into_memory([f"{images.root}/{path}" for path in images.paths])
    images = images.part(list(range(len(images))) * arguments.passes)
    ratios: dict[str, list[float]] = {"time": [], "processor time": []}
    for pair in range(arguments.pairs):
        # The order alternates, because the first may run on a cooler processor.
        if pair % 2:
            bare = seconds_of(decode, images, arguments.threads)
            verified = seconds_of(verify, images, arguments.threads)
        else:
            verified = seconds_of(verify, images, arguments.threads)
            bare = seconds_of(decode, images, arguments.threads)
        for found, bare_seconds, verified_seconds in zip(ratios.values(), bare, verified, strict=True):
            found.append(bare_seconds / verified_seconds)
        rates = [len(images) / seconds[0] for seconds in (verified, bare)]
        print(f"pair {pair + 1}: verify {rates[0]:,.0f} images/s, bare {rates[1]:,.0f} images/s")
    for name, found in ratios.items():
        print(
            f"verify / bare, per second of {name}: median {statistics.median(found):.3f}, range {min(found):.3f} to"
            f" {max(found):.3f} over {len(found)} pairs of {len(images):,} images ({arguments.threads} threads)"
        )


def seconds_of(work: Callable[[ImageList, int], None], images: ImageList, threads: int) -> tuple[float, float]:
    """Returns the seconds that the work takes, and the CPU seconds of all threads of this process."""
    began, busy = time.perf_counter(), time.process_time()
    work(images, threads)
    return time.perf_counter() - began, time.process_time() - busy


def verify(images: ImageList, threads: int) -> None:
    """Run a whole verification, including its table."""
    with tempfile.TemporaryDirectory() as folder, TableWriter(Path(folder) / "bad.csv", BAD_FILES) as writer:
        for checked in Verification(Storage(images), threads):
            for finding in checked.findings:
                writer.write({"path": images.paths[finding.index], "kind": finding.kind, "reason": finding.reason})


def decode(images: ImageList, threads: int) -> None:
    """Only read and decode."""
    batches = _batches(images)

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=BATCH_SIZE, num_threads=threads, device_id=None, prefetch_queue_depth=2
    )
    def graph() -> Any:
        files = fn.external_source(source=lambda: next(batches), batch=True, dtype=types.UINT8, ndim=1)
        return fn.decoders.image(fn.io.file.read(files, dont_use_mmap=True), output_type=types.RGB, device="cpu")

    pipeline = graph()
    pipeline.build()
    decoded = 0
    with contextlib.suppress(StopIteration):
        while True:
            decoded += len(pipeline.run()[0])
    if decoded != len(images):
        raise RuntimeError(f"{decoded} of {len(images)} images decoded")


def _batches(images: ImageList) -> Iterator[list[npt.NDArray[np.uint8]]]:
    root = str(images.root)
    for start in range(0, len(images), BATCH_SIZE):
        yield [file_name(f"{root}/{path}") for path in images.paths[start : start + BATCH_SIZE]]


if __name__ == "__main__":
    main()
