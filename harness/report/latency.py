"""A measurement of latency on the terminal: what is timed, each round, the figures, and how the claim stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable

from harness.analysis.comparing.compare import Difference
from harness.analysis.latency.claim import Claim
from harness.analysis.latency.figures import Turn
from harness.analysis.latency.job import Job
from harness.analysis.latency.medians import MedianEstimate
from harness.analysis.latency.stored import LatencyRecord, unlike
from harness.analysis.latency.table import NONE
from harness.artifacts.record import RunFiles
from harness.machine.placement.core_lists import format_cores
from harness.report.console import Console
from harness.report.live.view import clock
from harness.report.text import plain_text
from models.architecture import HEIGHT
from models.sizes import PUBLISHED_LATENCY
from models.words import count_of

# The size whose kernels are printed, where it was measured: the reference's.
SHOWN_SIZE = "x1_0"
MAX_KERNELS = 6
PUBLISHED = (
    f"published: {PUBLISHED_LATENCY.processor}, {PUBLISHED_LATENCY.library}, {PUBLISHED_LATENCY.threads} threads,"
    f" {count_of(PUBLISHED_LATENCY.batch_size, 'image')} of {PUBLISHED_LATENCY.image_size} px"
)


def job_text(job: Job) -> str:
    """Returns how the networks are called, in words."""
    cores = f" on core{'s' if len(job.cores) > 1 else ''} {format_cores(job.cores)}" if job.cores else ""
    images = f"{count_of(job.batch_size, 'image')} of {job.image_size} px in a call"
    if job.strides == HEIGHT:
        images += ", stages that halve the height alone"
    return f"{count_of(job.threads, 'thread')}{cores}, {images}"


def show_job(console: Console, job: Job, weights: str, device_name: str) -> None:
    """Print what will be timed, and for how long at least."""
    seconds = job.rounds * job.turn_seconds * len(job.pairs)
    console.line(f"latency of {', '.join(job.sizes)} with {', '.join(job.engines)} on {device_name}")
    console.line(f"  {job_text(job)}; {weights}")
    console.line(f"  {count_of(job.rounds, 'round')} of {job.turn_seconds:g} s each, {clock(seconds)} in all")


def show_round(console: Console, job: Job, turns: Sequence[Turn], number: int) -> None:
    """Print the medians of a round, from 0, in ms: of each size the engines' in their order."""
    found = {(turn.size, turn.engine): turn for turn in turns if turn.round == number}
    parts = []
    for size in job.sizes:
        medians = [f"{found[size, engine].median_ms:.2f}" for engine in job.engines if (size, engine) in found]
        parts.append(f"{size} {'/'.join(medians) or '-'}")
    disturbed = sorted({reason for turn in found.values() for reason in turn.disturbed})
    text = f"  round {number + 1}/{job.rounds}, ms: {', '.join(parts)}"
    console.line(text + (f" (disturbed: {', '.join(disturbed)})" if disturbed else ""))


def show_measured(console: Console, record: LatencyRecord, files: RunFiles) -> None:
    """Print the figures beside the published ones, how the claim stands, which kernels ran, and what was written."""
    for engine in record.job.engines:
        if any(row["engine"] == engine and row.get("median_ms") is not None for row in record.rows):
            console.rich.print(_figures(record, engine))
    console.line(PUBLISHED)
    console.line(f"here: {record.device_name}, {job_text(record.job)}, {record.weights}")
    for line in (*ratios_text(record), *claims_text(record.claims), *kernels_text(record)):
        console.line(line)
    for row in record.rows:
        if row["failure"]:
            console.line(f"{row['model']} with {row['engine']} has no figures: {row['failure']}")
    for warning in record.warnings:
        console.notice(warning)
    console.line(f"Written to {files.folder}/: {files.run}.latency.csv, .json and .html")


def _figures(record: LatencyRecord, engine: str) -> RichTable:
    """The table of an engine's sizes; a star is at those that were disturbed."""
    title = plain_text(f"latency {record.name}, {engine}")
    table = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    rows = [row for row in record.rows if row["engine"] == engine and row.get("median_ms") is not None]
    metered = any(row.get("images_per_joule") is not None for row in rows)
    # Of two short lines each, so that they fit into 80 columns.
    titles = ("size", "median ms\n(95 % interval)", "p95\nms", "images\nper s", *(["images\nper J"] if metered else []),
              "top-1\n%", "top-1 %\nper ms", "published\nms", "published\n% per ms")  # fmt: skip
    for name in titles:
        table.add_column(name, justify="left" if name == "size" else "right", no_wrap=True)
    for row in rows:
        cells = (
            row["model"] + ("" if row["disturbed"] == NONE else " *"),
            interval(row, "median", "_ms"),
            figure(row, "p95_ms", 2),
            figure(row, "images_per_second", 1),
            *([figure(row, "images_per_joule", 2)] if metered else []),
            f"{100 * row['top1']:.2f}",
            figure(row, "top1_per_ms", 1),
            figure(row, "published_ms", 2),
            figure(row, "published_top1_per_ms", 1),
        )
        table.add_row(*map(plain_text, cells))
    return table


def ratios_text(record: LatencyRecord) -> list[str]:
    """Returns how many times as long every engine takes as the first one, a line for each."""
    first, *others = record.job.engines
    lines = []
    for engine in others:
        rows = [row for row in record.rows if row["engine"] == engine and row.get("ratio") is not None]
        parts = [f"{row['model']} {interval(row, 'ratio')}" for row in rows]
        if parts:
            lines.append(f"{engine}, times as long as {first}: {', '.join(parts)}")
    return lines


def figure(row: dict[str, Any], name: str, digits: int) -> str:
    """Returns a figure of a row; a dash if it isn't known."""
    return "-" if row.get(name) is None else f"{row[name]:,.{digits}f}"


def interval(row: dict[str, Any], name: str, unit: str = "") -> str:
    """Returns a figure of a row with its interval, if that is known."""
    middle, low, high = (figure(row, f"{name}{part}{unit}", 2) for part in ("", "_low", "_high"))
    return middle if "-" in (low, high) else f"{middle} ({low}-{high})"


def claims_text(claims: Sequence[Claim]) -> list[str]:
    """Returns how the published claim stands for each engine, in sentences."""
    return [line for claim in claims for line in _claim_text(claim)]


def _claim_text(claim: Claim) -> list[str]:
    first, last = claim.sizes[0], claim.sizes[-1]
    if claim.in_order:
        order = "as published, no more accurate size is quicker than a less accurate one"
    else:
        order = "not as published: " + ", ".join(f"{more} is quicker than {less}" for less, more in claim.faster)
    if claim.alike:
        order += " (noise doesn't tell apart: " + ", ".join(f"{a} and {b}" for a, b in claim.alike) + ")"
    than = {True: "no more than the published", False: "more than the published", None: "noise doesn't tell it from"}
    return [
        f"claim with {claim.engine}: {order}",
        f"  from {first} to {last} latency grows {_times(claim.growth)}, {than[claim.almost_constant]}"
        f" {claim.published_growth:.2f} x, for {claim.macs_growth:.1f} x the multiply-accumulates",
        f"  it grows with their number to the power of {claim.exponent:.2f} (published {claim.published_exponent:.2f};"
        " 0 is constant, 1 in proportion)",
        f"  most top-1 per millisecond: {', '.join(claim.by_value)}; published: {', '.join(claim.published_by_value)};"
        f" {claim.agreeing} of {count_of(claim.pairs, 'pair')} stand alike",
    ]


def _times(estimate: MedianEstimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.median:.2f} x"
    return f"{estimate.median:.2f} x ({estimate.low:.2f} to {estimate.high:.2f})"


def kernels_text(record: LatencyRecord) -> list[str]:
    """Returns which kernels of oneDNN ran in a call of one size, for each engine, and their part of its latency."""
    lines = []
    for engine in dict.fromkeys(profile.engine for profile in record.profiles):
        own = [profile for profile in record.profiles if profile.engine == engine]
        shown = next((profile for profile in own if profile.size == SHOWN_SIZE), own[-1])
        if not shown.kernels:
            lines.append(f"kernels with {engine}: none of oneDNN's")
            continue
        parts = [
            f"{kernel.executions:g} x {kernel.primitive} {kernel.implementation} {kernel.milliseconds:.2f} ms"
            for kernel in shown.kernels[:MAX_KERNELS]
        ]
        rest = len(shown.kernels) - MAX_KERNELS
        row = record.row(shown.size, engine)
        beside = "" if row is None else f" of {row['median_ms']:.2f}; the rest of a call is between kernels"
        lines += [
            f"kernels with {engine} in a call of {shown.size} ({shown.instructions}):",
            f"  {', '.join(parts)}" + (f", and {rest} more" if rest > 0 else ""),
            f"  together {shown.kernel_ms:.2f} ms{beside}",
        ]
    return lines


def show_latency_comparison(
    console: Console, a: LatencyRecord, b: LatencyRecord, differences: Mapping[tuple[str, str], Difference]
) -> None:
    """Print two measurements side by side: each size's medians, how many times as long B takes, and what differs."""
    several = len({engine for _, engine in differences}) > 1
    table = RichTable(title="comparison of latencies", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for title in ("size", *(["engine"] if several else []), "A ms", "B ms", "B takes (95 % interval)", "so B is"):
        table.add_column(title, justify="right" if title in ("A ms", "B ms") else "left")
    for (size, engine), difference in differences.items():
        medians = [figure(record.row(size, engine) or {}, "median_ms", 2) for record in (a, b)]
        table.add_row(*map(plain_text, (size, *([engine] if several else []), *medians, times_as_long(difference),
                                        difference.verdict)))  # fmt: skip
    console.rich.print(table)
    for letter, record in (("A", a), ("B", b)):
        console.line(f"{letter}: {record.name}, {record.device_name}, {job_text(record.job)}, {record.weights}")
    if found := unlike(a, b):
        console.line(f"NOT THE SAME JOB (A, B): {', '.join(found)}")
    for letter, record in (("A", a), ("B", b)):
        for warning in record.warnings:
            console.line(f"{letter}: {warning}")


def times_as_long(difference: Difference) -> str:
    """Returns how many times as long B takes as A, from the change of its rate, with the 95 % interval if known."""
    ratio = 1 / (1 + difference.change)
    if difference.low is None or difference.high is None:
        return f"{ratio:.3f} x"
    return f"{ratio:.3f} x ({1 / (1 + difference.high):.3f}-{1 / (1 + difference.low):.3f})"
