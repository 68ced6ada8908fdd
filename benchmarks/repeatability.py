"""Measures how often `compare` is right: on pairs of equal runs, and on runs that are slowed down on purpose.

usage: repeatability.py [--pairs 20] [--slow 10] [--slowdown 0.10] [--max-seconds 20]

Each run is a new process with one rank (x0_25, 64 px, digits, one compute and one DALI thread). The runs follow one
another pair by pair: first, second, and for the first --slow pairs a run whose training steps are stretched so that its
throughput is lower by --slowdown. Prints every pair's result, the counts, and the spread of equal runs: the standard
deviation of the logarithms of their throughputs, which compare's RUN_TO_RUN must exceed.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.analysis.comparing.compare import Side, compare
from harness.artifacts.record import RunFiles, RunRecord, read_record, write_record
from harness.machine.device import choose_devices, worker_environment
from harness.machine.host import available_cores
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import facts_of
from pipelines.dataset import open_dataset
from pipelines.file_checks import check_files
from pipelines.profile import profile

if TYPE_CHECKING:  # Paddle is loaded after the environment of a worker is set
    from harness.training.recipe import TrainingStep


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--slow", type=int, default=10)
    parser.add_argument("--slowdown", type=float, default=0.10)
    parser.add_argument("--max-seconds", type=float, default=20.0)
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "NAME"), help="be one run, stretched by --slowdown")
    arguments = parser.parse_args()
    if arguments.run:
        _one_run(Path(arguments.run[0]), arguments.run[1], arguments.slowdown, arguments.max_seconds)
        return
    equal, found, logarithms = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, slowdown: float = 0.0) -> Side:
            command = [sys.executable, __file__, "--run", folder, name, "--slowdown", str(slowdown), "--max-seconds",
                       str(arguments.max_seconds)]  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            train = read_record(Path(folder) / f"{name}.json").phases["train"]
            return Side(name, (train["fps"],), train["relative_standard_error"], train["degrees_of_freedom"])

        for pair in range(arguments.pairs):
            first, second = run(f"a{pair}"), run(f"b{pair}")
            difference = compare(first, second)
            equal += difference.verdict == "equal"
            logarithms += [math.log(first.fps[0]), math.log(second.fps[0])]
            line = [f"pair {pair + 1}: {first.fps[0]:.1f} and {second.fps[0]:.1f} images/s, {difference.verdict}"]
            if pair < arguments.slow:
                slow = run(f"s{pair}", arguments.slowdown)
                difference = compare(first, slow)
                found += difference.verdict == "slower"
                line.append(f"{slow.fps[0]:.1f} stretched, {difference.verdict} ({difference.change:+.1%})")
            line.append(f"standard error {first.relative_standard_error or math.nan:.2%}")
            print("; ".join(line), flush=True)
    print(f"called equal: {equal} of {arguments.pairs}; slowdown found: {found} of {arguments.slow}")
    between = [(b - a) / math.sqrt(2) for a, b in zip(logarithms[::2], logarithms[1::2], strict=True)]
    print(f"equal runs: standard deviation {statistics.stdev(logarithms):.2%} over all runs,"
          f" {math.sqrt(statistics.fmean(d * d for d in between)):.2%} within pairs")  # fmt: skip


def _one_run(folder: Path, name: str, slowdown: float, max_seconds: float) -> None:
    config = RunConfig(
        throughput_only=True, device="cpu", gpus=1, model="x0_25", image_size=64, data="digits", batch_size=32,
        compute_threads=1, decode_threads=1, max_seconds=max_seconds, target_ci=0.005,
    )  # fmt: skip
    devices, _ = choose_devices("cpu", 1, os.environ)
    dataset = open_dataset("digits")
    plan = make_plan(config, devices, facts_of(dataset, "digits"), os.environ)
    # Before Paddle is loaded, as in a worker.
    os.environ.update(worker_environment(devices, plan.training.compute_threads, os.environ, plan.training.tf32))
    from harness.analysis.summarize import summarize
    from harness.launch.rank_files import LISTS, leave_lists
    from harness.training.recorder import open_recorder
    from harness.training.stop_signal import StopRequest
    from harness.training.trainer import open_trainer
    from harness.training.worker import measure_throughput

    files = RunFiles(folder, name)
    found = profile(dataset.train, check_files(dataset.train).sizes)
    record = RunRecord(name, "running", config, plan, {"cores": available_cores()}, {"mean_bytes": found.mean_bytes})
    write_record(files.record, record)
    leave_lists(folder, dataset.splits)
    trainer = open_trainer(plan, folder / LISTS)
    trainer.train = _Stretched(trainer.train, slowdown)  # type: ignore[assignment]
    with open_recorder(files, None, plan.operation.telemetry_interval, os.environ) as recorder:
        window_end = measure_throughput(trainer, recorder, StopRequest())
    effective = trainer.effective_settings
    record = replace(record, status="finished", effective_settings=effective, window_end=window_end)
    write_record(files.record, replace(record, **summarize(files, record).as_record()))


class _Stretched:
    """The training step, followed by busy waiting until it has taken 1 / (1 - slowdown) times as long."""

    def __init__(self, train: TrainingStep, slowdown: float) -> None:
        self._train, self._slowdown = train, slowdown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._train, name)

    def __call__(self, *arguments: Any) -> Any:
        begun = time.perf_counter()
        loss = self._train(*arguments)
        until = begun + (time.perf_counter() - begun) / (1 - self._slowdown)
        while time.perf_counter() < until:
            pass
        return loss


if __name__ == "__main__":
    main()
