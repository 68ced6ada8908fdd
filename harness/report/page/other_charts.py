"""The charts that aren't over a run's time: where it went, epochs, the spread of step times, and scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.summarize import MEASURED
from harness.analysis.window import PHASE_TITLES, measured_steps
from harness.artifacts.schema import TRAIN
from harness.report.findings import BUCKETS
from harness.report.page.chart import BARS, LINE, POINTS, STACKED, Chart, Span, Trace, number
from harness.report.run_data import PARTS, RunData

if TYPE_CHECKING:
    import pandas as pd

MAX_BINS = 60
# Beyond this share of the steps a histogram's last bin holds all the rest.
SHOWN_SHARE = 0.995
# What each epoch chart shows: title, axis, and the columns with their names.
EPOCH_CHARTS = {
    "top1": ("Top-1 per epoch", "share of the validation images", {"top1": "top-1", "top5": "top-5"}),
    "loss": ("Loss per epoch", "loss", {"train_loss": "training", "val_loss": "validation"}),
    "learning-rate": ("Learning rate per epoch", "learning rate", {"learning_rate": "learning rate"}),
}


def ledger_chart(runs: Sequence[RunData]) -> list[Chart]:
    """Returns the chart of where the time went: of each phase of a run, or of training in several runs."""
    shares: dict[str, dict[str, float]] = {}
    for run in runs:
        for phase in MEASURED if len(runs) == 1 else (TRAIN,):
            title = PHASE_TITLES[phase] if len(runs) == 1 else run.name
            found = _time_shares(run, phase)
            if found:
                shares[title] = found
    if not shares:
        return []
    names = [name for name in BUCKETS if any(found.get(name, 0.0) >= 0.0005 for found in shares.values())]
    bars = tuple(shares)
    traces = tuple(
        Trace(BUCKETS[name], bars, np.array([found.get(name, 0.0) for found in shares.values()]), STACKED, order)
        for order, name in enumerate(names)
    )
    rows = tuple((bar, *(f"{shares[bar].get(name, 0.0):.1%}" for name in names)) for bar in bars)
    return [
        Chart(
            "ledger", "Where the time went", "Shares of the measured time, of the rank that got its batch last.",
            "", "share of the time", traces, ("", *(BUCKETS[name] for name in names)), rows, is_share=True,
        )
    ]  # fmt: skip


def _time_shares(run: RunData, phase: str) -> dict[str, float]:
    """The share of each part of a phase's measured time; of training in a finished run, those of its ledger."""
    ledger = run.record.ledger
    if phase == TRAIN and ledger:
        wall = ledger["wall_seconds"]
        return {name: ledger[name] / wall for name in BUCKETS}
    steps = measured_steps(run.steps, phase)
    if steps.empty:
        return {}
    whole = float(steps["step_seconds"].sum())
    seconds = {name: float(steps[name].sum()) for name in PARTS}
    # What has a split into passes is in these already.
    split = steps[["forward_seconds", "backward_seconds", "optimizer_seconds"]].notna().all(axis=1)
    seconds["compute_seconds"] = float(steps.loc[~split, "compute_seconds"].sum())
    return {name: value / whole for name, value in seconds.items()}


def epoch_charts(runs: Sequence[RunData]) -> list[Chart]:
    """Returns the charts of accuracy, loss and learning rate over the epochs; none for runs without epochs."""
    charts = []
    for key, (title, axis, columns) in EPOCH_CHARTS.items():
        traces: list[Trace] = []
        rows: list[tuple[str, ...]] = []
        for number_of_run, run in enumerate(runs):
            for order, (column, name) in enumerate(columns.items()):
                known = run.epochs[run.epochs[column].notna() & (run.epochs["epoch"] > 0)]
                if known.empty or (len(runs) > 1 and order):
                    continue
                label = name if len(runs) == 1 else f"{run.name}: {name}"
                epochs, values = known["epoch"].to_numpy(np.float64), known[column].to_numpy(np.float64)
                colour = order if len(runs) == 1 else number_of_run
                traces.append(Trace(label, epochs, values, LINE if len(known) > 1 else POINTS, colour))
                rows += [(label, f"{epoch:.0f}", number(value)) for epoch, value in zip(epochs, values, strict=True)]
        if traces:
            about = f"{title.partition(' per ')[0]} after each epoch, as the epochs table has it."
            charts.append(
                Chart(key, title, about, "epoch", axis, tuple(traces), ("series", "epoch", axis), tuple(rows))
            )
    return charts


def histogram_chart(runs: Sequence[RunData]) -> list[Chart]:
    """Returns the chart of how often each step time of end to end's window came, with its percentiles."""
    times = {run.name: measured_steps(run.steps, TRAIN)["step_seconds"].to_numpy(np.float64) for run in runs}
    times = {name: values for name, values in times.items() if len(values) > 1}
    if not times:
        return []
    every = np.concatenate(list(times.values()))
    low, high = float(every.min()), float(np.quantile(every, SHOWN_SHARE))
    beyond = int((every > high).sum())
    edges = np.histogram_bin_edges(every[every <= high], bins=min(MAX_BINS, max(5, int(np.sqrt(len(every))))))
    middles = (edges[1:] + edges[:-1]) / 2
    traces, rows = [], []
    for order, (name, values) in enumerate(times.items()):
        counts = np.histogram(values[values <= high], edges)[0].astype(np.float64)
        shares = counts / len(values)
        traces.append(Trace(name, middles, shares, BARS, order))
        rows += [
            (name, number(float(begin)), number(float(end)), f"{count:,.0f}")
            for begin, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    spans: list[Span] = []
    if len(runs) == 1:
        summary = runs[0].record.summary
        for name, title in (("step_seconds_p50", "median"), ("step_seconds_p95", "p95"), ("step_seconds_p99", "p99")):
            if summary.get(name) is not None and low <= summary[name] <= high:
                spans.append(Span(summary[name], summary[name], title))
    about = "Share of the measured steps of end to end by their time."
    if beyond:
        about += f" {beyond:,} of {len(every):,} steps took longer than {number(high)} s, and are not drawn."
    return [
        Chart(
            "histogram", "Spread of step times", about, "seconds of a step", "share of the steps", tuple(traces),
            ("run", "from (s)", "to (s)", "steps"), tuple(rows), tuple(spans),
        )
    ]  # fmt: skip


def scaling_chart(scaling: pd.DataFrame) -> list[Chart]:
    """Returns the chart of throughput over the number of devices, beside the ideal line, from a series' table."""
    if scaling.empty:
        return []
    devices, fps = scaling["devices"].to_numpy(np.float64), scaling["fps"].to_numpy(np.float64)
    ideal = fps[0] / devices[0] * devices
    rows = tuple(
        (f"{count:.0f}", number(rate), number(line), f"{efficiency:.1%}")
        for count, rate, line, efficiency in zip(devices, fps, ideal, scaling["efficiency"], strict=True)
    )
    return [
        Chart(
            "scaling", "Scaling", "Throughput by the number of devices; the ideal line is the smallest number's rate"
            " per device times the number.", "devices", "images/s",
            (Trace("measured", devices, fps), Trace("ideal", devices, ideal, colour=1)),
            ("devices", "images/s", "ideal", "efficiency"), rows,
        )
    ]  # fmt: skip
