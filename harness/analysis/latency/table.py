"""The columns of `<name>.latency.csv`, and the rows that are written to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis.latency.claim import top1_per_ms
from harness.analysis.latency.figures import (
    DOUBTFUL_ROWS,
    OTHERS_UNSTEADY,
    UNSTEADY,
    Figures,
    Turn,
    figures_of,
    ratio_of,
)
from harness.analysis.latency.job import Job
from harness.artifacts.file_names import LATENCY_TABLE
from harness.artifacts.schema import GLOBAL, RUN, Column, Table
from models.architecture import parameter_count
from models.sizes import SIZES

NONE = "none"

LATENCY = Table(
    LATENCY_TABLE,
    "one size with one engine (`run_bench.py latency`)",
    (
        Column("model", str, "", RUN, "size of PP-LCNet"),
        Column("engine", str, "", RUN, "what ran the network, such as paddle-onednn"),
        Column("device", str, "", RUN, "cpu or gpu"),
        Column("threads", int, "threads", RUN, "that computed one call"),
        Column("batch_size", int, "images", RUN, "in a call"),
        Column("image_size", str, "pixels", RUN, "224 for a square, else height x width: 80x160"),
        Column("macs", int, "", RUN, "multiply-accumulates of one image at that size"),
        Column("parameters", int, "", RUN, "trainable values"),
        Column("top1", float, "fraction", RUN, "published for the size, whatever weights were timed", 4),
        Column("rounds", int, "turns", RUN, "of this size with this engine"),
        Column("calls", int, "calls", RUN, "that count"),
        Column("warmup_calls", int, "calls", RUN, "at the begin of turns, that don't count"),
        Column("median_ms", float, "ms", GLOBAL, "of a call, images in and logits out: the median of the turns'", 4),
        Column("median_low_ms", float, "ms", GLOBAL, "lower end of its 95 % interval; empty below 6 rounds", 4),
        Column("median_high_ms", float, "ms", GLOBAL, "upper end", 4),
        Column("p95_ms", float, "ms", GLOBAL, "95th percentile of a turn's calls: the median of the turns'", 4),
        Column("p95_low_ms", float, "ms", GLOBAL, "lower end of its 95 % interval; empty below 6 rounds", 4),
        Column("p95_high_ms", float, "ms", GLOBAL, "upper end", 4),
        Column("relative_standard_error", float, "fraction", GLOBAL, "of the median, between turns", 6),
        Column("images_per_second", float, "images/s", GLOBAL, "batch_size / median_ms", 2),
        Column("gmacs_per_second", float, "1e9/s", GLOBAL, "multiply-accumulates of these images", 3),
        Column("power_watts", float, "W", GLOBAL, "of the processor's packages or the GPU; empty without a meter", 2),
        Column("images_per_joule", float, "images/J", GLOBAL, "the same as images per second and watt", 4),
        Column("ratio", float, "x", GLOBAL, "times as long as the first engine, by pairs of turns of a round", 4),
        Column("ratio_low", float, "x", GLOBAL, "lower end of its 95 % interval", 4),
        Column("ratio_high", float, "x", GLOBAL, "upper end", 4),
        Column("top1_per_ms", float, "points/ms", GLOBAL, "published top-1 in percent / median_ms", 3),
        Column("published_ms", float, "ms", RUN, "published latency: Xeon Gold 6148, oneDNN, 10 threads, 1 image", 2),
        Column("published_top1_per_ms", float, "points/ms", RUN, "published top-1 in percent / published_ms", 3),
        Column("logits_error", float, "fraction", GLOBAL, "largest difference from the trained network's / largest", 8),
        Column(
            "disturbed",
            str,
            "",
            RUN,
            "joined by |, or none: foreign_cpu, cpu_steal, cpu_quota or swap in a fifth of the turns or more, or"
            " unsteady: the median's interval is wider than +-1.5 %; or others_unsteady: half of the rows are",
        ),
        Column("disturbed_turns", int, "turns", RUN, "in which something from outside was found"),
        Column("failure", str, "", RUN, "why there are no figures; empty if there are"),
    ),
)


def rows_of(job: Job, turns: Sequence[Turn], failures: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """Returns the rows of a measurement, sizes first; failures says by size and engine why one has no figures."""
    grouped: dict[tuple[str, str], list[Turn]] = {pair: [] for pair in job.pairs}
    for turn in turns:
        grouped[turn.size, turn.engine].append(turn)
    rows = []
    for (size, engine), own in grouped.items():
        row = {**_known(job, size), "engine": engine, "failure": failures.get((size, engine), "")}
        if own and not row["failure"]:
            row |= _measured(job, size, own, grouped[size, job.engines[0]])
        rows.append(row)
    _doubt(rows)
    return rows


def _doubt(rows: Sequence[dict[str, Any]]) -> None:
    """Mark the steady rows, too, where as many as DOUBTFUL_ROWS of all are unsteady."""
    reasons = [(row, row["disturbed"].split("|")) for row in rows if "disturbed" in row]
    steady = [(row, found) for row, found in reasons if UNSTEADY not in found]
    if len(reasons) - len(steady) >= DOUBTFUL_ROWS * len(reasons):
        for row, found in steady:
            row["disturbed"] = "|".join([*(reason for reason in found if reason != NONE), OTHERS_UNSTEADY])


def _known(job: Job, size: str) -> dict[str, Any]:
    """What is known of a size before it is measured."""
    published = SIZES[size]
    return {
        "model": size,
        "device": job.device,
        "threads": job.threads,
        "batch_size": job.batch_size,
        "image_size": job.image_size,
        "macs": job.macs(size),
        "parameters": parameter_count(published.scale, job.num_classes),
        "top1": published.top1,
        "published_ms": _if_known(published.latency_ms),
        "published_top1_per_ms": _if_known(top1_per_ms(size, published.latency_ms)),
    }


def _measured(job: Job, size: str, turns: Sequence[Turn], base: Sequence[Turn]) -> dict[str, Any]:
    found: Figures = figures_of(turns, job.batch_size)
    ratio, p95 = ratio_of(turns, base), found.p95
    rate = 1000 * job.batch_size / found.median.median
    return {
        "rounds": len(turns),
        "calls": found.calls,
        "warmup_calls": found.warmup_calls,
        "median_ms": found.median.median,
        "median_low_ms": found.median.low,
        "median_high_ms": found.median.high,
        "p95_ms": None if p95 is None else p95.median,
        "p95_low_ms": None if p95 is None else p95.low,
        "p95_high_ms": None if p95 is None else p95.high,
        "relative_standard_error": found.median.relative_standard_error,
        "images_per_second": rate,
        "gmacs_per_second": rate * job.macs(size) / 1e9,
        "power_watts": found.watts,
        "images_per_joule": found.images_per_joule,
        "ratio": None if ratio is None else ratio.median,
        "ratio_low": None if ratio is None else ratio.low,
        "ratio_high": None if ratio is None else ratio.high,
        "top1_per_ms": _if_known(top1_per_ms(size, found.median.median)),
        "logits_error": found.logits_error,
        "disturbed": "|".join(found.disturbed) or NONE,
        "disturbed_turns": found.disturbed_turns,
    }


def _if_known(value: float) -> float | None:
    return None if math.isnan(value) else value
