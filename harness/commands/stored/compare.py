"""`run_bench.py compare`: is B as fast as A, or is it noise?"""

from __future__ import annotations

import math
import re
from pathlib import Path

from harness.analysis.comparing.compare import Difference, compare
from harness.analysis.comparing.stored_result import StoredResult, find_result
from harness.analysis.latency.stored import find_latency
from harness.commands.stored.compare_latency import compare_latencies
from harness.errors import GateError, UsageError
from harness.report.comparison import change_line, show_comparison
from harness.report.console import Console


def compare_saved(a: str, b: str, results: str, fail_if_slower: str | None = None) -> None:
    """Print how B compares with A; both are names that `harness.analysis.stored_result.find_result` accepts.

    Two measurements of latency are compared size by size, see `compare_latencies`.
    Raises UsageError for results that can't be compared, or when fail_if_slower can't be judged; GateError when B is
    slower by more than that, beyond noise.
    """
    limit = None if fail_if_slower is None else parse_limit(fail_if_slower)
    if any(find_latency(name, Path(results)) is not None for name in (a, b)):
        compare_latencies(a, b, Path(results), limit)
        return
    result_a, result_b = find_result(a, Path(results)), find_result(b, Path(results))
    difference = compare(result_a.side, result_b.side)
    console = Console()
    show_comparison(console, result_a, result_b, difference)
    if limit is not None:
        unlike = result_a.job.unlike(result_b.job)
        if unlike:
            raise UsageError(
                f"--fail-if-slower can't be judged: A and B did not do the same job ({', '.join(unlike)})",
                "Measure B with A's settings.",
            )
        console.notice(check_gate(result_a, result_b, difference, limit))


def parse_limit(text: str) -> float:
    """A slowdown as a share, from a percentage ("5%", "2.5 %") or a share ("0.05"). Raises UsageError."""
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(%?)\s*", text, re.ASCII)
    share = float(found[1]) / (100 if found[2] else 1) if found else math.nan
    if not 0 <= share < 1:
        raise UsageError(
            f"--fail-if-slower {text!r} is not a slowdown of at least 0 % and below 100 %",
            "Give a percentage such as 5%, or a share such as 0.05.",
        )
    return share


def check_gate(a: StoredResult, b: StoredResult, difference: Difference, limit: float) -> str:
    """Check that B isn't slower than A by more than the limit. Returns why it passes, in one line.

    Raises GateError if B is slower, UsageError if that can't be judged.
    """
    option, slowdown = f"--fail-if-slower {100 * limit:g} %", -difference.change
    # A slowdown equal to the limit passes, whatever rounding did.
    if slowdown <= limit or math.isclose(slowdown, limit):
        return f"{option}: passed"
    if difference.verdict == "unknown":
        raise UsageError(
            f"{option} can't be judged: {b.name!r} is {100 * slowdown:.1f} % below {a.name!r}, and {difference.how}"
            " to distinguish that from noise",
            "Measure with longer runs (--max-seconds), or several times with --repeats.",
        )
    if difference.verdict != "slower":
        return f"{option}: passed, as noise explains the slowdown; longer runs or --repeats would detect more"
    raise GateError(
        f"{b.name!r} compared with {a.name!r}: {change_line(difference)}; the limit is {100 * limit:g} %",
        "What differs between them is listed above. Measure both again with --repeats to rule out chance.",
    )
