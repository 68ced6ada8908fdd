"""Why a throughput run's verdict can't be relied on: phases that were disturbed, and rates that can't be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from harness.analysis.gains import gain_ratio
from harness.analysis.interference import DISTURBED_WINDOW
from harness.analysis.window import PHASE_TITLES, PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN
from models.words import count_of

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


def is_disturbed(figures: PhaseFigures) -> bool:
    """Whether isolated outliers change a phase's rate: they took DISTURBED_WINDOW of its time or more.

    Without an interval for its rate, whether the rate would be CLEAR times as high without them.
    """
    if figures.relative_standard_error is None:
        return figures.outliers.usual_fps >= CLEAR * figures.fps
    return figures.outliers.isolated_share >= DISTURBED_WINDOW


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
