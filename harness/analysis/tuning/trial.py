"""A trial of the tuner: the settings of a short run, and the rates that it measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.analysis.remedies import COMPUTE_STAGE, MIN_GAIN

# What a trial is for.
HEADSPACE, SEARCH, CONFIRMATION = "headspace", "search", "confirmation"
# Where computing is the bottleneck, training counts as fed from this gain of data that costs no time.
FED_BESIDE_COMPUTE = 1 / 0.9


@dataclass(frozen=True, slots=True)
class Candidate:
    """The values of the settings that are varied, by name; equal values make equal candidates."""

    values: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, **values: Any) -> Candidate:
        """The candidate with these values."""
        return cls(tuple(sorted(values.items())))

    def as_dict(self) -> dict[str, Any]:
        """The values by name."""
        return dict(self.values)

    def __getitem__(self, name: str) -> Any:
        """The value of a setting."""
        return dict(self.values)[name]

    def but(self, name: str, value: Any) -> Candidate:
        """The candidate that differs in one setting."""
        return Candidate.of(**{**dict(self.values), name: value})

    def changes(self, default: Candidate) -> dict[str, Any]:
        """The values that differ from another candidate's."""
        return {name: value for name, value in self.values if default[name] != value}


@dataclass(frozen=True, slots=True)
class Trial:
    """One short run. Rates are global, in images per second; unknown ones of a trial that failed are None.

    settings are those that the libraries reported back. relative_standard_error and degrees_of_freedom are those of the
    end-to-end rate, fps. data_gain is compute_fps / fps. step_seconds_p50 and step_seconds_p99 are end to end's; the
    latter is None below 100 steps. disturbed names what disturbed it from outside. seconds is what it took, start
    included. failure is why it measured nothing; empty if it did.
    """

    number: int
    purpose: str
    candidate: Candidate
    seconds: float
    run: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    fps: float | None = None
    fps_low: float | None = None
    fps_high: float | None = None
    relative_standard_error: float | None = None
    degrees_of_freedom: float | None = None
    pipeline_fps: float | None = None
    compute_fps: float | None = None
    data_gain: float | None = None
    bottleneck: str | None = None
    step_seconds_p50: float | None = None
    step_seconds_p99: float | None = None
    disturbed: tuple[str, ...] = ()
    failure: str = ""

    @property
    def is_fed(self) -> bool:
        """Whether no other way to load images can make training much faster."""
        gain = 1.0 if self.data_gain is None else self.data_gain
        return gain < (FED_BESIDE_COMPUTE if self.bottleneck == COMPUTE_STAGE else MIN_GAIN)


def rates(trials: Sequence[Trial]) -> list[float]:
    """The end-to-end rates of trials that measured one, in images per second."""
    return [trial.fps for trial in trials if trial.fps is not None]


def mean_rate(trials: Sequence[Trial]) -> float:
    """The geometric mean of their end-to-end rates, in images per second."""
    return math.exp(statistics.fmean(map(math.log, rates(trials))))


def usual_disturbances(trials: Sequence[Trial]) -> frozenset[str]:
    """What disturbed every try of the first candidate: the machine's usual state, which disturbs no other trial."""
    tries = [frozenset(trial.disturbed) for trial in trials if trial.purpose == HEADSPACE]
    return frozenset.intersection(*tries) if tries else frozenset()
