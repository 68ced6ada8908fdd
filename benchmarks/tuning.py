"""What the tuner finds beside a full sweep, how soon it stops where nothing can be gained, and whether noise fools it.

usage: tuning.py [--times 5] [--equal 20] [--results FOLDER] [--part PART ...]

  sweep  training is loader-bound (x0_25 at 32 px, JPEGs of 12 megapixels, one rank on the CPU), and one decode thread
         too few and a queue of one batch are put in. Every combination of what the tuner varies by itself is measured
         once; then the tuner begins from what was put in, --times times. Printed: the rate of what it found over the
         best of the sweep, both measured in turns in runs of their own, and its time over that of the sweep.
  fed    x1_0 at 224 px, where the processor computes nearly all of the time: why the tuner stopped, and when.
  equal  queues of 2, 3 and 4 batches, which are equal to a loader that works without a pause: how often the tuner
         reported a gain, of --equal times.

  simulated  as many searches as --searches says on machines whose rates are known, with one decode thread and a queue
         of one batch put in, and as many where all settings are equal: how near they come to the best, and how often
         noise fools them.

Every run and tuning is kept in --results, and not made again there. Other programs on the machine disturb it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.large_photos import write_large_photos
from benchmarks.whole_runs import bench, throughput
from harness.analysis.tuning.knobs import KNOBS, USUAL
from harness.analysis.tuning.search import CONFIRMED, Trials
from harness.analysis.tuning.search import tune as search
from harness.analysis.tuning.stored import TuningFiles, read_tuning
from harness.analysis.tuning.trial import Candidate
from harness.artifacts.record import RunFiles
from tests.support.tuning import BEST, DEFAULT, SCOPE, Machine, loader_bound

ON_CPU = ("--device", "cpu", "--gpus", "1")
LOADER_BOUND = (*ON_CPU, "--model", "x0_25", "--image-size", "32", "--batch-size", "4")
LARGE_PHOTOS = 64
PARTS = ("simulated", "fed", "sweep", "equal")
HOUR = 3600.0
PUT_WRONG = {"decode_threads": 1, "prefetch": 1}
THREADS, QUEUES = (1, 2, 3, 4), (1, 2, 3, 4, 6, 8, 12)
# What each loader can be set to.
SWEPT: dict[str, dict[str, tuple[Any, ...]]] = {
    "dali": {"decode_threads": THREADS, "prefetch": QUEUES, "resize": ("auto", "dali")},
    "opencv": {"workers": THREADS, "prefetch": QUEUES},
}
# The measured seconds of a run of the sweep, and of a trial.
SECONDS = "8"
# Runs of each of two settings that are compared at last, in turns.
RUNS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--equal", type=int, default=20)
    parser.add_argument("--results", type=Path, default=Path("results/tuning-bench"))
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--searches", type=int, default=200)
    arguments = parser.parse_args()
    if "simulated" in arguments.part:
        simulated(arguments.searches)
    if arguments.part == ["simulated"]:
        return
    arguments.results.mkdir(parents=True, exist_ok=True)
    data = arguments.results / "large"
    if not (data / "train_list.txt").exists():
        write_large_photos(data, LARGE_PHOTOS)
    loader_bound = (*LOADER_BOUND, "--data", str(data))
    if "fed" in arguments.part:
        found = tune(arguments.results, "fed", *ON_CPU, "--model", "x1_0")
        print(f"compute-bound: {found['stop']}, {found['outcome']}, after {found['seconds']:.0f} s of trials")
    if "sweep" in arguments.part:
        beside_sweep(arguments.results, arguments.times, loader_bound)
    if "equal" in arguments.part:
        gains = 0
        for number in range(arguments.equal):
            options = ("--prefetch", "3", "--vary", "prefetch", "--max-seconds", SECONDS)
            found = tune(arguments.results, f"equal{number}", *loader_bound, *options)
            gains += found["outcome"] == CONFIRMED
            line = f"equal {number + 1}: {found['outcome']} after {found['trials']} trials, {found['seconds']:.0f} s"
            print(line, flush=True)
        print(f"equal settings: a gain reported {gains} times of {arguments.equal}")


def simulated(searches: int) -> None:
    """Search on the machines of the tests, whose trials take no time."""
    knobs = [knob for knob in KNOBS if knob.name in USUAL]
    put_wrong = DEFAULT.but("decode_threads", 1).but("prefetch", 1)
    shares, trials, outcomes = [], [], Counter[str]()
    for seed in range(searches):
        machine = Machine(loader_bound, 12.5 * BEST, seed=seed)
        shares.append(loader_bound(search(put_wrong, knobs, SCOPE, Trials(machine.run, HOUR)).best) / BEST)
        trials.append(len(machine.made))
        equal = Machine(lambda _: BEST, 2 * BEST, seed=seed)
        outcomes[search(DEFAULT, knobs, SCOPE, Trials(equal.run, HOUR)).outcome] += 1
    near = sum(share >= 0.97 for share in shares) / searches
    print(f"simulated: {near:.0%} of {searches} searches within 3 % of the best, the worst {min(shares):.3f} of it")
    print(f"  {statistics.fmean(trials):.0f} trials on average; equal settings: {dict(outcomes)}", flush=True)


def beside_sweep(results: Path, times: int, options: tuple[str, ...]) -> None:
    """Measure every combination, then tune, and compare what was found with the best of them."""
    rates: dict[Candidate, float] = {}
    spent = 0.0
    for loader, values in SWEPT.items():
        for one in itertools.product(*values.values()):
            candidate = Candidate.of(loader=loader, **dict(zip(values, one, strict=True)))
            rates[candidate], took = rate(results, "sweep", candidate, options)
            spent += took
    best = max(rates, key=lambda candidate: rates[candidate])
    print(f"sweep: {len(rates)} combinations, {spent:.0f} s; best {best.as_dict()}: {rates[best]:.1f} images/s")
    wrong = Candidate.of(loader="dali", resize="auto", **PUT_WRONG)
    print(f"  put in: {rates[wrong]:.1f} images/s", flush=True)
    for number in range(times):
        found = tune(results, f"tuner{number}", *options, "--max-seconds", SECONDS, *words(Candidate.of(**PUT_WRONG)))
        loader = found["best"]["loader"]
        tuned = Candidate.of(loader=loader, **{name: found["best"][name] for name in SWEPT[loader]})
        of_both: dict[Candidate, list[float]] = {tuned: [], best: []}
        for run in range(RUNS):
            for candidate in (tuned, best) if run % 2 == 0 else (best, tuned):
                precise = (*options, "--phases", "end_to_end")
                of_both[candidate].append(rate(results, f"run{run}", candidate, precise)[0])
        ratio = statistics.geometric_mean(of_both[tuned]) / statistics.geometric_mean(of_both[best])
        print(
            f"tuner {number + 1}: {tuned.as_dict()}, {found['outcome']}: {ratio:.3f} of the best,"
            f" {found['trials']} trials, {found['seconds']:.0f} s, {found['seconds'] / spent:.2f} of the sweep's time",
            flush=True,
        )


def words(candidate: Candidate) -> list[str]:
    """The options of a candidate."""
    return [word for name, value in candidate.values for word in ("--" + name.replace("_", "-"), str(value))]


def rate(results: Path, mark: str, candidate: Candidate, options: tuple[str, ...]) -> tuple[float, float]:
    """The end-to-end rate of a run, in images per second, and the seconds that it took."""
    name = "-".join([mark, *(str(value) for _, value in candidate.values)])
    record = throughput(results, name, "--max-seconds", SECONDS, *options, *words(candidate))
    ended = RunFiles(results, name).record.stat().st_mtime
    return record.summary["fps"], ended - record.attempts[0]["begun_unix_seconds"]


def tune(results: Path, name: str, *options: str) -> dict[str, Any]:
    """What a tuning found, with the number of its trials and the seconds that they took."""
    files = TuningFiles(results, name)
    if not files.record.exists():
        bench("tune", *options, "--results", str(results), "--run-name", name)
    tuning = read_tuning(files.record)
    seconds = sum(trial.seconds for trial in tuning.trials)
    return {**tuning.found, "trials": len(tuning.trials), "seconds": seconds}


if __name__ == "__main__":
    main()
