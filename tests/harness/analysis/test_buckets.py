"""Buckets of equal time: nothing is lost but what lies between a bucket's smallest and largest value."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.buckets import bucket_rows


def test_rows_that_fit_each_have_their_own() -> None:
    ends = np.array([1.0, 2.0, 4.0])
    buckets = bucket_rows(np.array([0.0, 1.0, 2.0]), ends, most=3)
    assert buckets.exact()
    assert buckets.times.tolist() == ends.tolist()
    values = np.array([5.0, 1.0, 3.0])
    for found in (buckets.smallest(values), buckets.mean(values), buckets.largest(values), buckets.line(values)):
        assert found.tolist() == values.tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [7, 100])
def test_buckets_have_the_smallest_mean_and_largest_of_all_rows(seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    seconds = random.uniform(0.1, 0.3, 2000)
    # Some pauses, of which the long ones break the line.
    gaps = np.where(random.random(2000) < 0.01, random.uniform(0, 30, 2000), 0.0)
    ends = np.cumsum(seconds + gaps)
    buckets = bucket_rows(ends - seconds, ends, most)
    values = random.standard_normal(2000)
    assert len(buckets.starts) <= 2 * most + 1
    assert buckets.counts.sum() == 2000
    parts = np.split(values, buckets.starts[1:])
    assert buckets.smallest(values).tolist() == [part.min() for part in parts]
    assert buckets.largest(values).tolist() == [part.max() for part in parts]
    assert buckets.mean(values) == pytest.approx([part.mean() for part in parts])
    assert buckets.total(values) == pytest.approx([part.sum() for part in parts])
    width = (ends[-1] - (ends[0] - seconds[0])) / most
    pauses = gaps[1:] > np.maximum(width, np.maximum(seconds[1:], seconds[:-1]))
    last = (buckets.starts + buckets.counts - 1)[buckets.breaks]
    assert last.tolist() == np.flatnonzero(pauses).tolist()
    assert np.isnan(buckets.line(buckets.times)).sum() == pauses.sum()


def test_a_single_slow_row_of_a_million_is_seen() -> None:
    seconds = np.full(1_000_000, 0.1)
    seconds[345_678] = 5.0
    ends = np.cumsum(seconds)
    buckets = bucket_rows(ends - seconds, ends)
    assert buckets.largest(seconds).max() == 5.0
    assert len(buckets.starts) <= 1502


def test_unknown_values_are_left_out_and_a_bucket_without_any_is_unknown() -> None:
    ends = np.array([float(number) for number in range(1, 9)])
    buckets = bucket_rows(ends - 0.99, ends, most=4)
    values = np.array([1.0, np.nan, np.nan, np.nan, np.nan, 3.0, 2.0, np.nan])
    parts = [part[~np.isnan(part)] for part in np.split(values, buckets.starts[1:])]
    assert 0 in map(len, parts)
    for found, of in ((buckets.smallest, np.min), (buckets.mean, np.mean), (buckets.largest, np.max)):
        wanted = [float(of(part)) if len(part) else np.nan for part in parts]
        np.testing.assert_allclose(found(values), wanted)


def test_a_single_row() -> None:
    buckets = bucket_rows(np.array([3.0]), np.array([4.0]))
    assert (buckets.starts.tolist(), buckets.counts.tolist(), buckets.breaks.tolist()) == ([0], [1], [False])
