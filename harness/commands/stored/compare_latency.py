"""`run_bench.py compare` of two measurements of latency: size by size, is B as fast as A, or is it noise?"""

from __future__ import annotations

import math
from pathlib import Path

from harness.analysis.comparing.compare import compare
from harness.analysis.latency.stored import LatencyRecord, find_latency, read_latency, side_of, unlike
from harness.errors import GateError, UsageError
from harness.report.console import Console
from harness.report.latency import show_latency_comparison


def compare_latencies(a: str, b: str, folder: Path, limit: float | None) -> None:
    """Print how the latencies of B compare with those of A, for every size and engine that both have.

    limit is the slowdown that is tolerated, as a share of the rate. Raises UsageError for measurements that can't be
    compared, or where the limit can't be judged; GateError when a size of B is slower by more than that, beyond noise.
    """
    record_a, record_b = _read(a, b, folder), _read(b, a, folder)
    pairs = [pair for pair in record_a.measured if pair in record_b.measured]
    if not pairs:
        raise UsageError(
            f"{a!r} and {b!r} have no size with the same engine in common",
            "Measure both with the same --model and --engine.",
        )
    differences = {pair: compare(side_of(record_a, *pair), side_of(record_b, *pair)) for pair in pairs}
    console = Console()
    show_latency_comparison(console, record_a, record_b, differences)
    if limit is None:
        return
    if found := unlike(record_a, record_b):
        raise UsageError(
            f"--fail-if-slower can't be judged: A and B did not do the same job ({', '.join(found)})",
            "Measure B with A's settings.",
        )
    option = f"--fail-if-slower {100 * limit:g} %"
    beyond = {
        pair: difference
        for pair, difference in differences.items()
        if -difference.change > limit and not math.isclose(-difference.change, limit)
    }
    if unknown := [size for (size, _), difference in beyond.items() if difference.verdict == "unknown"]:
        raise UsageError(
            f"{option} can't be judged: no interval tells the slowdown of {', '.join(unknown)} from noise",
            "Measure both with more --rounds.",
        )
    if slower := [f"{size} with {engine}" for (size, engine), one in beyond.items() if one.verdict == "slower"]:
        raise GateError(
            f"{b!r} compared with {a!r}: slower by more than {100 * limit:g} %: {', '.join(slower)}",
            "Measure both again with nothing else on the machine to rule out chance.",
        )
    console.line(f"{option}: passed")


def _read(name: str, other: str, folder: Path) -> LatencyRecord:
    path = find_latency(name, folder)
    if path is None:
        raise UsageError(
            f"{other!r} is a measurement of latency, and {name!r} is not one in {str(folder)!r}",
            "Compare two measurements of latency, or two runs.",
        )
    return read_latency(path)
