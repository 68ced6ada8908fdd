"""Measures what recording and data loading cost training: ratios of one loop with and without, in one process.

usage: overhead.py [--model x1_0] [--image-size 224] [--batch-size 32] [--data photos] [--pairs 5]
                   [--segment-seconds 10]

For each pair three segments of training steps run one after another, so that drift affects all of them:

  compute      cached batches, nothing recorded
  recorded     cached batches, every table written and telemetry running, as in a run
  end to end   batches from DALI, nothing recorded

Prints the medians over the pairs of recorded / compute and end to end / compute, with their range. A ratio's noise may
exceed what recording costs, so the time inside the recorder's calls is printed too, as a share of the step time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.machine.device import choose_devices, worker_environment
from harness.machine.device_kinds import device_kind
from harness.machine.telemetry import telemetry_of
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import RunPlan, facts_of
from pipelines.dataset import Dataset, open_dataset

# The first steps of each segment use batches that DALI had ready before it.
TRANSITION_STEPS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x1_0")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--data", default="photos")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--segment-seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    config = RunConfig(
        throughput_only=True, device="cpu", gpus=1, model=arguments.model, image_size=arguments.image_size,
        batch_size=arguments.batch_size, data=arguments.data,
    )  # fmt: skip
    devices, _ = choose_devices("cpu", 1, os.environ)
    dataset = open_dataset(arguments.data)
    plan = make_plan(config, devices, facts_of(dataset, arguments.data), os.environ)
    # Before Paddle is loaded, as in a worker.
    os.environ.update(worker_environment(devices, plan.training.compute_threads, os.environ, plan.training.tf32))
    in_calls: list[float] = []
    measure = _measurement(config, plan, dataset, arguments.segment_seconds, in_calls)
    ratios: dict[str, list[float]] = {"recorded": [], "end to end": []}
    for pair in range(arguments.pairs):
        speeds = {name: measure(name) for name in ("compute", "recorded", "end to end")}
        for name, found in ratios.items():
            found.append(speeds[name] / speeds["compute"])
        print(f"pair {pair + 1}: " + ", ".join(f"{name} {speed:.2f} images/s" for name, speed in speeds.items()))
    for name, found in ratios.items():
        print(
            f"{name} / compute: median {statistics.median(found):.4f}, range {min(found):.4f} to {max(found):.4f}"
            f" over {len(found)} pairs ({plan.model}, {plan.pipeline.image_size} px, batch {plan.pipeline.batch_size},"
            f" {plan.training.compute_threads} compute and {plan.pipeline.decode_threads} DALI threads)"
        )
    print(f"in the recorder's calls: {statistics.median(in_calls):.5f} of the recorded segments' step time")


def _measurement(
    config: RunConfig, plan: RunPlan, dataset: Dataset, segment_seconds: float, in_calls: list[float]
) -> Callable[[str], float]:
    """Returns a function that runs one segment and returns its images per second.

    For each recorded segment the share of its step time inside the recorder is appended to in_calls.
    """
    from benchmarks.training_segments import TrainingSegments, images_per_second
    from harness.artifacts.bad_image import rule_of
    from harness.artifacts.record import RunFiles
    from harness.artifacts.schema import TRAIN
    from harness.training.loading.bad_images import BadImages
    from harness.training.loading.sources import training_source
    from harness.training.loop import GlobalStep
    from harness.training.recorder import NoRecorder, Recorder, open_recorder
    from harness.training.trainer import Trainer
    from pipelines.source import CachedSource

    training = TrainingSegments(plan)
    clock, ranks, model, train = training.clock, training.ranks, training.model, training.step
    settings = plan.pipeline.of_rank(0)
    bad = BadImages(rule_of(plan), ranks)
    dali = training_source(Trainer(plan, ranks, clock, dataset.splits, settings, model, model, train, bad), settings)
    cached = CachedSource(dali, 4)

    def segment(source: Any, recorder: Recorder) -> float:
        recording_seconds = 0.0

        def emit(step: GlobalStep) -> None:
            nonlocal recording_seconds
            begin = time.perf_counter()
            recorder.step(
                step, clock.started_at, phase=TRAIN, segment=1, step=step.index + 1, learning_rate=0.01, warmup=None
            )
            recording_seconds += time.perf_counter() - begin

        steps = training.run(source, segment_seconds, TRANSITION_STEPS, emit)
        if not isinstance(recorder, NoRecorder):
            in_calls.append(recording_seconds / steps[-1].end_seconds)
        return images_per_second(steps)

    def measure(name: str) -> float:
        if name == "end to end":
            return segment(dali, NoRecorder())
        if name == "compute":
            return segment(cached, NoRecorder())
        with tempfile.TemporaryDirectory() as folder:
            files = RunFiles(Path(folder), "overhead")
            telemetry = telemetry_of(device_kind(plan.device), config.telemetry_library, plan.ranks_per_node)
            with open_recorder(files, telemetry, config.telemetry_interval, os.environ) as recorder:
                return segment(cached, recorder)

    measure("compute")
    return measure


if __name__ == "__main__":
    main()
