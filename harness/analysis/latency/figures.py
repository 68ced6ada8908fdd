"""The figures of one size with one engine, from its turns."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.latency.medians import MedianEstimate, median_estimate
from harness.analysis.steady import find_steady_state

# Fewer calls don't have a 95th percentile.
MIN_CALLS = 20
# From this share of its turns on, a disturbance makes the row count as disturbed: the median of turns tolerates fewer.
DISTURBED_TURNS = 0.2
# Two medians that are each known to within this differ by twice as much at most. docs/latency.md has how they repeat.
MAX_HALF_WIDTH = 0.015
UNSTEADY = "unsteady"
# What disturbs half of a measurement's rows may slow the others evenly, so that they look steady.
OTHERS_UNSTEADY, DOUBTFUL_ROWS = "others_unsteady", 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """Consecutive calls of one size with one engine, without a break.

    milliseconds are those of each call, in order; warmup_calls is the number of first calls that don't count. disturbed
    are the reasons found outside, such as foreign_cpu. joules is what the turn took, None if unknown; seconds its
    length. logits_error is the largest difference from the trained network's logits, as a share of the largest logit.
    """

    size: str
    engine: str
    round: int
    milliseconds: tuple[float, ...]
    warmup_calls: int
    seconds: float
    logits_error: float = 0.0
    disturbed: tuple[str, ...] = ()
    joules: float | None = None

    @property
    def counted(self) -> tuple[float, ...]:
        """The milliseconds of the calls that count."""
        return self.milliseconds[self.warmup_calls :]

    @property
    def median_ms(self) -> float:
        """The median of the calls that count."""
        return statistics.median(self.counted)

    @property
    def p95_ms(self) -> float | None:
        """The 95th percentile of the calls that count (linear between two of them); None for fewer than MIN_CALLS."""
        return float(np.quantile(self.counted, 0.95)) if len(self.counted) >= MIN_CALLS else None


@dataclass(frozen=True, slots=True)
class Figures:
    """What the turns of one size with one engine come to.

    median and p95 are those of a turn, in ms; of several turns the median is taken. watts and images_per_joule are None
    where no meter is read. disturbed are the reasons that hold in DISTURBED_TURNS of the turns, and UNSTEADY if the
    median is known to no more than MAX_HALF_WIDTH.
    """

    median: MedianEstimate
    p95: MedianEstimate | None
    calls: int
    warmup_calls: int
    watts: float | None
    images_per_joule: float | None
    logits_error: float
    disturbed: tuple[str, ...]
    disturbed_turns: int


def warmup_of(milliseconds: Sequence[float]) -> int:
    """Returns the number of first calls of a turn that are slower because another network ran before; at most half."""
    return find_steady_state(milliseconds).warmup_steps


def figures_of(turns: Sequence[Turn], batch_size: int) -> Figures:
    """Returns the figures of the turns of one size with one engine, at least one, with batch_size images in a call."""
    median = median_estimate([turn.median_ms for turn in turns])
    tails = [turn.p95_ms for turn in turns]
    known = [tail for tail in tails if tail is not None]
    joules = [turn.joules for turn in turns]
    used = sum(one for one in joules if one is not None)
    metered = used if None not in joules and used > 0 else None
    return Figures(
        median=median,
        p95=median_estimate(known) if len(known) == len(turns) else None,
        calls=sum(len(turn.counted) for turn in turns),
        warmup_calls=sum(turn.warmup_calls for turn in turns),
        watts=None if metered is None else metered / sum(turn.seconds for turn in turns),
        images_per_joule=(
            None if metered is None else batch_size * sum(len(turn.milliseconds) for turn in turns) / metered
        ),
        logits_error=max(turn.logits_error for turn in turns),
        disturbed=_disturbed(turns, median),
        disturbed_turns=sum(bool(turn.disturbed) for turn in turns),
    )


def _disturbed(turns: Sequence[Turn], median: MedianEstimate) -> tuple[str, ...]:
    counts = Counter(reason for turn in turns for reason in turn.disturbed)
    reasons = sorted(reason for reason, count in counts.items() if count >= DISTURBED_TURNS * len(turns))
    half = median.relative_half_width
    return (*reasons, *((UNSTEADY,) if half is not None and half > MAX_HALF_WIDTH else ()))


def ratio_of(turns: Sequence[Turn], base: Sequence[Turn]) -> MedianEstimate | None:
    """Returns how many times as long the one takes as the other, by pairs of turns of the same round; None without.

    Turns of a round are close in time, so that what slows the whole machine for a while cancels out.
    """
    medians = {turn.round: turn.median_ms for turn in base}
    ratios = [turn.median_ms / medians[turn.round] for turn in turns if turn.round in medians]
    return median_estimate(ratios) if ratios else None
