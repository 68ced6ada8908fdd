"""The combined results of a series of runs, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable

from harness.analysis.verdict import UNCERTAIN
from harness.report.console import Console
from harness.report.findings import interval_text
from harness.report.text import plain_text


def show_repeats(
    console: Console, series: str, summaries: Sequence[Mapping[str, Any]], spread: Mapping[str, Any]
) -> None:
    """Print the runs of a series of repeats, and their mean with the interval between runs."""
    table = RichTable(title=plain_text(f"series {series}"), box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("run", "images/s, all devices", "95 % interval within", "disturbed by"):
        table.add_column(title, justify="right" if title != "run" else "left")
    for summary in summaries:
        cells = (summary["run"], f"{summary['fps']:.1f}", interval_text(summary), summary["interference"] or "unknown")
        table.add_row(*map(plain_text, cells))
    console.rich.print(table)
    console.rich.print(
        plain_text(
            f"  geometric mean of {spread['count']} runs: {spread['fps']:.1f} images/s, 95 % interval between runs"
            f" {interval_text(spread)}, standard deviation {spread['relative_sd']:.2%}"
        )
    )


def show_scaling(console: Console, series: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a row per number of devices."""
    table = RichTable(title=plain_text(f"scaling {series}"), box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("devices", "images/s", "95 % interval", "efficiency", "communication", "rank skew", "bottleneck"):
        table.add_column(title, justify="right")
    for row in rows:
        skew = row["rank_skew_share"]
        cells = (
            str(row["devices"]),
            f"{row['fps']:.1f}",
            interval_text(row),
            f"{row['efficiency']:.1%}" + (" (!)" if row["superlinear"] else ""),
            _exposed_text(row),
            "-" if skew is None else f"{skew:.1%}, rank {row['slowest_rank']}",
            row["bottleneck"] or "-",
        )
        table.add_row(*map(plain_text, cells))
    console.rich.print(table)
    if any(map(_impossible, rows)):
        console.rich.print(
            plain_text(
                "  (?) can't be right: the run was faster with the exchange of gradients than without; one of its"
                " phases was disturbed, or has too few steps"
            )
        )
    if any(row["superlinear"] for row in rows):
        console.rich.print(
            plain_text(
                "  (!) superlinear: more than the added devices explain; the run on the fewest devices was measured too"
                " slow"
            )
        )


def _exposed_text(row: Mapping[str, Any]) -> str:
    """Returns the share of time that exchanging gradients adds, as it can be: noise makes it negative."""
    share = row["exposed_communication_share"]
    if share is None:
        return "-"
    return f"{share:.1%} (?)" if _impossible(row) else f"{max(share, 0.0):.1%}"


def _impossible(row: Mapping[str, Any]) -> bool:
    share = row["exposed_communication_share"]
    return share is not None and share < 0 and row["bottleneck"] == UNCERTAIN
