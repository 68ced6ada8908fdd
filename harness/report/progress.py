"""A bar over images that are read, for commands that read all of a data set."""

from __future__ import annotations

from rich import progress as bars

from harness.report.console import Console


def image_bar(console: Console, total: int) -> bars.Progress:
    """Returns a bar over `total` images; the field `rate` of a task is the text after their count."""
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn(f"{{task.completed:,.0f}} of {total:,} {{task.fields[rate]}}"),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        console=console.rich,
        disable=not console.rich.is_terminal,
        transient=True,
    )
