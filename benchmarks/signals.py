"""Sends runs the signals that end a run, resumes them, and compares the result with that of an undisturbed run.

Six signals (HUP, INT, TERM, USR1, USR2 and KILL), each during training, an evaluation and a checkpoint, each to all
processes of a run of two ranks at once: the launching process, Paddle's launcher and the ranks. All but KILL come
twice, as from a scheduler that repeats itself, and the run must end with exit 75. Prints a line per signal, and exits
with 1 unless all results are equal, bit for bit.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from benchmarks.disturbed import Job, finish, strike
from benchmarks.kills import MOMENTS
from harness.errors import INTERRUPTED_EXIT_CODE
from harness.launch.signals import STOP_SIGNALS
from tests.support.data_sets import write_noise

RANKS = 2
EPOCH = 2
REPEAT_SECONDS = 0.1
# A moment may be over before it is seen, as a checkpoint takes milliseconds.
MAX_ATTEMPTS = 5
SIGNALS = (*STOP_SIGNALS, signal.SIGKILL)


def send(number: signal.Signals, processes: Mapping[str, psutil.Process]) -> bool:
    """Send every process of a run the signal, twice unless it kills. Returns whether all of them exist."""
    if len(processes) < 2 + RANKS:
        return False
    for again in (False, True):
        for process in processes.values():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number == signal.SIGKILL or again:
            return True
        time.sleep(REPEAT_SECONDS)
    return True


def campaign(signals: Sequence[signal.Signals], moments: Sequence[str], say: Callable[[str], None], job: Job) -> int:
    """Send each signal at each moment. Returns how many runs ended or resumed otherwise than they should."""
    write_noise(job.data, 160, 96)
    truth = finish(job, "undisturbed", RANKS)
    wrong = 0
    for number in signals:
        for moment in moments:
            for attempt in range(MAX_ATTEMPTS):
                run = f"{number.name}-{moment}-{attempt}"
                struck = strike(job, run, RANKS, moment, EPOCH, 0.0, partial(send, number))
                if not struck.missed:
                    break
            expected = -number if number == signal.SIGKILL else INTERRUPTED_EXIT_CODE
            faults = finish(job, run, RANKS).differs(truth)
            if struck.missed or struck.code != expected:
                faults.insert(0, f"exit {struck.code}")
            wrong += bool(faults)
            say(f"{run}: {struck.seen}: {'wrong: ' + ', '.join(faults) if faults else 'equal'}")
    return wrong


def main() -> int:
    """Run the campaign and print each signal. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", nargs="+", default=[one.name for one in SIGNALS], help="such as SIGHUP")
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=MOMENTS)
    parser.add_argument("--device", default="cpu", help="kind of device, as run_bench.py knows it")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pplcnet-signals-"))
    job = Job(given.device, folder / "data", folder)
    try:
        numbers = [signal.Signals[name] for name in given.signals]
        wrong = campaign(numbers, given.moments, lambda line: print(line, flush=True), job)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(numbers) * len(given.moments) - wrong} of {len(numbers) * len(given.moments)} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
