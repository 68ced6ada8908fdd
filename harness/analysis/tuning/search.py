"""The tuner's search: from the default along one setting after another, then the winner against the default."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.analysis.comparing.compare import Difference, Side, compare
from harness.analysis.remedies import PIPELINE_STAGE
from harness.analysis.tuning.knobs import Knob, Scope, neighbours
from harness.analysis.tuning.race import Noise, race
from harness.analysis.tuning.trial import CONFIRMATION, HEADSPACE, SEARCH, Candidate, Trial, rates, usual_disturbances

# Why the search ended.
ALREADY_FED, NO_BETTER_SETTING, OUT_OF_TIME, DISTURBED, WINNER_FAILED = (
    "already_fed",
    "no_better_setting",
    "out_of_time",
    "disturbed",
    "winner_failed",
)
# What became of the winner; DEFAULT_KEPT: no other setting won.
CONFIRMED, NOT_CONFIRMED, DEFAULT_KEPT = "confirmed", "not_confirmed", "default_kept"
# Trials of one candidate in a row that may be disturbed.
MAX_TRIES = 3
# The winner and the default alternate in blocks of four trials, A/B/B/A; after each the difference may be clear.
CONFIRMATION_BLOCKS = 3
BLOCK_TRIALS = 4

RunTrial = Callable[[Candidate, str], Trial]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found.

    stop is why the search ended; outcome is what became of its winner, which is None if nothing beat the default.
    difference is the winner's rate compared with the default's in the confirming trials; None without them.
    """

    default: Candidate
    winner: Candidate | None
    stop: str
    outcome: str
    difference: Difference | None = None

    @property
    def best(self) -> Candidate:
        """The winner if it was confirmed, else the default."""
        return self.winner if self.winner is not None and self.outcome == CONFIRMED else self.default

    def as_stored(self) -> dict[str, Any]:
        """The parts by name, as plain values."""
        return {
            "default": self.default.as_dict(),
            "best": self.best.as_dict(),
            "winner": None if self.winner is None else self.winner.as_dict(),
            "stop": self.stop,
            "outcome": self.outcome,
            "difference": None if self.difference is None else asdict(self.difference),
        }


class _StopSearch(Exception):  # noqa: N818 - it isn't an error
    """The search ends here; the reason is its argument."""


@dataclass(slots=True)
class Trials:
    """Makes trials, repeats those that were disturbed, and ends the search when its time is up.

    seconds is the time that all trials may take. usual is what disturbs no trial, see `usual_disturbances`; None until
    the first candidate is measured.
    """

    run: RunTrial
    seconds: float
    made: list[Trial] = field(default_factory=list)
    usual: frozenset[str] | None = None

    @property
    def typical_seconds(self) -> float:
        """The median time of a trial."""
        return statistics.median(trial.seconds for trial in self.made) if self.made else 0.0

    def has_time_for(self, count: int) -> bool:
        """Whether a number of trials should end in time."""
        return sum(trial.seconds for trial in self.made) + count * self.typical_seconds <= self.seconds

    def measure(self, candidate: Candidate, purpose: str) -> Trial:
        """A trial of the candidate that nothing unusual disturbed. Raises _StopSearch if every try was disturbed."""
        tries = []
        for _ in range(MAX_TRIES):
            trial = self.run(candidate, purpose)
            self.made.append(trial)
            tries.append(trial)
            if not set(trial.disturbed) - (self.usual or frozenset()):
                break
        else:
            if self.usual is not None:
                raise _StopSearch(DISTURBED)
        if self.usual is None:
            self.usual = usual_disturbances(tries)
            if set(tries[-1].disturbed) - self.usual:
                raise _StopSearch(DISTURBED)
        return tries[-1]


def before_disturbance(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Returns the trials before those whose disturbance ended a search: from there on it can be resumed."""
    usual = usual_disturbances(trials)
    for place in range(len(trials) - MAX_TRIES + 1):
        tries = trials[place : place + MAX_TRIES]
        same = len({(one.candidate, one.purpose) for one in tries}) == 1
        if same and all(set(one.disturbed) - usual for one in tries):
            return tuple(trials[:place])
    return tuple(trials)


def tune(default: Candidate, knobs: Sequence[Knob], scope: Scope, trials: Trials) -> Tuned:
    """Search for a faster candidate along the knobs, and confirm it."""
    search = _Search(knobs, scope, trials, default)
    try:
        stop = search.run()
    except _StopSearch as stopped:
        stop = str(stopped)
    winner = search.best
    if winner == default:
        return Tuned(default, None, stop, DEFAULT_KEPT)
    try:
        difference = _confirm(default, winner, trials, search.noise)
    except _StopSearch as stopped:
        return Tuned(default, winner, str(stopped), NOT_CONFIRMED)
    is_gain = _is_gain(difference, search.noise)
    return Tuned(default, winner, stop, CONFIRMED if is_gain else NOT_CONFIRMED, difference)


@dataclass(slots=True)
class _Search:
    """A search along knobs; best is the candidate that it has come to."""

    knobs: Sequence[Knob]
    scope: Scope
    trials: Trials
    best: Candidate
    fed: bool = False
    noise: Noise = field(default_factory=Noise)
    seen: set[Candidate] = field(default_factory=set)

    def run(self) -> str:
        """Search until no knob brings more. Returns why it ended."""
        first = self.trials.measure(self.best, HEADSPACE)
        self.fed = first.is_fed
        self.seen = {self.best}
        while True:
            before = self.best
            for knob in self.knobs:
                self._climb(knob)
            if all(map(self._is_idle, self.knobs)):
                return ALREADY_FED
            if self.best == before:
                return NO_BETTER_SETTING

    def _is_idle(self, knob: Knob) -> bool:
        """Whether the knob's stage is one that doesn't limit training."""
        return self.fed and knob.stage == PIPELINE_STAGE

    def _climb(self, knob: Knob) -> None:
        """Move along a knob as long as that brings a gain. What lost to a slower candidate can't win any more."""
        while not self._is_idle(knob):
            rivals = [rival for rival in neighbours(knob, self.best, self.scope) if rival not in self.seen]
            self.seen.update(rivals)
            found = race(self.best, rivals, self._measure, self.noise) if rivals else None
            if found is None:
                return
            self.best = found

    def _measure(self, candidate: Candidate) -> Trial:
        # What is left must suffice to confirm the winner.
        if not self.trials.has_time_for(1 + BLOCK_TRIALS):
            raise _StopSearch(OUT_OF_TIME)
        trial = self.trials.measure(candidate, SEARCH)
        if candidate == self.best and not trial.failure:
            self.fed = trial.is_fed
        return trial


def _confirm(default: Candidate, winner: Candidate, trials: Trials, noise: Noise) -> Difference:
    """Compare the winner with the default in trials of their own, by Welch's test, until the difference is clear."""
    made: dict[Candidate, list[Trial]] = {default: [], winner: []}
    for block in range(CONFIRMATION_BLOCKS):
        a, b = (default, winner) if block % 2 == 0 else (winner, default)
        for candidate in (a, b, b, a):
            trial = trials.measure(candidate, CONFIRMATION)
            if trial.failure:
                raise _StopSearch(WINNER_FAILED)
            made[candidate].append(trial)
        difference = compare(*(Side("", tuple(rates(made[one])), None, None) for one in (default, winner)))
        if _is_gain(difference, noise) or difference.change <= 0 or not trials.has_time_for(BLOCK_TRIALS):
            break
    return difference


def _is_gain(difference: Difference, noise: Noise) -> bool:
    return difference.verdict == "faster" and math.log1p(difference.change) >= noise.worthwhile
