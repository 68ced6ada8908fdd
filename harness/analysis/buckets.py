"""Thins a series of rows for a chart: buckets of equal time, each with its rows' smallest, mean and largest value.

A bucket never spans a pause, so that a line drawn through the buckets breaks where nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Buckets of a series without pauses; a chart is seldom wider than this number of pixels.
MAX_BUCKETS = 1500


@dataclass(frozen=True, slots=True)
class Buckets:
    """Rows in groups. starts has the place of each bucket's first row, counts its rows, breaks whether a pause follows.

    times are the buckets' places on the time axis: the mean of their rows' ends, in the unit of those.
    """

    starts: IntArray
    counts: IntArray
    breaks: npt.NDArray[np.bool_]
    times: FloatArray

    def smallest(self, values: FloatArray) -> FloatArray:
        """The smallest known value of each bucket; NaN where none is known."""
        found: FloatArray = np.fmin.reduceat(values, self.starts)
        return found

    def largest(self, values: FloatArray) -> FloatArray:
        """The largest known value of each bucket; NaN where none is known."""
        found: FloatArray = np.fmax.reduceat(values, self.starts)
        return found

    def total(self, values: FloatArray) -> FloatArray:
        """The sum of each bucket's known values; 0 where none is known."""
        found: FloatArray = np.add.reduceat(np.nan_to_num(values), self.starts)
        return found

    def mean(self, values: FloatArray) -> FloatArray:
        """The mean of each bucket's known values; NaN where none is known."""
        known = self.total((~np.isnan(values)).astype(np.float64))
        with np.errstate(invalid="ignore"):
            return self.total(values) / known

    def exact(self) -> bool:
        """Whether every bucket is one row."""
        return bool((self.counts == 1).all())

    def line(self, values: FloatArray) -> FloatArray:
        """Values, one per bucket, with a NaN after each bucket that a pause follows."""
        found: FloatArray = np.insert(values, np.flatnonzero(self.breaks) + 1, np.nan)
        return found


def bucket_rows(begins: FloatArray, ends: FloatArray, most: int = MAX_BUCKETS) -> Buckets:
    """Returns the buckets of rows (at least one), which follow one another; begins and ends are their times.

    There are at most about twice `most` buckets. Rows that number no more than `most` each get their own. A pause is
    time between two rows that is longer than a bucket, and than both rows.
    """
    count, seconds = len(ends), ends - begins
    width = (ends[-1] - begins[0]) / most
    gaps = begins[1:] - ends[:-1]
    pause = gaps > np.maximum(width, np.maximum(seconds[1:], seconds[:-1]))
    if count <= most:
        starts = np.arange(count)
    else:
        stretch = np.concatenate([[0], np.cumsum(pause)])
        place = np.floor((ends - begins[0]) / width).astype(np.int64)
        new = (np.diff(stretch) != 0) | (np.diff(place) != 0)
        starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    counts = np.diff(np.append(starts, count))
    return Buckets(
        starts=starts.astype(np.int64),
        counts=counts.astype(np.int64),
        breaks=np.append(pause, False)[starts + counts - 1],
        times=np.add.reduceat(ends, starts) / counts,
    )
