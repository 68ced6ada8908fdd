"""Whether a run that measures two loaders in turns reports the ratio that two runs with one loader each have.

usage: loader_ratio.py [--times 10] [--results FOLDER] [-- OPTIONS]

OPTIONS are those of the runs, by default loader-bound ones (x0_25 at 32 px, JPEGs of 12 megapixels, one rank on the
CPU). Each time a run with --loader dali,opencv and one with each loader are made, in changing order. Printed: both
ratios with their intervals, and how often the ratio of the separate runs lies within the interval of the one run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.large_photos import write_large_photos
from benchmarks.whole_runs import throughput
from harness.analysis.comparing.compare import compare
from harness.analysis.comparing.stored_result import find_result
from harness.artifacts.record import RunFiles, read_record

# Small batches, as ten steps of each phase are needed for an interval.
USUAL = ("--device", "cpu", "--gpus", "1", "--model", "x0_25", "--image-size", "32", "--batch-size", "2",
         "--max-seconds", "30")  # fmt: skip
LARGE_PHOTOS = 64
BOTH, DALI, OPENCV = "dali,opencv", "dali", "opencv"
LOADERS = (BOTH, DALI, OPENCV)
WORKERS = ("--workers", "2")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--results", type=Path, default=Path("results/loader-ratio"))
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args()
    data = arguments.results / "large"
    if not arguments.options and not (data / "train_list.txt").exists():
        write_large_photos(data, LARGE_PHOTOS)
    options = arguments.options or [*USUAL, "--data", str(data)]
    within = 0
    for number in range(arguments.times):
        names = {loader: f"{loader.replace(',', '-')}{number}" for loader in LOADERS}
        for loader in LOADERS if number % 2 == 0 else reversed(LOADERS):
            workers = WORKERS if OPENCV in loader else ()
            throughput(arguments.results, names[loader], *options, "--loader", loader, *workers)
        a, b = (find_result(names[loader], arguments.results).side for loader in (OPENCV, DALI))
        apart = 1 + compare(a, b).change
        row = read_record(RunFiles(arguments.results, names[BOTH]).record).loaders[0]
        low, high = row["ratio_low"], row["ratio_high"]
        inside = low is not None and low <= apart <= high
        within += inside
        interval = "no interval: too few steps" if low is None else f"{low:.3f} to {high:.3f}"
        print(
            f"{number + 1}: in turns {row['ratio']:.3f} ({interval}), apart {apart:.3f}:"
            f" {'within' if inside else 'outside'}",
            flush=True,
        )
    print(f"within the interval: {within} of {arguments.times}")


if __name__ == "__main__":
    main()
