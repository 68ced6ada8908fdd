"""Kills runs at random moments, resumes them, and compares the result with that of an undisturbed run.

Every kill is a SIGKILL of one process (the launching process, Paddle's launcher or a rank) during training, an
evaluation or a checkpoint. A campaign prints a line per kill, and exits with 1 unless all results are equal, bit for
bit.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from benchmarks.disturbed import EPOCHS_RUN, Job, finish, saved_values, strike
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import CHECKPOINT, EVALUATE, TRAIN
from harness.commands.data.pack import pack
from pipelines.packed.shards import FORMATS
from tests.support.data_sets import write_noise

MOMENTS = (TRAIN, EVALUATE, CHECKPOINT)
VICTIMS = ("run", "launcher", "rank 0", "rank 1")


def _killed(victim: str, processes: Mapping[str, psutil.Process]) -> bool:
    if victim in processes:
        processes[victim].send_signal(signal.SIGKILL)
    return victim in processes


def campaign(
    kills: int,
    seed: int,
    say: Callable[[str], None],
    job: Job,
    ranks: Sequence[int] = (1, 2),
    packed: str | None = None,
) -> int:
    """Kill runs the given number of times. Returns how many results differ from those of undisturbed runs.

    packed is the format of the shards that the images are in; None for files of their own.
    """
    write_noise(job.data, 160, 96)
    if packed is not None:
        shards = job.data.with_name("shards")
        pack(str(job.data), str(shards), packed)
        job = replace(job, data=shards)
    truth = {count: finish(job, f"undisturbed{count}", count) for count in ranks}
    say(f"undisturbed: {len(truth[ranks[0]].steps)} rows on {ranks[0]} ranks")
    wrong, done = 0, 0
    choose = random.Random(seed)  # noqa: S311
    for number in itertools.count():
        if done >= kills:
            break
        count = choose.choice(ranks)
        run = f"run{number}"
        for _ in range(choose.randint(1, 3)):
            moment, victim = choose.choice(MOMENTS), choose.choice(VICTIMS[: 2 + count])
            reached = saved_values(RunFiles(job.results, run)).get("progress", {}).get("epoch", 1)
            if reached > EPOCHS_RUN:
                break
            epoch = choose.randint(reached, EPOCHS_RUN)
            delay = 0.0 if moment == CHECKPOINT else choose.uniform(0.0, 0.15)
            struck = strike(job, run, count, moment, epoch, delay, partial(_killed, victim))
            say(f"{run}: {victim} of {count} ranks killed during {moment} of epoch {epoch}: {struck.seen}")
            if struck.seen == "finished":
                break
            done += not struck.missed
        differing = finish(job, run, count).differs(truth[count])
        wrong += bool(differing)
        say(f"{run}: {'not equal: ' + ', '.join(differing) if differing else 'equal'}")
    say(f"{done} processes killed")
    return wrong


def main() -> int:
    """Run a campaign and print each kill. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="kind of device, as run_bench.py knows it")
    parser.add_argument("--packed", choices=FORMATS, help="put the images into shards of this format")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pplcnet-kills-"))
    job = Job(given.device, folder / "data", folder)
    try:
        wrong = campaign(given.kills, given.seed, lambda line: print(line, flush=True), job, packed=given.packed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{wrong} results differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
