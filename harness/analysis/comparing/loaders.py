"""Two loaders measured in turns within one run: their rates, and how many times as fast the run's own is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.comparing.compare import Side, compare
from harness.analysis.window import PHASE_TITLES, PhaseFigures
from harness.artifacts.schema import PIPELINE, PIPELINE_BESIDE, TRAIN, TRAIN_BESIDE
from harness.plan.plan import RunPlan

# The phases of the run's own loader, and the same of the other.
PAIRS = ((TRAIN, TRAIN_BESIDE), (PIPELINE, PIPELINE_BESIDE))


@dataclass(frozen=True, slots=True)
class LoaderRatio:
    """One phase with both loaders: rates in images per second of all ranks, with their 95 % intervals.

    ratio is the rate with loader over that with beside_loader; its interval is that of `compare` for two runs, as
    another run has other memory and other cores. None is unknown.
    """

    phase: str
    loader: str
    fps: float
    fps_low: float | None
    fps_high: float | None
    beside_loader: str
    beside_fps: float
    beside_fps_low: float | None
    beside_fps_high: float | None
    ratio: float
    ratio_low: float | None
    ratio_high: float | None


def loader_ratios(phases: Mapping[str, PhaseFigures], plan: RunPlan) -> tuple[LoaderRatio, ...]:
    """Returns the ratios of a run's loaders, end to end first; none if the run has only one."""
    if plan.beside is None:
        return ()
    ratios = []
    for own_phase, beside_phase in PAIRS:
        own, beside = phases[own_phase], phases[beside_phase]
        found = compare(_side(plan.beside.loader, beside), _side(plan.pipeline.loader, own))
        ratios.append(
            LoaderRatio(
                phase=PHASE_TITLES[own_phase],
                loader=plan.pipeline.loader,
                fps=own.fps,
                fps_low=own.fps_low,
                fps_high=own.fps_high,
                beside_loader=plan.beside.loader,
                beside_fps=beside.fps,
                beside_fps_low=beside.fps_low,
                beside_fps_high=beside.fps_high,
                ratio=1 + found.change,
                ratio_low=None if found.low is None else 1 + found.low,
                ratio_high=None if found.high is None else 1 + found.high,
            )
        )
    return tuple(ratios)


def _side(loader: str, figures: PhaseFigures) -> Side:
    return Side(loader, (figures.fps,), figures.relative_standard_error, figures.degrees_of_freedom)
