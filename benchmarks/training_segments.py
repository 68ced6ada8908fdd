"""Segments of training steps in one process, each fed by another source, with the product's own loop and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import models
from harness.machine.device import open_device
from harness.training import recipe
from harness.training.loop import GlobalStep, run_steps
from harness.training.ranks import join

if TYPE_CHECKING:
    from harness.plan.plan import RunPlan
    from pipelines.batch import Source

# Steps that are measured at least.
MIN_STEPS = 3


class TrainingSegments:
    """The training of a plan, of one rank. To be made after Paddle's environment was set, as for a worker."""

    def __init__(self, plan: RunPlan) -> None:
        self.clock = open_device(plan.device, 0)
        self.ranks = join()
        self.model = models.build(plan.model, plan.data.num_classes)
        optimizer = recipe.make_optimizer(self.model, plan.training.momentum, plan.training.weight_decay)
        schedule = recipe.Schedule(0.01, 1, 10**9)
        seeds = (plan.pipeline.seed, 1)
        self.step = recipe.TrainingStep(self.model, optimizer, schedule, plan.training.label_smoothing, seeds)

    def run(
        self, source: Source, seconds: float, first: int, emit: Callable[[GlobalStep], object] = lambda _: None
    ) -> list[GlobalStep]:
        """Train for some seconds after the first steps, which don't count. Returns the steps that do."""
        steps: list[GlobalStep] = []

        def emitted(step: GlobalStep) -> None:
            emit(step)
            steps.append(step)

        begun = 0.0

        def done(step: GlobalStep) -> bool:
            nonlocal begun
            if step.index < first:
                begun = step.end_seconds
            return step.index >= first + MIN_STEPS - 1 and step.end_seconds - begun >= seconds

        run_steps(source, self.step, self.clock, self.ranks, emitted, done)
        return steps[first:]


def images_per_second(steps: list[GlobalStep]) -> float:
    """The throughput of these steps."""
    return sum(step.images for step in steps) / sum(step.step_seconds for step in steps)
