"""`run_bench.py compare`: is B as fast as A, or is it noise?"""

from __future__ import annotations

import math
import re
from pathlib import Path

from harness.analysis.compare import Difference, compare
from harness.analysis.stored_result import StoredResult, find_result
from harness.errors import GateError, UsageError
from harness.report.comparison import change_line, show_comparison
from harness.report.console import Console


def compare_saved(a: str, b: str, results: str, fail_if_slower: str | None = None) -> None:
    """Print how B compares with A; both are names as `harness.analysis.stored_result.find_result` takes them.

    Raises UsageError for what can't be compared, and where fail_if_slower can't be judged; GateError where B is slower
    by more than that, and not by noise.
    """
    limit = None if fail_if_slower is None else parse_limit(fail_if_slower)
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
            f"--fail-if-slower {text!r} is no slowdown from 0 % to below 100 %",
            "Give a percentage such as 5%, or a share such as 0.05.",
        )
    return share


def check_gate(a: StoredResult, b: StoredResult, difference: Difference, limit: float) -> str:
    """Why B isn't too slow, in one line. Raises GateError if it is, UsageError if nobody can tell."""
    told, slowdown = f"--fail-if-slower {100 * limit:g} %", -difference.change
    # A slowdown of the limit itself passes, rounding or not.
    if slowdown <= limit or math.isclose(slowdown, limit):
        return f"{told}: passed"
    if difference.verdict == "unknown":
        raise UsageError(
            f"{told} can't be judged: {b.name!r} is {100 * slowdown:.1f} % below {a.name!r}, and {difference.how}"
            " to tell that from noise",
            "Measure with longer runs (--max-seconds), or several times with --repeats.",
        )
    if difference.verdict != "slower":
        return f"{told}: passed, as noise explains the slowdown; longer runs or --repeats would see more"
    raise GateError(
        f"{b.name!r} against {a.name!r}: {change_line(difference)}; the limit is {100 * limit:g} %",
        "What differs between them is listed above. Measured again with --repeats, a difference by chance goes away.",
    )
