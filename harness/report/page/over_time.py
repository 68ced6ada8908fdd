"""The charts over a run's time: throughput, step times, and what each device did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.buckets import Buckets, bucket_rows
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
from harness.report.page.run_data import DEVICE_SERIES, RunData
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
    traces: list[Trace] = []
    rows: list[tuple[str, ...]] = []
    for order, one in enumerate(_Drawn(run, seconds) for run in runs):
        steps = one.run.steps[one.run.steps["phase"] == TRAIN]
        if steps.empty:
            continue
        rate, images, times = (steps[name].to_numpy(np.float64) for name in ("fps", "images", "step_seconds"))
        begins, ends = one.begins(steps), one.ends(steps)
        buckets = bucket_rows(begins, ends, SMALL_BUCKETS)
        traces += _traces(one.run.name, order, buckets, rate, _mean_fps(buckets, images, times))
        rows += [
            row[:6] for row in _step_rows(one.run.name, bucket_rows(begins, ends, SMALL_ROWS), images, times, rate)
        ]
    header = ("run", f"until ({unit})", "steps", "smallest", "mean", "largest")
    about = "Images per second of training, all devices together; all cells have one scale."
    return Chart(
        key, title, about, f"{unit} since the first step", "images/s", tuple(traces), header, tuple(rows),
        highest=highest,
    )  # fmt: skip


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


def _step_charts(drawn: Sequence[_Drawn], unit: str) -> list[Chart]:
    alone = len(drawn) == 1
    fps: list[Trace] = []
    seconds: list[Trace] = []
    rows: list[tuple[str, ...]] = []
    dwarfed: list[str] = []
    points = outliers = 0
    slowest = 0.0
    for number_of_run, one in enumerate(drawn):
        phases = one.phases()
        # Several runs are compared in what they have in common.
        shown = phases if alone else [name for name in (TRAIN, EVALUATE) if name in phases][:1]
        for order, phase in enumerate(shown):
            steps = one.run.steps[one.run.steps["phase"] == phase]
            title = TITLES[phase] if alone else f"{one.run.name}: {TITLES[phase]}"
            colour = order if alone else number_of_run
            begins, ends = one.begins(steps), one.ends(steps)
            times, rate = steps["step_seconds"].to_numpy(np.float64), steps["fps"].to_numpy(np.float64)
            images = steps["images"].to_numpy(np.float64)
            buckets = bucket_rows(begins, ends)
            # A phase that is much faster would leave nothing to see of the others.
            usual = float(np.median(rate))
            slowest = usual if not order else min(slowest, usual)
            hidden = usual > HIDDEN_FROM * slowest
            dwarfed += [title] if hidden else []
            fps += _traces(title, colour, buckets, rate, _mean_fps(buckets, images, times), hidden)
            seconds += _traces(title, colour, buckets, times, buckets.mean(times))
            if phase == TRAIN:
                far = np.array(steps["warmup"] == 0)
                far[far] = is_outlier(steps.loc[far, "step_seconds"])
                outliers += int(far.sum())
                kept = np.flatnonzero(far)[np.argsort(-times[far], kind="stable")[:MAX_POINTS]]
                kept.sort()
                points += len(kept)
                if len(kept):
                    name = "outliers" if alone else f"{one.run.name}: outliers"
                    seconds.append(Trace(name, ends[kept], times[kept], POINTS, colour))
            rows += _step_rows(title, bucket_rows(begins, ends, TABLE_ROWS), images, times, rate)
    if not fps:
        return []
    spans = _spans(drawn[0]) if alone else ()
    every = "Every step is a point." if _all_exact(drawn) else (
        "The line is the mean of many steps, the band reaches from the smallest to the largest of them; every step is"
        " in the steps table."
    )  # fmt: skip
    shading = f" Shaded: {', '.join(dict.fromkeys(span.what for span in spans))}." if spans else ""
    marked = f" Marked: {count_of(points, 'outlier')}" + (f" of {outliers:,}." if outliers > points else ".")
    header = ("series", f"until ({unit})", "steps", "smallest", "mean", "largest")
    x_title = f"{unit} since the first step"
    return [
        Chart(
            "fps", "Throughput over time", f"Images per second of all devices together. {every}{shading}", x_title,
            "images/s", tuple(fps), header, tuple(row[:3] + row[3:6] for row in rows), spans, on_time=True,
        ),
        Chart(
            "step-seconds", "Step time over time",
            f"Seconds from the end of the step before to the end on the slowest rank. {every}{shading}"
            f"{marked if points else ''}",
            x_title, "s", tuple(seconds), header, tuple(row[:3] + row[6:9] for row in rows), spans, on_time=True,
        ),
    ]  # fmt: skip


def _hidden(titles: Sequence[str]) -> str:
    return f" Much faster, and drawn once clicked: {', '.join(titles)}." if titles else ""


def _all_exact(drawn: Sequence[_Drawn]) -> bool:
    return all(
        bucket_rows(one.begins(steps), one.ends(steps)).exact()
        for one in drawn
        for _, steps in one.run.steps.groupby("phase")
    )


def _traces(
    title: str, colour: int, buckets: Buckets, values: FloatArray, mean: FloatArray, hidden: bool = False
) -> list[Trace]:
    """The line of the means, and the band around it unless every step is a point."""
    times = buckets.line(buckets.times)
    line = Trace(title, times, buckets.line(mean), colour=colour, hidden=hidden)
    if buckets.exact():
        return [line]
    low, high = buckets.line(buckets.smallest(values)), buckets.line(buckets.largest(values))
    return [Trace(title, *band(times, low, high), BAND, colour, hidden), line]


def _mean_fps(buckets: Buckets, images: FloatArray, seconds: FloatArray) -> FloatArray:
    """The rate of each bucket: its images over its seconds, not the mean of its steps' rates."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = buckets.total(images) / buckets.total(seconds)
    return np.where(np.isfinite(rate), rate, np.nan)


def _step_rows(
    title: str, buckets: Buckets, images: FloatArray, seconds: FloatArray, rate: FloatArray
) -> list[tuple[str, ...]]:
    columns = (
        buckets.smallest(rate), _mean_fps(buckets, images, seconds), buckets.largest(rate),
        buckets.smallest(seconds), buckets.mean(seconds), buckets.largest(seconds),
    )  # fmt: skip
    return [
        (title, number(float(time)), f"{count:,}", *(number(float(column[place])) for column in columns))
        for place, (time, count) in enumerate(zip(buckets.times, buckets.counts, strict=True))
    ]


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
            devices = one.run.devices
            known = devices[devices[column].notna()]
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
                rows += _device_rows(name, bucket_rows(begins, ends, TABLE_ROWS // 2), values)
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


def _device_rows(name: str, buckets: Buckets, values: FloatArray) -> list[tuple[str, ...]]:
    columns = (buckets.smallest(values), buckets.mean(values), buckets.largest(values))
    return [
        (name, number(float(time)), f"{count:,}", *(number(float(column[place])) for column in columns))
        for place, (time, count) in enumerate(zip(buckets.times, buckets.counts, strict=True))
    ]


def unknown_series(runs: Sequence[RunData]) -> list[str]:
    """Returns the titles of the series that no device of the runs reported."""
    return [
        title
        for column, (title, _, _) in DEVICE_SERIES.items()
        if not any(run.devices[column].notna().any() for run in runs)
    ]
