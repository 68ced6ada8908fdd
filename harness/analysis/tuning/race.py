"""Compares candidates with the best one so far in interleaved trials, and drops those that can't win."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from harness.analysis.comparing.compare import RUN_TO_RUN
from harness.analysis.tuning.trial import Candidate, Trial, mean_rate, rates

# A smaller gain isn't worth a change of settings, and hardly distinguishable from noise.
MIN_CHANGE = 0.03
# A candidate that has not won after this number of trials counts as not better.
MAX_ROUNDS = 6
# The probability that noise alone makes a rival win in one look, and that it drops one that has a worthwhile gain.
# Below 0.05, as there are several looks and rivals.
SURE_TO_WIN, SURE_TO_LOSE = 0.01, 0.1
# A gain must also be this number of standard deviations between trials of one candidate: to chase less would take a
# search more time than it saves.
SPREADS = 1.8
# The number of trials that the assumed spread between runs counts for, beside the measured one.
PRIOR_TRIALS = 10

Measure = Callable[[Candidate], Trial]


@dataclass(slots=True)
class Noise:
    """How much trials of one candidate differ, as far as a search knows: the variance of the logarithm of their rates.

    squares is the sum of squares about each candidate's mean in a race, degrees its degrees of freedom. A search begins
    with what is assumed of runs in general, which the trials that it makes soon outweigh: noise is the machine's.
    """

    squares: float = PRIOR_TRIALS * RUN_TO_RUN**2
    degrees: float = PRIOR_TRIALS

    @property
    def spread(self) -> float:
        """The standard deviation, about as a share of the rate."""
        return math.sqrt(self.squares / self.degrees)

    @property
    def worthwhile(self) -> float:
        """The smallest gain that is worth a change of settings, as the logarithm of the ratio of two rates."""
        return max(math.log1p(MIN_CHANGE), SPREADS * self.spread)

    def and_of(self, made: Mapping[Candidate, Sequence[Trial]]) -> Noise:
        """The noise with that of a race's trials."""
        squares, degrees = self.squares, self.degrees
        for trials in made.values():
            logarithms = [math.log(rate) for rate in rates(trials)]
            if len(logarithms) > 1:
                squares += statistics.variance(logarithms) * (len(logarithms) - 1)
                degrees += len(logarithms) - 1
        return Noise(squares, degrees)


def race(
    best: Candidate, rivals: Sequence[Candidate], measure: Measure, noise: Noise | None = None
) -> Candidate | None:
    """Returns the rival that is faster than the best by a worthwhile gain, beyond noise; None if none is.

    noise is that of the search so far, to which the race's is added. Each round measures every candidate that is left
    once, in alternating order, so that drift affects all alike. A rival is dropped when it fails, and when it hardly
    has a worthwhile gain. None, too, if the best fails.
    """
    noise = noise or Noise()
    made: dict[Candidate, list[Trial]] = {best: [], **{rival: [] for rival in rivals}}
    try:
        return _raced(best, list(rivals), made, measure, noise)
    finally:
        known = noise.and_of(made)
        noise.squares, noise.degrees = known.squares, known.degrees


def _raced(
    best: Candidate, left: list[Candidate], made: dict[Candidate, list[Trial]], measure: Measure, noise: Noise
) -> Candidate | None:
    """The race; it notes every trial in made."""
    for number in range(MAX_ROUNDS):
        in_order = [best, *left]
        for candidate in in_order if number % 2 == 0 else reversed(in_order):
            trial = measure(candidate)
            made[candidate].append(trial)
            if trial.failure and candidate == best:
                return None
            if trial.failure:
                left.remove(candidate)
        gains = {rival: gain(made, best, rival, noise) for rival in left}
        winners = [rival for rival, found in gains.items() if found.is_win]
        if winners:
            return max(winners, key=lambda rival: gains[rival].log_ratio)
        left = [rival for rival, found in gains.items() if not found.is_lost]
        if not left:
            return None
    return None


@dataclass(frozen=True, slots=True)
class RaceGain:
    """How much faster one candidate is than another: the logarithm of the ratio of their rates, and its error.

    worthwhile is the smallest one that is worth a change of settings, also as a logarithm.
    """

    log_ratio: float
    standard_error: float
    degrees_of_freedom: float
    worthwhile: float = math.log1p(MIN_CHANGE)

    @property
    def is_win(self) -> bool:
        """Whether it is worthwhile, and noise alone makes it as large only with probability SURE_TO_WIN."""
        return self.log_ratio >= self.worthwhile and self._probability_above(0.0) < SURE_TO_WIN

    @property
    def is_lost(self) -> bool:
        """Whether noise alone makes a gain that is worthwhile as small only with probability SURE_TO_LOSE."""
        return 1 - self._probability_above(self.worthwhile) < SURE_TO_LOSE

    def _probability_above(self, true: float) -> float:
        """The probability that noise makes a true gain at least as large as this one."""
        return float(special.stdtr(self.degrees_of_freedom, (true - self.log_ratio) / self.standard_error))


def gain(made: Mapping[Candidate, Sequence[Trial]], a: Candidate, b: Candidate, noise: Noise) -> RaceGain:
    """Returns the gain of b over a in a race; noise is that of the search before it.

    The variance is pooled over all candidates of the race and of the search, because two or three trials alone would
    say too little about their spread: a moderated t-test. Source: Smyth, "Linear models and empirical Bayes methods for
    assessing differential expression" (Statistical Applications in Genetics and Molecular Biology 3, 2004).
    """
    known = noise.and_of(made)
    error = known.spread * math.sqrt(1 / len(rates(made[a])) + 1 / len(rates(made[b])))
    return RaceGain(math.log(mean_rate(made[b]) / mean_rate(made[a])), error, known.degrees, known.worthwhile)
