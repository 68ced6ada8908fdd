"""The page of a measurement of latency: its figures, how the claim stands, and accuracy over latency."""

from __future__ import annotations

import time

import numpy as np

from harness.analysis.latency.stored import LatencyRecord
from harness.analysis.latency.table import LATENCY
from harness.report.latency import PUBLISHED, claims_text, job_text, kernels_text
from harness.report.page.chart import LINE, Chart, Trace, number
from harness.report.page.document import TIME, charted, document
from harness.report.page.html import Html, cell_of, element, facts, joined, table
from models.sizes import PUBLISHED_LATENCY, SIZES

# The columns of the page's table, with their titles and the digits that are shown; those without a value are left out.
SHOWN: dict[str, tuple[str, int]] = {
    "median_ms": ("ms", 2),
    "median_low_ms": ("from", 2),
    "median_high_ms": ("to (95 %)", 2),
    "p95_ms": ("p95", 2),
    "images_per_second": ("images/s", 1),
    "images_per_joule": ("images/J", 2),
    "ratio": ("x first engine", 2),
    "top1": ("top-1", 4),
    "top1_per_ms": ("points a ms", 1),
    "published_ms": ("published ms", 2),
    "published_top1_per_ms": ("published points a ms", 1),
    "disturbed": ("disturbed", 0),
    "failure": ("failure", 0),
}


def latency_page(record: LatencyRecord) -> bytes:
    """Returns the page of a measurement. Equal records give equal bytes."""
    charts = [accuracy_chart(record)]
    begun = time.strftime(TIME, time.gmtime(record.begun_unix_seconds))
    about = f"{record.name}, begun {begun}, {job_text(record.job)}, {record.weights}"
    main = joined(
        element("section", element("h2", "Figures"), _figures(record), element("p", PUBLISHED), class_="box wide"),
        element("section", element("h2", "The claim"), _paragraphs(claims_text(record.claims)), class_="box wide"),
        charted(charts),
        _kernels(record),
        _notes(record),
        _environment(record),
    )
    return document(f"Latency of PP-LCNet on {record.device_name}", about, main, charts)


def accuracy_chart(record: LatencyRecord) -> Chart:
    """Returns the chart of published top-1 over latency: as published, and here with each engine."""
    published = {size: one.latency_ms for size, one in SIZES.items() if one.latency_ms == one.latency_ms}
    series = {f"published ({PUBLISHED_LATENCY.processor}, {PUBLISHED_LATENCY.threads} threads)": published}
    for engine in record.job.engines:
        rows = {size: record.row(size, engine) for size in record.job.sizes}
        known = {size: float(row["median_ms"]) for size, row in rows.items() if row is not None}
        if known:
            series[f"here, {engine}"] = known
    traces, rows_of_table = [], []
    for order, (name, points) in enumerate(series.items()):
        sizes = sorted(points, key=lambda size: SIZES[size].top1)
        x, y = (np.array(values) for values in ([points[size] for size in sizes], [SIZES[size].top1 for size in sizes]))
        traces.append(Trace(name, x, y, LINE, order))
        rows_of_table += [(name, size, number(points[size]), f"{100 * SIZES[size].top1:.2f} %") for size in sizes]
    return Chart(
        "accuracy", "Accuracy over latency", "Published top-1 of each size over the latency of a call: up and to the"
        " left is better. From left to right the sizes grow from x0_25 to x2_5.", "ms", "top-1",
        tuple(traces), ("where", "size", "ms", "top-1"), tuple(rows_of_table), is_share=True,
    )  # fmt: skip


def _figures(record: LatencyRecord) -> Html:
    columns = {column.name: column for column in LATENCY.columns}
    several = len(record.job.engines) > 1
    shown = [
        name
        for name in SHOWN
        if any(row.get(name) not in (None, "") for row in record.rows) and (several or name != "ratio")
    ]
    body: list[list[str | Html]] = []
    for row in record.rows:
        size = f"{row['model']}, {row['engine']}" if several else row["model"]
        cells = (cell_of(row.get(name), columns[name], _short(row.get(name), SHOWN[name][1])) for name in shown)
        body.append([size, *cells])
    header = ["size", *(SHOWN[name][0] for name in shown)]
    return table(header, body, "Latency beside what is published")


def _short(value: object, digits: int) -> str | None:
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return "-" if value in (None, "") else None


def _paragraphs(lines: list[str]) -> Html:
    if not lines:
        return element("p", "It takes two sizes with published figures to judge it.")
    return joined([element("p", line.strip()) for line in lines])


def _kernels(record: LatencyRecord) -> Html:
    if not record.profiles:
        return Html()
    rows = [
        [profile.size, profile.engine, kernel.primitive, kernel.implementation, f"{kernel.executions:g}",
         f"{kernel.milliseconds:.4f}"]
        for profile in record.profiles
        for kernel in profile.kernels
    ]  # fmt: skip
    header = ("size", "engine", "primitive", "implementation", "times a call", "ms")
    return element(
        "section",
        element("h2", "Kernels of oneDNN"),
        _paragraphs(kernels_text(record)),
        element("details", element("summary", "Every kernel of every size"), table(header, rows, "Kernels", 4)),
        _between(record),
    )


def _between(record: LatencyRecord) -> Html:
    """What a call of each size takes besides kernels."""
    rows = []
    for one in record.profiles:
        row = record.row(one.size, one.engine)
        if one.kernels and row is not None:
            median = row["median_ms"]
            parts = [f"{part:.2f}" for part in (median, one.kernel_ms, median - one.kernel_ms)]
            rows.append([one.size, one.engine, *parts, f"{one.kernel_ms / median:.0%}"])
    header = ("size", "engine", "ms", "in kernels", "between them", "share of kernels")
    return table(header, rows, "Calls, and the part of them in kernels of oneDNN", 2) if rows else Html()


def _notes(record: LatencyRecord) -> Html:
    rows = [(f"note {place}", warning) for place, warning in enumerate(record.warnings, 1)]
    return element("section", element("h2", "Notes"), facts(rows, "Notes")) if rows else Html()


def _environment(record: LatencyRecord) -> Html:
    rows = [(name, "-" if value is None else str(value)) for name, value in record.environment.items()]
    rows.append(("energy read from", record.meter or "nothing"))
    return element("section", element("h2", "Machine and software"), facts(rows, "Machine and versions"))
