"""What the tuner finds beside a full sweep, how soon it stops where nothing can be gained, and whether noise fools it.

usage: tuning.py [--times 5] [--equal 20] [--max-seconds 5] [--results FOLDER] [--part sweep|fed|equal ...]

  sweep  one rank is loader-bound (x0_25 at 32 px, batch 64, photos), and one decode thread too few and a queue of one
         batch are put in. Every combination of decode threads, queue and way to resize is measured twice, in two
         passes; then the tuner begins from what was put in, --times times. Printed: the rate of what it found over the
         best of the sweep, both as the sweep measured them, and its time over that of the sweep.
  fed    x1_0 at 224 px, where the processor computes nearly all of the time: why the tuner stopped, and when.
  equal  queues of 6, 8 and 12 batches, which are equal to a loader that works without a pause: how often the tuner
         reported a gain, of --equal times.

Every run and tuning is kept in --results, and not made again there. Other programs on the machine disturb it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import ROOT
from harness.analysis.tuning.search import CONFIRMED
from harness.analysis.tuning.stored import TuningFiles, read_tuning
from harness.analysis.tuning.trial import Candidate
from harness.artifacts.record import RunFiles, read_record

ON_CPU = ("--device", "cpu", "--gpus", "1")
LOADER_BOUND = (*ON_CPU, "--model", "x0_25", "--image-size", "32", "--batch-size", "64")
PUT_WRONG = ("--decode-threads", "1", "--prefetch", "1")
SWEPT = {"decode_threads": (1, 2, 3, 4), "prefetch": (1, 2, 3, 4, 6, 8, 12), "resize": ("auto", "dali")}
PASSES = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--equal", type=int, default=20)
    parser.add_argument("--max-seconds", type=float, default=5.0)
    parser.add_argument("--results", type=Path, default=Path("results/tuning-bench"))
    parser.add_argument("--part", nargs="+", choices=("sweep", "fed", "equal"), default=("sweep", "fed", "equal"))
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    seconds = ("--max-seconds", str(arguments.max_seconds))
    if "fed" in arguments.part:
        found = tune(arguments.results, "fed", *ON_CPU, "--model", "x1_0")
        print(f"compute-bound: {found['stop']}, {found['outcome']}, after {found['seconds']:.0f} s in all")
    if "sweep" in arguments.part:
        beside_sweep(arguments.results, arguments.times, seconds)
    if "equal" in arguments.part:
        gains = 0
        for number in range(arguments.equal):
            options = ("--prefetch", "8", "--vary", "prefetch", *seconds)
            found = tune(arguments.results, f"equal{number}", *LOADER_BOUND, *options)
            gains += found["outcome"] == CONFIRMED
            print(f"equal {number + 1}: {found['outcome']} after {found['trials']} trials, {found['seconds']:.0f} s")
        print(f"equal settings: a gain reported {gains} times of {arguments.equal}")


def beside_sweep(results: Path, times: int, seconds: tuple[str, ...]) -> None:
    """Measure every combination, then tune."""
    rates: dict[Candidate, list[float]] = {}
    spent = 0.0
    for number in range(PASSES):
        combinations = list(itertools.product(*SWEPT.values()))
        for values in combinations if number % 2 == 0 else reversed(combinations):
            chosen = dict(zip(SWEPT, values, strict=True))
            options = [word for name, value in chosen.items() for word in ("--" + name.replace("_", "-"), str(value))]
            name = "-".join(map(str, (f"p{number}", *values)))
            fps, took = rate(results, name, *LOADER_BOUND, *options, *seconds)
            rates.setdefault(Candidate.of(**chosen), []).append(fps)
            spent += took
    means = {candidate: sum(found) / len(found) for candidate, found in rates.items()}
    best = max(means, key=lambda candidate: means[candidate])
    print(f"sweep: {len(means)} combinations, {PASSES} passes, {spent:.0f} s; best {best.as_dict()}: {means[best]:.1f}")
    print(f"  put in: {means[Candidate.of(decode_threads=1, prefetch=1, resize='auto')]:.1f} images/s")
    for number in range(times):
        vary = ",".join(name.replace("_", "-") for name in SWEPT)
        found = tune(results, f"sweep{number}", *LOADER_BOUND, *PUT_WRONG, "--vary", vary, *seconds)
        tuned = Candidate.of(**{name: found["best"][name] for name in SWEPT})
        print(
            f"tuner {number + 1}: {tuned.as_dict()}, {found['outcome']}: {means[tuned] / means[best]:.3f} of the best,"
            f" {found['trials']} trials, {found['seconds']:.0f} s, {found['seconds'] / spent:.2f} of the sweep's time"
        )


def rate(results: Path, name: str, *options: str) -> tuple[float, float]:
    """The end-to-end rate of a run, in images per second, and the seconds that it took."""
    took = results / f"{name}.seconds"
    if not took.exists():
        began = time.monotonic()
        bench("--throughput-only", *options, "--results", str(results), "--run-name", name)
        took.write_text(str(time.monotonic() - began))
    return read_record(RunFiles(results, name).record).summary["fps"], float(took.read_text())


def tune(results: Path, name: str, *options: str) -> dict[str, Any]:
    """What a tuning found, with the number of its trials and the seconds that it took."""
    files = TuningFiles(results, name)
    took = files.folder / "seconds"
    if not took.exists():
        began = time.monotonic()
        bench("tune", *options, "--results", str(results), "--run-name", name)
        took.write_text(str(time.monotonic() - began))
    tuning = read_tuning(files.record)
    return {**tuning.found, "trials": len(tuning.trials), "seconds": json.loads(took.read_text())}


def bench(*arguments: str) -> None:
    """Run the tool; its output is what went wrong, or nothing."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "run_bench.py"), *arguments], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {ended.returncode}\n{ended.stderr}")


if __name__ == "__main__":
    main()
