"""The page of a campaign: its cells side by side, and a small chart of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.analysis.campaigns.cells import CellFigures, reference_cell
from harness.analysis.campaigns.stored import CampaignFiles
from harness.artifacts.schema import TRAIN
from harness.artifacts.shared_schema import CELLS
from harness.report.page.chart import BARS, Chart, Trace, number
from harness.report.page.document import charted, document
from harness.report.page.html import Html, cell_of, element, joined, table
from harness.report.page.over_time import fps_of_runs
from harness.report.run_data import RunData, read_run

# The figures that have a chart over the cells, if they are known: title and axis.
FIGURES = {
    "fps": ("Throughput", "images/s"),
    "fps_per_device": ("Throughput per device", "images/s"),
    "top1": ("Top-1", "share of the validation images"),
    "data_gain": ("Gain if data cost nothing", "times as fast"),
    "images_per_joule": ("Images per joule", "images/J"),
}
SHOWN = ("cell", "state", "runs", "fps", "fps_low", "fps_high", "fps_per_device", "top1", "data_gain", "bottleneck",
         "interference", "reason")  # fmt: skip
DIGITS = {"fps": 1, "fps_low": 1, "fps_high": 1, "fps_per_device": 1, "data_gain": 2}


def campaign_page(files: CampaignFiles, cells: Sequence[CellFigures]) -> bytes:
    """Returns the page of a campaign, of what there is of it."""
    runs = {one.cell.name: [read_run(files.of(record.run).record) for record in one.records] for one in cells}
    rows = [reference_cell(), *(one.row() for one in cells)]
    charts = [*_over_cells(rows[1:]), *_of_each(runs)]
    columns = [column for column in CELLS.columns if column.name in SHOWN]
    columns.sort(key=lambda column: SHOWN.index(column.name))
    body: list[list[str | Html]] = []
    for row in rows:
        shown = [cell_of(row.get(column.name), column, _short(row, column.name)) for column in columns]
        body.append([*shown])
    main = joined(
        element(
            "section",
            element("h2", "Cells"),
            table([column.name for column in columns], body, "The campaign's cells beside the reference", 2),
            class_="box wide",
        ),
        charted(charts),
    )
    return document(f"Campaign {files.name}", f"{len(cells)} cells", main, charts)


def _short(row: dict[str, object], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return "-"
    return f"{value:,.{DIGITS[name]}f}" if name in DIGITS and isinstance(value, float) else None


def _over_cells(rows: Sequence[dict[str, object]]) -> list[Chart]:
    charts = []
    for name, (title, axis) in FIGURES.items():
        known = [row for row in rows if isinstance(row.get(name), float)]
        if not known:
            continue
        cells = tuple(str(row["cell"]) for row in known)
        values = np.array([float(str(row[name])) for row in known])
        table_rows = tuple((cell, number(float(value))) for cell, value in zip(cells, values, strict=True))
        charts.append(
            Chart(
                f"cells-{name.replace('_', '-')}", title, f"{title} of every cell that has it.", "", axis,
                (Trace(title, cells, values, BARS),), ("cell", axis), table_rows,
            )
        )  # fmt: skip
    return charts


def _of_each(runs: dict[str, list[RunData]]) -> list[Chart]:
    """A small chart of each cell: its runs' throughput over time, with one scale for all."""
    drawn = {cell: made for cell, made in runs.items() if any((run.steps["phase"] == TRAIN).any() for run in made)}
    highest = max((float(run.steps.loc[run.steps["phase"] == TRAIN, "fps"].quantile(0.99))
                   for made in drawn.values() for run in made), default=0.0)  # fmt: skip
    return [fps_of_runs(f"cell-{place}", cell, made, highest) for place, (cell, made) in enumerate(drawn.items(), 1)]
