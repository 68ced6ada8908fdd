"""Finds the stage that limits training, whose removal would bring the largest gain, and what makes that doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

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
from harness.analysis.interference import DISTURBED_WINDOW
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
from harness.analysis.window import PHASE_TITLES, PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN
from models.words import count_of

# The gains of two stages count as equal if they differ by at most this factor (benchmarks/verdict_factor.py).
ALIKE = 1.2
SHARED = "shared"
# The bottleneck where the rates of the phases can't be right, or are those of a disturbance.
UNCERTAIN = "uncertain"
MEASURE_AGAIN = (
    "A disturbance or chance decided some of these rates. Run it again while nothing else uses the machine, with a"
    " larger --max-seconds."
)
# A rank slows the others down if it computes longer than the fastest one by this share of a step.
SKEWED = 0.1
# The unexplained share of end to end's time from which on it is reported as evidence.
UNEXPLAINED = 0.05

# The kinds of doubt.
DISTURBED, TOO_SLOW = "disturbed", "too_slow"
# The first phase of a pair has less to do than the second, so that it can't be slower.
AT_LEAST_AS_FAST = ((PIPELINE, TRAIN), (COMPUTE, TRAIN), (COMPUTE_NO_SYNC, COMPUTE))
# Of equal rates one interval in twenty misses the other; so a smaller difference counts as noise in any case.
TOLERATED = 1.02
# Without an interval, noise of a few steps may make any smaller difference.
CLEAR = 1.2


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason to doubt the verdict: phase is DISTURBED or TOO_SLOW, as kind says; reason and detail are for people."""

    phase: str
    kind: str
    reason: str
    detail: str

    @property
    def name(self) -> str:
        """The doubt in a cell of a table."""
        return f"{self.phase}_{self.kind}"


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The stage whose removal brings the largest gain, and whether that is certain.

    name is pipeline, compute, communication or, if the gains of two stages count as equal, shared. contenders are the
    two stages with the largest gains, the larger first. certain is False if the interval of the ratio of their gains
    contains ALIKE, or is unknown.
    """

    name: str
    contenders: tuple[str, str]
    certain: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The bottleneck of the training, with the evidence. All rates are global, in images per second.

    For bottleneck, contenders and certain see `Bottleneck`. doubts are why the phases' rates can't be relied on; with
    any, certain is False, and bottleneck is UNCERTAIN if the rates can't be right, or if another stage would be named
    without the steps that disturbed them. A gain is how many times as fast end to end would be at most if that stage
    cost no time: data C/E, training P/E, communication and computation (training without its exchange) as in
    `harness.analysis.gains`; the latter two are None unless compute_no_sync was measured.
    unexplained_share is the part of end to end's time that remains after subtracting those of pipeline-only and
    compute-only: the stages slow one another down, or something else does. exposed_communication_share is the part of
    compute-only's time that exchanging gradients adds. slowest_rank is None unless it slows the other ranks down.
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
    doubts: tuple[Doubt, ...]
    evidence: tuple[str, ...]
    remedies: tuple[str, ...]


def judge(phases: Mapping[str, PhaseFigures], setting: Setting) -> Verdict:
    """Returns the verdict on phases TRAIN, PIPELINE and COMPUTE, and on COMPUTE_NO_SYNC if ranks exchange gradients."""
    end_to_end, pipeline, compute = (phases[name].fps for name in (TRAIN, PIPELINE, COMPUTE))
    alone = phases.get(COMPUTE_NO_SYNC)
    skewed = alone is not None and alone.rank_skew_share >= SKEWED
    removals = _removals(phases)
    gains = {stage: gain(remaining, phases) for stage, remaining in removals.items()}
    training_gain = gain(without_training, phases)
    found, doubts = find_bottleneck(phases), find_doubts(phases)
    no_answer = any(doubt.kind == TOO_SLOW for doubt in doubts) or find_bottleneck(as_usual(phases)).name != found.name
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
        bottleneck=UNCERTAIN if doubts and no_answer else found.name,
        contenders=found.contenders,
        certain=found.certain and not doubts,
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
        doubts=doubts,
        evidence=_evidence(phases, gains, unexplained, facts.slowest_rank),
        remedies=_what_to_try(facts, doubts, no_answer),
    )


def _what_to_try(facts: Facts, doubts: tuple[Doubt, ...], no_answer: bool) -> tuple[str, ...]:
    """Returns the remedies, those that follow from doubtful figures only where these leave the answer as it is."""
    if not doubts:
        return remedies(facts)
    return (MEASURE_AGAIN,) if no_answer else (MEASURE_AGAIN, *remedies(facts))


def find_bottleneck(phases: Mapping[str, PhaseFigures], alike: float = ALIKE) -> Bottleneck:
    """Returns the stage with the largest gain, or SHARED if the next gain is smaller by at most a factor of alike."""
    removals = _removals(phases)
    gains = {stage: gain(remaining, phases).value for stage, remaining in removals.items()}
    first, second, *others = sorted(gains, key=lambda stage: -gains[stage])
    name = first if gains[first] > alike * gains[second] else SHARED
    # A single bottleneck must exceed all other stages; a shared one is certain if the first two are alike.
    compared = [second, *others] if name == first else [second]
    ratios = [gain_ratio(removals[first], removals[stage], phases) for stage in compared]
    certain = all(
        ratio.low is not None and ratio.high is not None and not ratio.low <= alike <= ratio.high for ratio in ratios
    )
    return Bottleneck(name, (first, second), certain)


def _removals(phases: Mapping[str, PhaseFigures]) -> dict[str, Remaining]:
    """Returns what remains without each stage; training counts as two stages if its communication is known."""
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
            f"Exchanging gradients takes {exposed:.1%} of compute-only's time. If computation cost nothing, but"
            f" gradients were still exchanged: up to {gains[COMPUTE_STAGE].value:.3g} x."
        )
    if slowest_rank is not None:
        lines.append(
            f"Rank {slowest_rank} computes longer than the fastest rank, by"
            f" {phases[COMPUTE_NO_SYNC].rank_skew_share:.0%} of a step."
        )
    if all(found.value < MIN_GAIN for found in gains.values()):
        lines.append("No single stage limits training: removing any one of them would bring less than 5 %.")
    if unexplained >= UNEXPLAINED:
        lines.append(
            f"{unexplained:.1%} of end to end's time is beyond the sum of pipeline-only and compute-only: the stages"
            " slow one another down, or something else does."
        )
    return tuple(lines)


def is_disturbed(figures: PhaseFigures) -> bool:
    """Whether isolated outliers change a phase's rate: they took DISTURBED_WINDOW of its time or more.

    Without an interval for its rate, whether the rate would be CLEAR times as high without them.
    """
    outliers = figures.outliers
    return has_disturbed_rate(figures.fps, figures.relative_standard_error, outliers.usual_fps, outliers.isolated_share)


def has_disturbed_rate(fps: float, error: float | None, usual_fps: float, isolated_share: float) -> bool:
    """Returns `is_disturbed` of a phase with that rate and relative standard error, from its outliers."""
    return usual_fps >= CLEAR * fps if error is None else isolated_share >= DISTURBED_WINDOW


def find_doubts(phases: Mapping[str, PhaseFigures]) -> tuple[Doubt, ...]:
    """Returns why conclusions from the rates of the phases can't be relied on; first the phases that were disturbed."""
    return (*_disturbed(phases), *_too_slow(phases))


def as_usual(phases: Mapping[str, PhaseFigures]) -> dict[str, PhaseFigures]:
    """Returns the phases with their rates (not their intervals) as they would be without isolated outliers."""
    return {name: replace(figures, fps=figures.outliers.usual_fps) for name, figures in phases.items()}


def _disturbed(phases: Mapping[str, PhaseFigures]) -> Iterator[Doubt]:
    for phase, title in PHASE_TITLES.items():
        if phase not in phases or not is_disturbed(phases[phase]):
            continue
        outliers = phases[phase].outliers
        seconds = outliers.isolated_share * phases[phase].window_seconds
        yield Doubt(
            phase,
            DISTURBED,
            f"{title} was disturbed",
            f"{count_of(outliers.isolated_steps, 'step')} of {title} took {seconds:.1f} s longer than usual,"
            f" {outliers.isolated_share:.1%} of the phase's time. Without: {outliers.usual_fps:.1f} images/s.",
        )


def _too_slow(phases: Mapping[str, PhaseFigures]) -> Iterator[Doubt]:
    for less, more in AT_LEAST_AS_FAST:
        if less in phases and more in phases and _is_slower(less, more, phases):
            slow, fast = PHASE_TITLES[less], PHASE_TITLES[more]
            yield Doubt(
                less,
                TOO_SLOW,
                f"can't be right: {slow} was slower than {fast}",
                f"{slow.capitalize()} has less to do than {fast}, but was slower ({phases[less].fps:.1f} and"
                f" {phases[more].fps:.1f} images/s): one of them was disturbed, or has too few steps.",
            )


def _is_slower(less: str, more: str, phases: Mapping[str, PhaseFigures]) -> bool:
    """Whether the rate of one phase is below another's beyond noise. Of a disturbed one the interval says nothing."""
    ratio = gain_ratio(lambda seconds: seconds[less], lambda seconds: seconds[more], phases)
    if ratio.high is None:
        return ratio.value < 1 / CLEAR
    return ratio.value < 1 / TOLERATED and (ratio.high < 1 or is_disturbed(phases[less]))
