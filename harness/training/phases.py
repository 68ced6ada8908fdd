"""What a throughput run measures and in which order: phases in rounds, so that drift affects all of them equally."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.analysis.interval import MIN_WINDOW_SECONDS, MIN_WINDOW_STEPS, mean_estimate
from harness.analysis.steady import MIN_STEPS, find_steady_state
from harness.artifacts.schema import (
    COMPUTE,
    COMPUTE_NO_SYNC,
    PIPELINE,
    PIPELINE_BESIDE,
    TRAIN,
    TRAIN_BESIDE,
)
from harness.plan.plan import WindowPlan
from harness.training.loop import Consumer, GlobalStep
from pipelines.batch import Source

# How a round's time is divided: most goes to the figure that a run is made for, and to what it is compared with.
SHARES = {
    PIPELINE: 1.0,
    TRAIN: 4.0,
    PIPELINE_BESIDE: 1.0,
    TRAIN_BESIDE: 4.0,
    COMPUTE: 3.0,
    COMPUTE_NO_SYNC: 2.0,
}
# The loader that a phase takes batches from, the run's own or the one beside it; the others cycle through cached ones.
OWN, BESIDE = "own", "beside"
PHASE_LOADERS = {PIPELINE: OWN, TRAIN: OWN, PIPELINE_BESIDE: BESIDE, TRAIN_BESIDE: BESIDE}
# Shares of the run's time: at most for the search for the warm-up's end, and for one round, which takes at most
# ROUND_SECONDS.
WARM_UP_SHARE, ROUND_SHARE, ROUND_SECONDS = 0.15, 0.2, 22.0
# Fewer rounds than this don't interleave the phases.
MIN_ROUNDS = 3
# What ends a throughput run: the names of the options that decide it.
TARGET_CI, MAX_SECONDS = "target_ci", "max_seconds"
# The search for the warm-up's end is repeated whenever the number of steps has grown by this factor.
GROWTH = 1.1


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase to measure: what yields batches, and what consumes them.

    transition_steps is the number of a segment's first steps in which the previous phase still has an effect; share is
    the phase's weight in a round's time. loader is the one that makes its batches (see PHASE_LOADERS); None if they are
    made already. batches_ahead is the length of that loader's queue.
    """

    name: str
    source: Source
    consume: Consumer
    transition_steps: int
    share: float
    loader: str | None
    trains: bool
    batches_ahead: int


Done = Callable[[GlobalStep], bool]
# Whether a step of a segment is one of the first, in which the previous phase still has an effect.
InTransition = Callable[[GlobalStep], bool]


def interleave(
    phases: Sequence[Phase],
    run_segment: Callable[[Phase, Done, InTransition], list[GlobalStep]],
    window: WindowPlan,
    agree: Callable[[bool], bool],
) -> str:
    """Warm up with training, then measure the phases in rounds until training's throughput is precise or time is up.

    phases: in the order of a round; the one named TRAIN is warmed up, and its precision decides. run_segment runs one
    phase until done and returns its steps; agree turns one rank's decision into every rank's. A round begins only if it
    should end in time, but there is at least one, unless the warm-up alone took all the time. A loader whose batches
    were just taken fills its queue again, at the pace of its last pipeline-only segment: a phase that takes none of
    them is in transition until then.

    Returns the option that ended it: TARGET_CI or MAX_SECONDS.
    """
    round_seconds = min(ROUND_SECONDS, ROUND_SHARE * window.max_seconds)
    training = next(phase for phase in phases if phase.name == TRAIN)
    shares = sum(phase.share for phase in phases)
    warm = run_segment(training, _warm_up_end(window), _transition(0, 0.0))
    series = [step.step_seconds for step in warm]
    spent = warm[-1].end_seconds
    # Seconds in which a loader fills its queue, and the loader whose queue the previous phase may have left empty.
    filling: dict[str | None, float] = {}
    emptied = training.loader
    if agree(spent >= window.max_seconds):
        return MAX_SECONDS
    for number in itertools.count(1):
        begun = spent
        for phase in phases:
            waits = filling.get(emptied, 0.0) if phase.loader != emptied else 0.0
            in_transition = _transition(phase.transition_steps, waits)
            emptied = phase.loader
            steps = run_segment(phase, _segment_end(in_transition, round_seconds * phase.share / shares), in_transition)
            spent += steps[-1].end_seconds
            counted = [step.step_seconds for step in steps if not in_transition(step)]
            if phase is training:
                series += counted
            elif not phase.trains:
                filling[phase.loader] = phase.batches_ahead * sum(counted) / len(counted)
        precise = number >= MIN_ROUNDS and is_precise(series, window)
        if agree(precise or spent + (spent - begun) > window.max_seconds):
            return TARGET_CI if precise else MAX_SECONDS
    raise AssertionError  # not reached: only the return above ends the rounds


def is_precise(step_seconds: Sequence[float], window: WindowPlan) -> bool:
    """Whether the steps after the warm-up are steady, and their mean as precise as wanted."""
    state = find_steady_state(step_seconds, window.warmup_steps, window.given_warmup)
    measured = step_seconds[state.warmup_steps :]
    if not state.steady or len(measured) < MIN_WINDOW_STEPS or sum(measured) < MIN_WINDOW_SECONDS:
        return False
    half_width = mean_estimate(measured).relative_half_width
    return half_width is not None and half_width <= window.target_ci


def _warm_up_end(window: WindowPlan) -> Done:
    """The end of the first segment: a given warm-up's last step, or where a steady state is found or time is up."""
    series: list[float] = []
    searched_steps = 0

    def done(step: GlobalStep) -> bool:
        nonlocal searched_steps
        series.append(step.step_seconds)
        if step.end_seconds >= window.max_seconds:
            return True
        if window.given_warmup is not None:
            return len(series) >= max(1, window.given_warmup)
        if len(series) < max(1, window.warmup_steps):
            return False
        if step.end_seconds >= WARM_UP_SHARE * window.max_seconds:
            return True
        if len(series) < window.warmup_steps + MIN_STEPS or len(series) < GROWTH * searched_steps:
            return False
        searched_steps = len(series)
        return find_steady_state(series, window.warmup_steps).steady is True

    return done


def _transition(steps: int, seconds: float) -> InTransition:
    """A segment's first steps, and those that begin within its first seconds, are in transition."""

    def in_transition(step: GlobalStep) -> bool:
        return step.index < steps or step.end_seconds - step.step_seconds < seconds

    return in_transition


def _segment_end(in_transition: InTransition, seconds: float) -> Done:
    """The end of a measured segment: its time is over, and a step that counts was made."""

    def done(step: GlobalStep) -> bool:
        return step.end_seconds >= seconds and not in_transition(step)

    return done
