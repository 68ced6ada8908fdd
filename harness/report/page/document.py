"""Puts a page together: the figures as plain HTML, the charts' data, the script and the style in one file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.comparing.run_diff import differences
from harness.artifacts.record import RunRecord
from harness.artifacts.reference_table import method_marks
from harness.artifacts.schema import EPOCHS
from harness.plan.declaration import flag
from harness.plan.options import run_options
from harness.report.console import plan_facts, summary_facts
from harness.report.findings import GAINS, PHASE_COLUMNS, loader_text, phase_rows, verdict_facts
from harness.report.page.chart import Chart
from harness.report.page.headline import beside, box, figure, gain_row, headline, summary_cells
from harness.report.page.html import Html, cell_of, element, facts, joined, table
from harness.report.page.other_charts import epoch_charts, histogram_chart, ledger_chart, scaling_chart
from harness.report.page.over_time import time_charts, unknown_series
from harness.report.page.packed import Arrays, packed, plotly
from harness.report.run_data import RunData
from harness.report.text import command_line
from models.words import count_of

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent
# Nothing is fetched, whatever the page holds: no network, frame, form or plugin.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none';"
    " form-action 'none'"
)
MAX_BAD_IMAGES = 200
TIME = "%Y-%m-%d %H:%M:%S UTC"
KEYS = (
    "With a chart in focus: left and right arrow move along its x axis, plus and minus zoom, 0 shows all of it."
    " Its table has the figures."
)


def page(runs: Sequence[RunData], scaling: pd.DataFrame | None = None) -> bytes:
    """Returns the page of a run, or of several side by side; scaling is the table of a series of device counts.

    Equal records and tables give equal bytes.
    """
    charts = _charts(runs, scaling)
    first = headline(runs[0].record) if len(runs) == 1 else _side_by_side(runs)
    title, about = _title(runs)
    return document(title, about, joined(first, _sections(runs, charts)), charts)


def document(title: str, about: str, main: Html, charts: Sequence[Chart]) -> bytes:
    """Returns a whole page: a title, a line below it, what it says, and the data of the charts that it shows."""
    arrays = Arrays()
    described = [chart.described(arrays) for chart in charts]
    button = element("button", "Dark or light", type="button", id="theme")
    body = joined(
        element("a", "Skip to the figures", href="#main", class_="skip"),
        element("header", element("h1", title), element("p", about), button),
        element("main", main, id="main"),
        element("p", "", id="announcement", aria_live="polite", class_="hidden"),
        element("p", KEYS, id="keys", class_="hidden"),
        joined(arrays.blocks(described), packed("plotly", plotly())) if charts else Html(),
        Html(f"<script>{_asset('page.js')}</script>"),
    )
    head = joined(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", f"{title} - PP-LCNet throughput bench"),
        Html(f"<style>{_asset('page.css')}</style>"),
        Html(f"<script>{_asset('theme.js')}</script>"),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'.encode()


def charted(charts: Sequence[Chart], below: str = "") -> Html:
    """Returns the section of the charts, with a sentence below them."""
    if not charts:
        return element("p", "No step has been recorded.")
    return element(
        "section",
        element("h2", "Charts"),
        element("div", [chart.html() for chart in charts], class_="charts"),
        element("p", below) if below else Html(),
        element("noscript", element("p", "Charts need JavaScript; the table below each title has their figures.")),
    )


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").strip()


def _charts(runs: Sequence[RunData], scaling: pd.DataFrame | None) -> list[Chart]:
    over_time = time_charts(runs)
    return [
        *([] if scaling is None else scaling_chart(scaling)),
        *over_time[:2],
        *ledger_chart(runs),
        *epoch_charts(runs),
        *histogram_chart(runs),
        *over_time[2:],
    ]


def _title(runs: Sequence[RunData]) -> tuple[str, str]:
    """The page's title, and the line below it."""
    if len(runs) > 1:
        return f"{count_of(len(runs), 'run')} side by side", ", ".join(run.name for run in runs)
    record = runs[0].record
    plan = record.plan
    begun = time.strftime(TIME, time.gmtime(record.attempts[0]["started_unix_seconds"])) if record.attempts else ""
    about = f"run {record.run}, {record.status}{', begun ' + begun if begun else ''}, {plan.data.name}"
    return f"PPLCNet_{plan.model} on {plan.ranks} x {plan.device_name}", about


def _side_by_side(runs: Sequence[RunData]) -> Html:
    """The figures of several runs, with a column for each."""
    rows = [[label, *(of(run.record) for run in runs)] for label, of in SIDE_BY_SIDE]
    comparison = box("Figures", table(("", *(run.name for run in runs)), rows, "The runs side by side"), also="wide")
    boxes = [box(f"{run.name} beside the reference", beside(run.record)) for run in runs]
    return joined(comparison, element("div", boxes, class_="boxes pages"))


def _bottleneck(record: RunRecord) -> str:
    if record.verdict is not None:
        return next(text for label, text in verdict_facts(record) if label == "bottleneck")
    return "not measured by a run of epochs" if record.ledger else "-"


# What stands side by side, with what it is of a record.
SIDE_BY_SIDE: tuple[tuple[str, Callable[[RunRecord], str | Html]], ...] = (
    ("status", lambda record: record.status),
    ("model", lambda record: f"PPLCNet_{record.plan.model}"),
    ("devices", lambda record: f"{record.plan.ranks} x {record.plan.device_name}"),
    ("data", lambda record: record.plan.data.name),
    ("throughput (images/s)", lambda record: figure(record, "fps", 1)),
    ("95 % interval", lambda record: joined(figure(record, "fps_low", 1), " to ", figure(record, "fps_high", 1))),
    ("images/s per device", lambda record: figure(record, "fps_per_device", 1)),
    ("top-1", lambda record: figure(record, "top1", 4)),
    ("of validation images", lambda record: figure(record, "val_images")),
    ("bottleneck", _bottleneck),
    *((title, partial(gain_row, name=name)) for name, title in GAINS.items()),
)


def _sections(runs: Sequence[RunData], charts: Sequence[Chart]) -> Html:
    alone = runs[0] if len(runs) == 1 else None
    unknown = unknown_series(runs)
    return joined(
        _notes(runs),
        Html() if alone is None else _reasons(alone.record),
        charted(charts, f"Not reported by any device here: {', '.join(unknown)}." if unknown else ""),
        [_of_run(run) for run in runs] if alone is not None else _differing(runs),
        [_bad_images(run, alone is None) for run in runs],
        _environment(alone) if alone is not None else Html(),
        [_command(run, alone is None) for run in runs],
    )


def _reasons(record: RunRecord) -> Html:
    """The phases' rates, what the verdict is based on, and what to try."""
    if record.verdict is None:
        return Html()
    rows = [(label, text) for label, text in verdict_facts(record) if label in ("evidence", "try")]
    rows += [(f"loaders, {row['phase']}", loader_text(row)) for row in record.loaders]
    return element(
        "section",
        element("h2", "Why, and what to try"),
        facts(rows, "Evidence and remedies"),
        element("h2", "Phases, measured alternately"),
        table(PHASE_COLUMNS, phase_rows(record), "The phases and their rates, in images per second of all devices"),
    )


def _notes(runs: Sequence[RunData]) -> Html:
    lines = [
        (run.name if len(runs) > 1 else f"note {place}", warning)
        for run in runs
        for place, warning in enumerate(run.record.warnings, 1)
    ]
    return element("section", element("h2", "Notes"), facts(lines, "Notes of the run")) if lines else Html()


def _of_run(run: RunData) -> Html:
    record = run.record
    parts: list[Html] = []
    if record.phases:
        parts += [element("h2", "The run in words"), facts(summary_facts(record), "The run's figures in words")]
    startup = record.attempts[-1].get("startup") if record.attempts else None
    if startup:
        stages = [(stage, f"{seconds:.2f} s") for stage, seconds in startup.items()]
        parts += [element("h2", "From the command to the first step"), facts(stages, "Stages of the start")]
    parts += [element("h2", "Plan"), facts(plan_facts(record.plan), "What was decided before the run")]
    changed = _given(record)
    if changed:
        rows = [(flag(name), str(value), str(default)) for name, (value, default) in changed.items()]
        parts += [
            element("h2", "Options that were given"),
            table(("option", "value", "default"), rows, "Options that differ from their defaults", 3),
        ]
    if record.summary:
        known: list[tuple[str, Html, str]] = [
            (column.name, value, column.unit) for column, value in summary_cells(record)
        ]
        parts.append(
            element(
                "details",
                element("summary", "Every figure of the run's row in summary.csv"),
                table(("figure", "value", "unit"), known, "The run's row in summary.csv", 3),
                id="summary",
            )
        )
    if len(run.epochs):
        parts.append(_epochs(run))
    return element("section", *parts)


def _epochs(run: RunData) -> Html:
    rows: list[list[str | Html]] = [
        [
            cell_of(None if values[column.name] != values[column.name] else values[column.name], column)
            for column in EPOCHS.columns
        ]
        for values in run.epochs.to_dict("records")
    ]
    return element(
        "details",
        element("summary", "Every epoch"),
        table(EPOCHS.header, rows, "The epochs table", 0),
        id="epochs",
    )


def _given(record: RunRecord) -> dict[str, tuple[Any, Any]]:
    """The options that were given another value than their default, with both."""
    asked = asdict(record.config)
    return {
        name: (asked[name], option.default)
        for name, option in run_options().items()
        if asked[name] != option.default and name != "resume"
    }


def _command(run: RunData, named: bool) -> Html:
    words: list[str] = []
    for name, (value, _) in _given(run.record).items():
        if isinstance(value, bool):
            words.append(flag(name) if value else flag(f"no_{name}"))
        else:
            words += [flag(name), str(value)]
    title = f"The command of {run.name}" if named else "The command"
    return element("section", element("h2", title), element("pre", element("code", command_line(*words)), tabindex=0))


def _differing(runs: Sequence[RunData]) -> Html:
    """What the runs were set to, as far as it differs, and what their machines have that differs."""
    first, *others = (run.record for run in runs)
    # Between the first and each other one, by the rules of `compare`.
    found = [{(one.where, one.name): one for one in differences(first, other)} for other in others]
    rows = []
    for key in dict.fromkeys(key for one in found for key in one):
        of_first = next(one[key].a for one in found if key in one)
        rows.append([" ".join(key), *(_text(value) for value in (
            of_first, *(one[key].b if key in one else of_first for one in found)))])  # fmt: skip
    heading = element("h2", "What differs")
    if not rows:
        return element("section", heading, element("p", "The settings and machines are the same."))
    header = ("setting", *(run.name for run in runs))
    return element("section", heading, table(header, rows, "Settings and machines that differ", len(header)))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _bad_images(run: RunData, named: bool) -> Html:
    if run.bad_images.empty:
        return Html()
    title = "Images left out" + (f" of {run.name}" if named else "")
    count, shown = len(run.bad_images), run.bad_images.head(MAX_BAD_IMAGES)
    rows = [[str(row["path"]), str(row["split"]), str(row["reason"])] for row in shown.to_dict("records")]
    about = f"{count_of(count, 'image')} left out."
    if count > MAX_BAD_IMAGES:
        about += f" The first {MAX_BAD_IMAGES} are here, all in {run.name}.bad_images.csv."
    return element(
        "section", element("h2", title), element("p", about), table(("image", "split", "reason"), rows, title, 3)
    )


def _environment(run: RunData) -> Html:
    record = run.record
    rows = [(name, _text(value)) for name, value in record.environment.items()]
    rows += [(f"in effect: {name}", _text(value)) for name, value in record.effective_settings.items()]
    marks = method_marks(record) if record.summary else ()
    return element(
        "section",
        element("h2", "Machine and software"),
        element("p", f"Departs from the published recipe in: {', '.join(marks)}.") if marks else Html(),
        facts(rows, "Machine, versions and the settings that the libraries reported"),
    )
