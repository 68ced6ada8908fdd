"""What a chart shows, apart from how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.report.page.html import Html, element, joined, table
from harness.report.page.packed import Arrays

FloatArray = npt.NDArray[np.float64]

# How a trace is drawn; a band is a closed shape between two lines.
LINE, BAND, POINTS, BARS, STACKED = "line", "band", "points", "bars", "stacked"
# What a shaded stretch of the time axis is.
WARMUP, INTERFERENCE, PAUSE = "warm-up", "interference", "pause"


@dataclass(frozen=True, slots=True)
class Trace:
    """A named series. colour is the number of its colour and dash; x are numbers, or names of bars.

    hidden: it is drawn once its name is clicked.
    """

    name: str
    x: FloatArray | tuple[str, ...]
    y: FloatArray
    mark: str = LINE
    colour: int = 0
    hidden: bool = False

    def described(self, arrays: Arrays) -> dict[str, Any]:
        """The trace for the script, with its numbers put into the arrays."""
        x = list(self.x) if isinstance(self.x, tuple) else arrays.add(self.x)
        how = {"name": self.name, "mark": self.mark, "colour": self.colour, "hidden": self.hidden}
        return {**how, "x": x, "y": arrays.add(self.y)}


@dataclass(frozen=True, slots=True)
class Span:
    """A shaded stretch of the x axis, or a labelled line where begin equals end."""

    begin: float
    end: float
    what: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its title, a sentence on what it shows, and the table behind it.

    spans are shaded. on_time: its x axis is the run's time, which all such charts of a page share. is_share: the values
    are shares of a whole. The y axis reaches to highest, if it is given. header and rows are the table's.
    """

    key: str
    title: str
    about: str
    x_title: str
    y_title: str
    traces: tuple[Trace, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    spans: tuple[Span, ...] = ()
    on_time: bool = False
    is_share: bool = False
    highest: float | None = None

    def described(self, arrays: Arrays) -> dict[str, Any]:
        """The chart for the script."""
        return {
            "key": self.key,
            "x": self.x_title,
            "y": self.y_title,
            "time": self.on_time,
            "share": self.is_share,
            "highest": self.highest,
            "traces": [trace.described(arrays) for trace in self.traces],
            "spans": [[span.begin, span.end, span.what] for span in self.spans],
        }

    def html(self) -> Html:
        """The chart's place in the page, with its table."""
        title_id, about_id = f"{self.key}-title", f"{self.key}-about"
        return element(
            "section",
            joined(
                element("h3", self.title, id=title_id),
                element("p", self.about, id=about_id),
                element(
                    "div",
                    class_="plot", data_chart=self.key, tabindex=0, role="application", aria_roledescription="chart",
                    aria_labelledby=title_id, aria_describedby=f"{about_id} keys",
                ),
                element(
                    "details",
                    element("summary", f"Table: {self.title}"),
                    table(self.header, self.rows, self.title),
                ),
            ),
            class_="chart", id=self.key,
        )  # fmt: skip


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number with that number of significant digits, or a dash if it isn't known."""
    if value is None or np.isnan(value):
        return "-"
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e" in text and abs(value) >= 1 else text


def band(x: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns the closed shapes between two lines, one for each stretch without a NaN, with a NaN between two."""
    xs: list[FloatArray] = []
    ys: list[FloatArray] = []
    known = ~(np.isnan(low) | np.isnan(high) | np.isnan(x))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    gap = np.array([np.nan])
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        part = slice(begin, end)
        xs += [x[part], x[part][::-1], gap]
        ys += [high[part], low[part][::-1], gap]
    empty = np.array([], dtype=np.float64)
    return (np.concatenate(xs), np.concatenate(ys)) if xs else (empty, empty)
