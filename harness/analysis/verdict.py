"""Which stage holds the training back: the one whose removal would bring most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.gains import (
    Gain,
    Remaining,
    gain,
    gain_ratio,
    without_communication,
    without_computation,
    without_data,
    without_training,
)
from harness.analysis.remedies import (
    COMMUNICATION_STAGE,
    COMPUTE_STAGE,
    MIN_GAIN,
    PIPELINE_STAGE,
    Facts,
    Setting,
    remedies,
)
from harness.analysis.utilisation import accelerator_utilisation
from harness.analysis.window import PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN

# Two stages whose gains differ by no more than this factor bring alike (benchmarks/verdict_factor.py).
ALIKE = 1.2
SHARED = "shared"
# Of a step: a rank that computes so much longer than the quickest holds the others up.
SKEWED = 0.1
# Of end to end's time, from which it is worth a line of evidence.
UNEXPLAINED = 0.05


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The stage whose removal brings most, and how sure that is.

    name is pipeline, compute, communication or, if two bring alike, shared. contenders are the two stages that bring
    most, the larger first. certain is False where the interval of their gains' ratio holds ALIKE, or is unknown.
    """

    name: str
    contenders: tuple[str, str]
    certain: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the training is bound by, with the evidence. All rates are global, images per second.

    For bottleneck, contenders and certain see `Bottleneck`. The gains say how many times as fast end to end would be
    at most if that cost no time: data C/E, training P/E, communication and (of training, without its exchange)
    computation as in `harness.analysis.gains`; the latter two are None unless compute_no_sync was measured.
    unexplained_share is the part of end to end's time that is left when pipeline-only's and compute-only's are taken
    off it: the stages slow one another down, or something else does. exposed_communication_share is the part of
    compute-only's time that exchanging gradients adds. slowest_rank is None unless it holds the others up.
    """

    bottleneck: str
    contenders: tuple[str, str]
    certain: bool
    data_gain: Gain
    training_gain: Gain
    communication_gain: Gain | None
    computation_gain: Gain | None
    end_to_end_fps: float
    pipeline_fps: float
    compute_fps: float
    compute_no_sync_fps: float | None
    accelerator_util: float
    unexplained_share: float
    exposed_communication_share: float | None
    slowest_rank: int | None
    rank_skew_share: float | None
    evidence: tuple[str, ...]
    remedies: tuple[str, ...]


def judge(phases: Mapping[str, PhaseFigures], setting: Setting) -> Verdict:
    """The verdict on phases TRAIN, PIPELINE and COMPUTE, and COMPUTE_NO_SYNC where ranks exchange gradients."""
    end_to_end, pipeline, compute = (phases[name].fps for name in (TRAIN, PIPELINE, COMPUTE))
    alone = phases.get(COMPUTE_NO_SYNC)
    skewed = alone is not None and alone.rank_skew_share >= SKEWED
    removals = _removals(phases)
    gains = {stage: gain(remaining, phases) for stage, remaining in removals.items()}
    training_gain = gain(without_training, phases)
    found = find_bottleneck(phases)
    deviation = phases[PIPELINE].step_seconds_sd
    facts = Facts(
        setting=setting,
        gains={stage: gain.value for stage, gain in gains.items()},
        training_gain=training_gain.value,
        pipeline_variation=(
            None if deviation is None else deviation * phases[PIPELINE].window_steps / phases[PIPELINE].window_seconds
        ),
        slowest_rank=alone.slowest_rank if alone is not None and skewed else None,
        rank_skew_share=alone.rank_skew_share if alone is not None else 0.0,
    )
    unexplained = max(0.0, 1 - end_to_end / pipeline - end_to_end / compute)
    return Verdict(
        bottleneck=found.name,
        contenders=found.contenders,
        certain=found.certain,
        data_gain=gains[PIPELINE_STAGE],
        training_gain=training_gain,
        communication_gain=gains.get(COMMUNICATION_STAGE),
        computation_gain=None if alone is None else gains[COMPUTE_STAGE],
        end_to_end_fps=end_to_end,
        pipeline_fps=pipeline,
        compute_fps=compute,
        compute_no_sync_fps=None if alone is None else alone.fps,
        accelerator_util=accelerator_utilisation(end_to_end, compute),
        unexplained_share=unexplained,
        exposed_communication_share=None if alone is None else 1 - compute / alone.fps,
        slowest_rank=facts.slowest_rank,
        rank_skew_share=None if alone is None else alone.rank_skew_share,
        evidence=_evidence(phases, gains, unexplained, facts.slowest_rank),
        remedies=remedies(facts),
    )


def find_bottleneck(phases: Mapping[str, PhaseFigures], alike: float = ALIKE) -> Bottleneck:
    """The stage whose removal brings most; SHARED if the next brings it too, up to a factor of alike."""
    removals = _removals(phases)
    gains = {stage: gain(remaining, phases).value for stage, remaining in removals.items()}
    first, second, *others = sorted(gains, key=lambda stage: -gains[stage])
    name = first if gains[first] > alike * gains[second] else SHARED
    # A stage that is named beats each of the others; two that share need only be alike.
    compared = [second, *others] if name == first else [second]
    ratios = [gain_ratio(removals[first], removals[stage], phases) for stage in compared]
    certain = all(
        ratio.low is not None and ratio.high is not None and not ratio.low <= alike <= ratio.high for ratio in ratios
    )
    return Bottleneck(name, (first, second), certain)


def _removals(phases: Mapping[str, PhaseFigures]) -> dict[str, Remaining]:
    """What remains without each stage. Training is computation and communication, where both are known."""
    if COMPUTE_NO_SYNC not in phases:
        return {PIPELINE_STAGE: without_data, COMPUTE_STAGE: without_training}
    return {
        PIPELINE_STAGE: without_data,
        COMPUTE_STAGE: without_computation,
        COMMUNICATION_STAGE: without_communication,
    }


def _evidence(
    phases: Mapping[str, PhaseFigures], gains: Mapping[str, Gain], unexplained: float, slowest_rank: int | None
) -> tuple[str, ...]:
    lines = [f"Steps wait for data {phases[TRAIN].data_wait_share:.1%} of the time."]
    if COMMUNICATION_STAGE in gains:
        exposed = max(1 - phases[COMPUTE].fps / phases[COMPUTE_NO_SYNC].fps, 0.0)
        lines.append(
            f"Exchanging gradients takes {exposed:.1%} of compute-only's time. If they were still exchanged, but"
            f" computing cost nothing: up to {gains[COMPUTE_STAGE].value:.3g} x."
        )
    if slowest_rank is not None:
        lines.append(
            f"Rank {slowest_rank} computes longer than the quickest,"
            f" {phases[COMPUTE_NO_SYNC].rank_skew_share:.0%} of a step."
        )
    if all(found.value < MIN_GAIN for found in gains.values()):
        lines.append("The stages keep pace with one another: no one of them for nothing would bring 5 % or more.")
    if unexplained >= UNEXPLAINED:
        lines.append(
            f"{unexplained:.1%} of end to end's time is more than the pipeline alone and compute-only take one after"
            " the other: they slow one another down, or something else does."
        )
    return tuple(lines)
