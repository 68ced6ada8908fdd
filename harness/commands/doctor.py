"""`run_bench.py doctor`: what is right and wrong with this machine, before a run finds out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.doctor.check import FAIL, LEVELS, OK, SKIP, WARN, Check, Context, Finding
from harness.doctor.checks import CHECKS, run_checks, select_checks, worst
from harness.doctor.gpu_day import FAILED, Outcome, run_day, select_rows, tally, versions, write_day
from harness.errors import MachineError
from harness.report.text import printable
from models.words import count_of

SCHEMA_VERSION = 1
MARKS = {OK: "ok  ", WARN: "WARN", FAIL: "FAIL", SKIP: "skip"}
# As DCGM's documentation has it: a pass says nothing beyond the checks.
HONESTY = (
    "An ok says only what its line says. These checks don't show that a run is fast, that it stays up for days, or\n"
    "that hardware is sound in what they don't touch; what was skipped was not looked at."
)


def doctor(
    names: Sequence[str],
    level: str,
    context: Context,
    *,
    as_json: bool = False,
    checks: Sequence[Check] = CHECKS,
) -> None:
    """Run the checks of a level, or those named, and print what they found; with as_json as one JSON value.

    Changes nothing on the machine. Raises MachineError if a check failed, UsageError for unknown names.
    """
    chosen = select_checks(level, names, checks)
    found: list[tuple[Check, Finding]] = []
    shown = ""
    for check, finding in run_checks(chosen, context):
        found.append((check, finding))
        if not as_json:
            if check.level != shown:
                shown = check.level
                print(shown)
            print("\n".join(lines(check, finding)), flush=True)
    if as_json:
        print(json.dumps(as_values(found), indent=2))
    else:
        print(f"\n{HONESTY}\n{counts(found)}")
    failed = [check.id for check, finding in found if finding.status == FAIL]
    if failed:
        raise MachineError(
            f"{len(failed)} of {count_of(len(found), 'check')} failed: {', '.join(failed)}",
            "" if as_json else "What each found and the command that mends it is above.",
        )


def gpu_day(names: Sequence[str], context: Context) -> None:
    """Make the rows of the first GPU day, all without names, and write gpu-day.md and gpu-day.json to the results.

    Both files are written after each row, so that an interruption loses none. Raises MachineError if a row failed.
    """
    about = versions(context)
    outcomes: list[Outcome] = []
    for outcome in run_day(select_rows(names), context):
        outcomes.append(outcome)
        written = write_day(Path(context.results), outcomes, about)
        finding = outcome.finding
        print(printable(f"  {outcome.result}  {outcome.row.id:>2}  {outcome.row.title}"), flush=True)
        for text in filter(None, (finding.found, finding.reason)):
            print(printable(f"            {text}"), flush=True)
    print(f"\n{tally(outcomes)}\n{written[0]} and {written[1].name} have the figures")
    failed = [str(one.row.id) for one in outcomes if one.result == FAILED]
    if failed:
        raise MachineError(
            f"{len(failed)} of {count_of(len(outcomes), 'row')} failed: {', '.join(failed)}",
            "docs/devices.md says what each row is about.",
        )


def list_checks(checks: Sequence[Check] = CHECKS) -> None:
    """Print every check: its name, its level, and what holds when it is ok."""
    widths = max(len(check.id) for check in checks), max(map(len, LEVELS))
    for check in checks:
        print(f"{check.id:<{widths[0]}}  {check.level:<{widths[1]}}  {check.title}")


def lines(check: Check, finding: Finding) -> list[str]:
    """Returns what the screen shows of a check: a line, and beneath it what isn't ok, and what to do."""
    figure = finding.found if finding.status != SKIP else finding.reason
    width = max(len(one.id) for one in CHECKS)
    shown = [f"  {MARKS[finding.status]}  {check.id:<{width}}  {figure or check.title}"]
    if finding.status in (WARN, FAIL):
        beneath = {"expected": finding.expected, "reason": finding.reason, "cure": finding.cure}
        indent = " " * (width + 10)
        shown += [f"{indent}{name}: {text}" for name, text in beneath.items() if text]
    return [printable(line) for line in shown]


def counts(found: Sequence[tuple[Check, Finding]]) -> str:
    """Returns how many checks came to which end, in one line."""
    statuses = [finding.status for _, finding in found]
    words = {OK: "ok", WARN: "to look at", FAIL: "failed", SKIP: "skipped"}
    return f"{count_of(len(found), 'check')}: " + ", ".join(
        f"{statuses.count(status)} {word}" for status, word in words.items()
    )


def as_values(found: Sequence[tuple[Check, Finding]]) -> dict[str, Any]:
    """Returns what was found as values for JSON."""
    rows = [{"id": check.id, "level": check.level, "title": check.title, **asdict(finding)} for check, finding in found]
    return {
        "schema_version": SCHEMA_VERSION,
        "status": worst([finding.status for _, finding in found]),
        "checks": rows,
    }
