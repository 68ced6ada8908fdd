"""Two measurements side by side, whether noise explains their difference, and what else differs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from rich import box
from rich.table import Table as RichTable

from harness.analysis.comparing.compare import Difference
from harness.analysis.comparing.run_diff import SettingDifference, differences
from harness.analysis.comparing.stored_result import StoredResult
from harness.analysis.interference import DISTURBED_WINDOW
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import TRAIN
from harness.machine.device_kinds import device_kind
from harness.report.beside_reference import standing
from harness.report.console import Console
from harness.report.findings import with_interval
from harness.report.text import plain_text
from models.notes import Note


def show_comparison(console: Console, a: StoredResult, b: StoredResult, difference: Difference) -> None:
    """Print the comparison of two measurements: figures, warnings, the result, and what differs."""
    rich = console.rich
    rich.print(_side_by_side(a, b))
    unlike = a.job.unlike(b.job)
    if unlike:
        rich.print(plain_text(f"NOT THE SAME JOB (A, B): {', '.join(unlike)}"))
    for warning in warnings(a, b):
        console.notice(warning)
    rich.print(plain_text(change_line(difference)))
    rich.print(plain_text(f"  based on: {difference.how}"))
    if not a.records or not b.records:
        for result in (a, b):
            for record in result.records[:1]:
                for line in standing(record):
                    rich.print(plain_text(f"  {line}"))
        rich.print(plain_text("  Nothing else is known about the reference's settings and machine."))
        return
    for letter, result in (("A", a), ("B", b)):
        among = _differing_within(result)
        if among:
            rich.print(plain_text(f"  The runs of {letter} differ among themselves: {', '.join(among)}"))
    found = differences(a.records[0], b.records[0])
    if found:
        rich.print(_what_differs(found))
    else:
        rich.print(plain_text("  The settings and everything recorded about files and machine are the same."))


def change_line(difference: Difference) -> str:
    """Returns the result in one line, with its 95 % interval where it is known."""
    change, low, high, p_value = difference.change, difference.low, difference.high, difference.p_value
    if low is None or high is None or p_value is None:
        return f"B/A {_signed(change)} %, significance unknown: {difference.how}"
    if difference.verdict == "equal":
        return (
            f"no significant difference: B/A {_signed(change)} % ({_signed(low)} to {_signed(high)} %), {_p(p_value)}"
        )
    near, far = (low, high) if difference.verdict == "faster" else (-high, -low)
    return (
        f"B is {100 * abs(change):.1f} % {difference.verdict} than A (95 % interval {100 * near:.1f} to"
        f" {100 * far:.1f} % {difference.verdict}, {_p(p_value)})"
    )


def _is_copy(record: RunRecord, other: RunRecord) -> bool:
    """Returns whether both are of one run, which began once, whatever their files are called."""
    return record == other or (bool(record.attempts) and record.attempts == other.attempts)


def warnings(a: StoredResult, b: StoredResult) -> list[Note]:
    """Returns what makes a side's figures doubtful, each with its cure."""
    lines = []
    shared = [record.run for record in a.records if any(_is_copy(record, other) for other in b.records)]
    if shared:
        lines.append(
            Note(
                f"A and B share runs, which hides their difference: {', '.join(shared)}; compare different runs",
                "Name runs that are in one of the two only.",
            )
        )
    for letter, result in (("A", a), ("B", b)):
        for caveat in CAVEATS:
            hit = [record for record in result.records if caveat.applies(record)]
            if hit:
                whose = letter if len(result.records) == 1 else f"{letter} ({', '.join(record.run for record in hit)})"
                reasons = sorted(set(chain.from_iterable(map(_interference_kinds, hit))))
                said = caveat.note.format(interference=", ".join(reasons))
                lines.append(Note(f"{whose}: {said}", caveat.note.cure))
    return lines


@dataclass(frozen=True, slots=True)
class Caveat:
    """Something about a run that makes its figure doubtful, and what cures it."""

    applies: Callable[[RunRecord], bool]
    note: Note


def _known(record: RunRecord) -> bool:
    """Returns whether the version that wrote the run measured intervals, steady state and interference at all."""
    return "relative_standard_error" in record.phases[TRAIN]


def _interference_kinds(record: RunRecord) -> list[str]:
    interference = record.summary.get("interference")
    return str(interference).split("|") if interference not in (None, "none") else []


def _too_short(record: RunRecord) -> bool:
    return record.phases[TRAIN].get("relative_standard_error") is None or record.summary.get("steady") is None


AGAIN = "Run it again, with nothing else on the machine."
CAVEATS = (
    Caveat(
        lambda record: not _known(record),
        Note("written by an earlier version, without intervals, steady state and interference; run it again", AGAIN),
    ),
    Caveat(
        lambda record: bool(_interference_kinds(record)),
        Note("disturbed by {interference}; run it again while nothing disturbs it", AGAIN),
    ),
    Caveat(
        lambda record: record.summary.get("steady") is False,
        Note(
            "no steady state, so the throughput depends on when the run ended; raise --warmup or --max-seconds",
            "Raise --warmup or --max-seconds.",
        ),
    ),
    Caveat(
        lambda record: record.phases[TRAIN].get("outliers", {}).get("isolated_share", 0.0) >= DISTURBED_WINDOW,
        Note(
            "a few steps took much of its time, and its figure depends on how many of them it has; run it again", AGAIN
        ),
    ),
    Caveat(
        lambda record: _known(record) and _too_short(record),
        Note(
            "no interval, or not known whether its steps are steady: too few of them, or too noisy; raise --max-seconds"
            " or --epochs, and use nothing else on the machine",
            "Raise --max-seconds or --epochs.",
        ),
    ),
    Caveat(
        lambda record: (
            record.summary.get("window_end") == "max_seconds"
            and record.summary.get("steady") is True
            and not _too_short(record)
        ),
        Note("ended by --max-seconds before --target-ci was reached; raise --max-seconds", "Raise --max-seconds."),
    ),
)


def _side_by_side(a: StoredResult, b: StoredResult) -> RichTable:
    table = RichTable(title="comparison", box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("", "A", "B"):
        table.add_column(title, overflow="fold")
    for (label, left), (_, right) in zip(_facts(a), _facts(b), strict=True):
        table.add_row(*map(plain_text, (label, left, right)))
    return table


def _facts(result: StoredResult) -> list[tuple[str, str]]:
    """Returns one side as labels and values, each with its scope; "-" is unknown or not measured."""
    fps, job = result.side.mean_fps, result.job
    if result.reference is not None:
        throughput, top1, bottleneck = with_interval({"fps": fps}), result.reference.cells[3], ""
        runs, hardware = "the published row", "BI-V100"
    else:
        low, high = result.side.spread_interval or (None, None)
        figures = (
            result.records[0].phases[TRAIN]
            if len(result.records) == 1
            else {"fps": fps, "fps_low": low, "fps_high": high}
        )
        throughput = with_interval(figures)
        summaries = [record.summary for record in result.records]
        top1 = _mean_accuracy(summaries)
        bottleneck = "|".join(
            sorted({str(summary["bottleneck"]) for summary in summaries if summary.get("bottleneck")})
        )
        count = len(result.records)
        runs = "1; interval within its window" if count == 1 else f"{count}; geometric mean, interval between runs"
        hardware = "|".join(sorted({_hardware(record) for record in result.records}))
    return [
        ("name", result.name),
        ("runs", runs),
        ("throughput", f"{throughput}, all devices"),
        ("per device", f"{fps / job.devices:.1f} images/s"),
        ("devices", device_kind(job.device).several(job.devices, hardware)),
        ("top-1", top1 or "-"),
        ("bottleneck", bottleneck or "-"),
    ]


def _hardware(record: RunRecord) -> str:
    return str(record.summary.get("device_name") or record.plan.device_name)


def _mean_accuracy(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Returns the top-1 with the number of images that it is of; empty unless all runs have one."""
    known = [summary["top1"] for summary in summaries if summary.get("top1") is not None]
    if not known or len(known) < len(summaries):
        return ""
    text = f"{statistics.fmean(known):.4f}"
    counts = {count for summary in summaries if (count := summary.get("val_images")) is not None}
    if counts:
        text += f" of {' or '.join(f'{count:,}' for count in sorted(counts))} images"
    return text if len(known) == 1 else f"{text}, mean"


def _differing_within(result: StoredResult) -> list[str]:
    """Returns the names of what differs between a series' first run and its others."""
    first, *others = result.records
    return sorted({found.name for other in others for found in differences(first, other)})


def _what_differs(found: list[SettingDifference]) -> RichTable:
    table = RichTable(title="what differs", box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("", "", "A", "B"):
        # Long values may differ in their ends only.
        table.add_column(title, overflow="fold")
    for where, group in _grouped(found):
        for number, one in enumerate(group):
            table.add_row(*map(plain_text, ("" if number else where, one.name, *_values(one))))
    return table


def _grouped(found: list[SettingDifference]) -> list[tuple[str, list[SettingDifference]]]:
    return [(where, [one for one in found if one.where == where]) for where in dict.fromkeys(x.where for x in found)]


def _values(one: SettingDifference) -> tuple[str, str]:
    """Returns both values, with as many digits as it takes to distinguish them."""
    short, long = ((show(one.a), show(one.b)) for show in (_short, str))
    return short if short[0] != short[1] else long


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _signed(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # no -0.0


def _p(value: float) -> str:
    if value < 0.0001:
        return "p < 0.0001"
    return f"p = {value:.2f}" if value >= 0.1 else f"p = {value:.4f}"
