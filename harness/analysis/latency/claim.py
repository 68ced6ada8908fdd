"""Whether PP-LCNet's published claim holds: a more accurate size costs almost no more time than a smaller one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from harness.analysis.latency.figures import Turn, ratio_of
from harness.analysis.latency.job import Job
from harness.analysis.latency.medians import MedianEstimate
from models.flops import macs
from models.sizes import SIZES


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim, judged on the sizes that were measured with one engine, in the order of their accuracy.

    faster are pairs of neighbours of which the more accurate one takes less time, alike those that noise doesn't tell
    apart. growth is how many times as long the most accurate size takes as the least accurate one, published_growth the
    same of the published latencies, macs_growth of the multiply-accumulates. exponent is the power of the
    multiply-accumulates that latency grows with (0: constant, 1: in proportion to the work), by a line fitted to the
    logarithms. by_value has the sizes by their published top-1 per millisecond, the best first; agreeing is the number
    of pairs of sizes, of all pairs, that stand in the same order by it as with the published latencies.
    """

    engine: str
    sizes: tuple[str, ...]
    faster: tuple[tuple[str, str], ...]
    alike: tuple[tuple[str, str], ...]
    growth: MedianEstimate
    published_growth: float
    macs_growth: float
    exponent: float
    published_exponent: float
    by_value: tuple[str, ...]
    published_by_value: tuple[str, ...]
    agreeing: int
    pairs: int

    @property
    def in_order(self) -> bool:
        """Whether no more accurate size takes less time than the one before it, beyond noise."""
        return not self.faster

    @property
    def almost_constant(self) -> bool | None:
        """Whether latency grows no more than published; None where noise leaves both answers."""
        low, high = self.growth.low, self.growth.high
        if low is None or high is None:
            return None
        return False if low > self.published_growth else True if high <= self.published_growth else None


def claim_of(engine: str, turns: Mapping[str, Sequence[Turn]], job: Job) -> Claim | None:
    """Returns the claim, judged on the turns of each size; None for fewer than two sizes with published figures."""
    sizes = sorted(
        (size for size in turns if turns[size] and not math.isnan(SIZES[size].latency_ms)),
        key=lambda size: SIZES[size].top1,
    )
    if len(sizes) < 2:
        return None
    growth = ratio_of(turns[sizes[-1]], turns[sizes[0]])
    if growth is None:
        return None
    found = {size: statistics.median(turn.median_ms for turn in turns[size]) for size in sizes}
    published = {size: SIZES[size].latency_ms for size in sizes}
    work = {size: float(job.macs(size)) for size in sizes}
    published_work = {size: float(macs(size)) for size in sizes}
    steps = {pair: ratio_of(turns[pair[1]], turns[pair[0]]) for pair in pairwise(sizes)}
    faster = tuple(pair for pair, ratio in steps.items() if ratio is not None and (ratio.high or ratio.median) < 1)
    value, published_value = _value(found), _value(published)
    return Claim(
        engine=engine,
        sizes=tuple(sizes),
        faster=faster,
        alike=tuple(
            pair
            for pair, ratio in steps.items()
            if ratio is not None and ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high
        ),
        growth=growth,
        published_growth=published[sizes[-1]] / published[sizes[0]],
        macs_growth=work[sizes[-1]] / work[sizes[0]],
        exponent=exponent(list(work.values()), list(found.values())),
        published_exponent=exponent(list(published_work.values()), list(published.values())),
        by_value=tuple(sorted(sizes, key=lambda size: -value[size])),
        published_by_value=tuple(sorted(sizes, key=lambda size: -published_value[size])),
        agreeing=sum(
            (value[a] - value[b]) * (published_value[a] - published_value[b]) > 0 for a, b in combinations(sizes, 2)
        ),
        pairs=math.comb(len(sizes), 2),
    )


def exponent(work: Sequence[float], milliseconds: Sequence[float]) -> float:
    """Returns the power of the work that time grows with: the slope of the fitted line through the logarithms."""
    x, y = ([math.log(value) for value in values] for values in (work, milliseconds))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def top1_per_ms(size: str, milliseconds: float) -> float:
    """Returns the points of published top-1 (in percent) for each millisecond of latency."""
    return 100 * SIZES[size].top1 / milliseconds


def _value(milliseconds: Mapping[str, float]) -> dict[str, float]:
    return {size: top1_per_ms(size, one) for size, one in milliseconds.items()}
