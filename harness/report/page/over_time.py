"""The charts over a run's time: throughput, step times, and what each device did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.buckets import MAX_BUCKETS, Buckets, IntArray, bucket_rows
from harness.analysis.outliers import is_outlier
from harness.analysis.summarize import MEASURED
from harness.analysis.window import PHASE_TITLES
from harness.artifacts.schema import EVALUATE, TRAIN
from harness.report.page.chart import (
    BAND,
    INTERFERENCE,
    PAUSE,
    POINTS,
    WARMUP,
    Chart,
    FloatArray,
    Span,
    Trace,
    band,
    number,
)
from harness.report.run_data import DEVICE_SERIES, RunData
from models.words import count_of

if TYPE_CHECKING:
    import pandas as pd

# Rows of the table behind a chart over time.
TABLE_ROWS = 30
# Telemetry is slower than steps: fewer buckets show all of it.
DEVICE_BUCKETS = 600
# The same of a small chart, and rows of its table.
SMALL_BUCKETS, SMALL_ROWS = 200, 10
# Exact points, the slowest first.
MAX_POINTS = 1000
MAX_SPANS = 200
# A phase this number of times as fast as end to end is not drawn at first.
HIDDEN_FROM = 5.0
TITLES = {**PHASE_TITLES, EVALUATE: "evaluation"}
# Units of the time axis: each is used from this number of seconds on.
UNITS = ((3 * 3600.0, "hours", 3600.0), (600.0, "minutes", 60.0), (0.0, "seconds", 1.0))


def time_charts(runs: Sequence[RunData]) -> list[Chart]:
    """Returns the charts over time of one run, or of several on one axis."""
    unit, seconds = _unit(runs)
    drawn = [_Drawn(run, seconds) for run in runs]
    return [*_step_charts(drawn, unit), *_device_charts(drawn, unit)]


def fps_of_runs(key: str, title: str, runs: Sequence[RunData], highest: float) -> Chart:
    """Returns a small chart of runs' training throughput over time, on an axis up to a rate that it has at least."""
    unit, seconds = _unit(runs)
    drawn = [_Drawn(run, seconds) for run in runs]
    series = [
        _Series(one, TRAIN, one.run.name, order, SMALL_BUCKETS, SMALL_ROWS)
        for order, one in enumerate(drawn)
        if TRAIN in one.phases()
    ]
    return Chart(
        key=key,
        title=title,
        about="Images per second of training, all devices together; all cells have one scale.",
        x_title=f"{unit} since the first step",
        y_title="images/s",
        traces=tuple(trace for one in series for trace in one.rate_traces()),
        header=("run", f"until ({unit})", "steps", "smallest", "mean", "largest"),
        rows=tuple(row for one in series for row in one.rate_rows()),
        highest=highest,
    )


def _unit(runs: Sequence[RunData]) -> tuple[str, float]:
    longest = max(
        (float(run.steps["time_unix_seconds"].iloc[-1]) - run.begin for run in runs if len(run.steps)), default=0.0
    )
    return next((name, seconds) for above, name, seconds in UNITS if longest >= above)


class _Drawn:
    """A run with the seconds of a unit of its time axis."""

    def __init__(self, run: RunData, seconds: float) -> None:
        self.run, self._seconds = run, seconds

    def place(self, unix_seconds: FloatArray) -> FloatArray:
        """Times of day as places on the axis."""
        return (unix_seconds - self.run.begin) / self._seconds

    def ends(self, rows: pd.DataFrame) -> FloatArray:
        """The ends of steps or samples, on the axis."""
        return self.place(rows["time_unix_seconds"].to_numpy(np.float64))

    def begins(self, steps: pd.DataFrame) -> FloatArray:
        """The beginnings of steps, on the axis."""
        times = steps["time_unix_seconds"] - steps["step_seconds"]
        return self.place(times.to_numpy(np.float64))

    def phases(self) -> list[str]:
        """The phases whose steps are drawn."""
        return [name for name in (*MEASURED, EVALUATE) if (self.run.steps["phase"] == name).any()]


class _Series:
    """The steps of one phase of a run, to be drawn under a title in a colour, in buckets; few are a table's rows."""

    def __init__(
        self,
        drawn: _Drawn,
        phase: str,
        title: str,
        colour: int,
        most: int = MAX_BUCKETS,
        rows: int = TABLE_ROWS,
    ) -> None:
        self.phase, self.title, self.colour = phase, title, colour
        self.steps = drawn.run.steps[drawn.run.steps["phase"] == phase]
        begins, self.ends = drawn.begins(self.steps), drawn.ends(self.steps)
        self.buckets, self.few = (bucket_rows(begins, self.ends, number) for number in (most, rows))
        self.seconds, self.rate, self.images = (
            self.steps[name].to_numpy(np.float64) for name in ("step_seconds", "fps", "images")
        )

    @property
    def usual_rate(self) -> float:
        """The median rate, in images per second."""
        return float(np.median(self.rate))

    def rate_traces(self, *, hidden: bool = False) -> list[Trace]:
        """The throughput over time."""
        return self._traces(self.rate, self._mean_rate(self.buckets), hidden)

    def seconds_traces(self) -> list[Trace]:
        """The step times over time."""
        return self._traces(self.seconds, self.buckets.mean(self.seconds), hidden=False)

    def rate_rows(self) -> list[tuple[str, ...]]:
        """The throughput in the rows of a table."""
        return _rows(self.title, self.few, self.rate, self._mean_rate(self.few))

    def seconds_rows(self) -> list[tuple[str, ...]]:
        """The step times in the rows of a table."""
        return _rows(self.title, self.few, self.seconds, self.few.mean(self.seconds))

    def outliers(self) -> IntArray:
        """The places of training's measured steps that are outliers, the longest first; none of another phase."""
        far = np.array(self.steps["warmup"] == 0) & (self.phase == TRAIN)
        if far.any():
            far[far] = is_outlier(self.steps.loc[far, "step_seconds"])
        places = np.flatnonzero(far)
        found: IntArray = places[np.argsort(-self.seconds[places], kind="stable")]
        return found

    def _mean_rate(self, buckets: Buckets) -> FloatArray:
        """The rate of each bucket: its images over its seconds, not the mean of its steps' rates."""
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = buckets.total(self.images) / buckets.total(self.seconds)
        return np.where(np.isfinite(rate), rate, np.nan)

    def _traces(self, values: FloatArray, mean: FloatArray, hidden: bool) -> list[Trace]:
        """The line of the means, and the band around it unless every step is a point."""
        buckets = self.buckets
        times = buckets.line(buckets.times)
        line = Trace(self.title, times, buckets.line(mean), colour=self.colour, hidden=hidden)
        if buckets.exact():
            return [line]
        low, high = buckets.line(buckets.smallest(values)), buckets.line(buckets.largest(values))
        return [Trace(self.title, *band(times, low, high), BAND, self.colour, hidden), line]


def _rows(title: str, buckets: Buckets, values: FloatArray, mean: FloatArray) -> list[tuple[str, ...]]:
    """A row per bucket: its end, its number of rows, and the smallest, mean and largest value."""
    columns = (buckets.smallest(values), mean, buckets.largest(values))
    return [
        (title, number(float(time)), f"{count:,}", *(number(float(column[place])) for column in columns))
        for place, (time, count) in enumerate(zip(buckets.times, buckets.counts, strict=True))
    ]


def _all_series(drawn: Sequence[_Drawn]) -> list[_Series]:
    """Every phase of one run; of several runs what they have in common, training or else evaluation."""
    if len(drawn) == 1:
        return [_Series(drawn[0], phase, TITLES[phase], order) for order, phase in enumerate(drawn[0].phases())]
    return [
        _Series(one, phase, f"{one.run.name}: {TITLES[phase]}", order)
        for order, one in enumerate(drawn)
        for phase in [name for name in (TRAIN, EVALUATE) if name in one.phases()][:1]
    ]


def _step_charts(drawn: Sequence[_Drawn], unit: str) -> list[Chart]:
    series = _all_series(drawn)
    if not series:
        return []
    exact = all(one.buckets.exact() for one in series)
    about = "Every step is a point." if exact else (
        "The line is the mean of many steps, the band reaches from the smallest to the largest of them; every step is"
        " in the steps table."
    )  # fmt: skip
    spans = _spans(drawn[0]) if len(drawn) == 1 else ()
    if spans:
        about += f" Shaded: {', '.join(dict.fromkeys(span.what for span in spans))}."
    # A phase that is much faster would leave nothing to see of the others.
    slowest = min(one.usual_rate for one in series)
    dwarfing = [one.title for one in series if len(drawn) == 1 and one.usual_rate > HIDDEN_FROM * slowest]
    points, marked = _outlier_points(series)
    x_title, header = (
        f"{unit} since the first step",
        ("series", f"until ({unit})", "steps", "smallest", "mean", "largest"),
    )
    return [
        Chart(
            key="fps",
            title="Throughput over time",
            about=f"Images per second of all devices together. {about}"
            + (f" Much faster, and drawn once clicked: {', '.join(dwarfing)}." if dwarfing else ""),
            x_title=x_title,
            y_title="images/s",
            traces=tuple(trace for one in series for trace in one.rate_traces(hidden=one.title in dwarfing)),
            header=header,
            rows=tuple(row for one in series for row in one.rate_rows()),
            spans=spans,
            on_time=True,
        ),
        Chart(
            key="step-seconds",
            title="Step time over time",
            about=f"Seconds from the end of the step before to the end on the slowest rank. {about}{marked}",
            x_title=x_title,
            y_title="s",
            traces=(*(trace for one in series for trace in one.seconds_traces()), *points),
            header=header,
            rows=tuple(row for one in series for row in one.seconds_rows()),
            spans=spans,
            on_time=True,
        ),
    ]


def _outlier_points(series: Sequence[_Series]) -> tuple[list[Trace], str]:
    """The exact points of outliers, the longest of many, and a sentence on their number."""
    traces, shown, count = [], 0, 0
    for one in series:
        places = one.outliers()
        kept = np.sort(places[:MAX_POINTS])
        shown, count = shown + len(kept), count + len(places)
        if len(kept):
            traces.append(Trace(f"{one.title}: outliers", one.ends[kept], one.seconds[kept], POINTS, one.colour))
    if not count:
        return traces, ""
    return traces, f" Marked: {count_of(shown, 'outlier')}" + (f" of {count:,}." if count > shown else ".")


def _spans(one: _Drawn) -> tuple[Span, ...]:
    """The warm-up, what disturbed the run, and the pauses between its attempts."""
    steps = one.run.steps[one.run.steps["phase"].isin(one.phases())]
    begins, ends = one.begins(steps), one.ends(steps)
    disturbed = ~steps["interference"].isin(("", "none"))
    spans = [
        *_stretches((steps["warmup"] == 1).to_numpy(), begins, ends, WARMUP),
        *_stretches(disturbed.to_numpy(), begins, ends, INTERFERENCE),
    ]
    for first in one.run.record.breaks()[0]:
        at = np.flatnonzero((steps["segment"] >= first).to_numpy())[:1]
        spans += [Span(float(ends[place - 1]), float(begins[place]), PAUSE) for place in at if place]
    return tuple(spans)


def _stretches(held: FloatArray, begins: FloatArray, ends: FloatArray, what: str) -> list[Span]:
    """The longest stretches of rows in which something held, without breaks, in order of time."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]]).astype(np.int8)))
    pairs = [(float(begins[first]), float(ends[last - 1])) for first, last in zip(edges[::2], edges[1::2], strict=True)]
    longest = sorted(pairs, key=lambda pair: pair[0] - pair[1])[:MAX_SPANS]
    return [Span(*pair, what) for pair in sorted(longest)]


def _device_charts(drawn: Sequence[_Drawn], unit: str) -> list[Chart]:
    """A chart for each series of the devices that is known, with a line per device."""
    charts = []
    for column, (title, axis, divisor) in DEVICE_SERIES.items():
        traces: list[Trace] = []
        rows: list[tuple[str, ...]] = []
        for number_of_run, one in enumerate(drawn):
            known = one.run.devices[["device", "time_unix_seconds", column]].dropna()
            for order, (device, samples) in enumerate(known.groupby("device", sort=True)):
                ends = one.ends(samples)
                begins = np.concatenate([ends[:1], ends[:-1]])
                # A sample speaks of the time since the one before it, up to a pause in sampling.
                usual = float(np.median(np.diff(ends))) if len(ends) > 1 else 0.0
                begins = np.maximum(begins, ends - 2 * usual)
                values = samples[column].to_numpy(np.float64) / divisor
                buckets = bucket_rows(begins, ends, DEVICE_BUCKETS)
                name = str(device) if len(drawn) == 1 else f"{one.run.name}: {device}"
                colour = order if len(drawn) == 1 else number_of_run
                traces.append(
                    Trace(name, buckets.line(buckets.times), buckets.line(buckets.mean(values)), colour=colour)
                )
                few = bucket_rows(begins, ends, TABLE_ROWS // 2)
                rows += _rows(name, few, values, few.mean(values))
        if traces:
            charts.append(
                Chart(
                    column.replace("_", "-"),
                    title,
                    f"{title} of each device, as the devices table has it.",
                    f"{unit} since the first step",
                    axis,
                    tuple(traces),
                    ("device", f"until ({unit})", "samples", "smallest", "mean", "largest"),
                    tuple(rows),
                    on_time=True,
                )
            )
    return charts


def unknown_series(runs: Sequence[RunData]) -> list[str]:
    """Returns the titles of the series that no device of the runs reported."""
    return [
        title
        for column, (title, _, _) in DEVICE_SERIES.items()
        if not any(run.devices[column].notna().any() for run in runs)
    ]
