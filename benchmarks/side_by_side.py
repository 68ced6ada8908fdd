"""Contestants measured in turns: the turns, and the table of their rates and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence


def in_turns(names: Sequence[str], rounds: int, measure: Callable[[str], float]) -> dict[str, list[float]]:
    """Measure each once a round; returns the rates by name."""
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        # The order alternates, because the first may run on a cooler processor.
        for name in names[:: -1 if number % 2 else 1]:
            rates[name].append(measure(name))
    return rates


def print_table(rates: Mapping[str, Sequence[float]], bases: Sequence[str], absent: Mapping[str, str]) -> None:
    """Print a table in Markdown: medians and ranges in images/s, and of each round's ratios to the bases.

    absent says why others have no rates.
    """
    bases = [base for base in bases if base in rates]
    print("| contestant | images/s | " + " | ".join(f"/ {base}" for base in bases) + " |")
    print("| --- " * (2 + len(bases)) + "|")
    for name, found in rates.items():
        ratios = [[own / other for own, other in zip(found, rates[base], strict=True)] for base in bases]
        cells = [summary(found, _rate), *(summary(ratio, "{:.3f}".format) for ratio in ratios)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name, reason in absent.items():
        print(f"| {name} | {reason} |" + " |" * len(bases), flush=True)


def summary(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The median with the range."""
    return f"{shown(statistics.median(values))} ({shown(min(values))} to {shown(max(values))})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
