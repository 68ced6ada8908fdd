"""A finished run's figures in words: intervals, time, steady state, interference, phases and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table as RichTable

from harness.analysis.summarize import PEAK_PRECISIONS
from harness.analysis.verdict import DISTURBED, SHARED, TOO_SLOW, UNCERTAIN
from harness.analysis.window import PHASE_TITLES
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import COMPUTE, PIPELINE, TRAIN
from harness.report.text import plain_text
from models.words import count_of

WINDOW_ENDS = {
    "target_ci": "ended when --target-ci was reached",
    "max_seconds": "ended by --max-seconds",
    "epochs": "ended with the last epoch",
}
BUCKETS = {
    "data_wait_seconds": "waiting for data",
    "copy_seconds": "waiting for the copy to the device",
    "forward_seconds": "forward",
    "backward_seconds": "backward",
    "optimizer_seconds": "optimizer",
    "compute_seconds": "compute",
    "evaluation_seconds": "evaluation",
    "checkpoint_seconds": "checkpoints",
    "recording_seconds": "recording",
    "exchange_seconds": "between steps",
    "rest_seconds": "unaccounted",
}


def with_interval(figures: Mapping[str, Any]) -> str:
    """Returns a rate with its 95 % interval; figures are those of a phase in the record."""
    low, high = figures.get("fps_low"), figures.get("fps_high")
    if low is None or high is None:
        return f"{figures['fps']:.1f} images/s (no interval)"
    return f"{figures['fps']:.1f} images/s ({low:.1f} to {high:.1f})"


def interval_text(figures: Mapping[str, Any]) -> str:
    """Returns a 95 % interval, or a dash if there is none."""
    low, high = figures["fps_low"], figures["fps_high"]
    return "-" if low is None or high is None else f"{low:.1f} to {high:.1f}"


def loader_text(row: Mapping[str, Any]) -> str:
    """Returns the rates of two loaders and their ratio; row is one of the record's loaders."""
    low, high = row["ratio_low"], row["ratio_high"]
    interval = "no interval" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    return (
        f"{row['loader']} {row['fps']:.1f} images/s, {row['beside_loader']} {row['beside_fps']:.1f} images/s:"
        f" {row['ratio']:.2f} x ({interval})"
    )


# The verdict's first rows: the gain if a stage cost nothing.
GAINS = {
    "data_gain": "if data cost nothing",
    "training_gain": "if training cost nothing",
    "communication_gain": "if communication cost nothing",
}
# The phases that a gain is computed from.
PHASES_OF_GAIN = {
    "data_gain": {TRAIN, COMPUTE},
    "training_gain": {TRAIN, PIPELINE},
    "communication_gain": set(PHASE_TITLES),
}
CANT_BE_RIGHT = "CAN'T BE RIGHT"


def verdict_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Returns the verdict as labels and values: each stage's gain, the bottleneck, evidence, remedies."""
    verdict = record.verdict
    assert verdict is not None
    return [
        *(
            (title, gain_text(verdict[name]) + _mark(verdict, name))
            for name, title in GAINS.items()
            if verdict[name] is not None
        ),
        ("bottleneck", _bottleneck_text(verdict)),
        *(("evidence", doubt["detail"]) for doubt in verdict["doubts"]),
        *(("evidence", line) for line in verdict["evidence"]),
        *(("try", line) for line in verdict["remedies"]),
    ]


def gain_text(gain: Mapping[str, float | None]) -> str:
    """Returns a gain with its 95 % interval; gain is that of a verdict in the record."""
    value, low, high = gain["value"], gain["low"], gain["high"]
    assert value is not None
    digits = 2 if value < 2 else 1
    interval = "no interval" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
    return f"up to {value:.{digits}f} x ({interval})"


def _mark(verdict: Mapping[str, Any], gain: str) -> str:
    """Returns what to add to a gain that was computed from a doubtful rate."""
    kinds = {doubt["kind"] for doubt in verdict["doubts"] if doubt["phase"] in PHASES_OF_GAIN[gain]}
    if TOO_SLOW in kinds:
        return f" {CANT_BE_RIGHT}"
    return " DISTURBED" if kinds else ""


def _bottleneck_text(verdict: Mapping[str, Any]) -> str:
    name = verdict["bottleneck"]
    text = f"{name} ({' and '.join(verdict['contenders'])})" if name == SHARED else str(name)
    if verdict["certain"]:
        return text
    if verdict["doubts"]:
        reasons = "; ".join(doubt["reason"] for doubt in verdict["doubts"])
        return f"{text} ({reasons})" if name == UNCERTAIN else f"{text} (uncertain: {reasons})"
    known = all(verdict[gain]["low"] is not None for gain in GAINS if verdict[gain] is not None)
    if not known:
        return f"{text} (uncertain: too few steps for confidence intervals)"
    return f"{text} (uncertain: the confidence intervals overlap the threshold)"


def ledger_text(ledger: Mapping[str, float]) -> str:
    """Returns where the window's time went, as shares of it. Buckets below 0.05 % are left out, but not the rest."""
    wall = ledger["wall_seconds"]
    shares = {title: ledger[name] / wall for name, title in BUCKETS.items()}
    kept = {title: share for title, share in shares.items() if share >= 0.0005 or title == "unaccounted"}
    # Rounded first: the rest may be below 0 by a rounding error.
    return ", ".join(f"{title} {round(share, 3) + 0.0:.1%}" for title, share in kept.items())


def step_times_text(summary: Mapping[str, Any]) -> str:
    """Returns the known ones of the step time's median and percentiles."""
    known = [
        f"{title} {summary[name]:.4f} s"
        for name, title in (("step_seconds_p50", "median"), ("step_seconds_p95", "p95"), ("step_seconds_p99", "p99"))
        if summary[name] is not None
    ]
    return ", ".join(known)


def steady_text(record: RunRecord) -> str:
    """Returns whether there is a steady state, how the warm-up's end was found, and the drift after it."""
    steady = record.steady["steady"]
    found = {True: "yes", False: "NO STEADY STATE", None: "can't tell"}[steady]
    drift = record.steady["drift"]
    return f"{found}; {record.steady['reason']}" + ("" if drift is None else f"; drift {drift:+.1%}")


def outliers_text(record: RunRecord) -> str:
    """Returns the number of outliers, and their causes; those of phases other than end to end with their phase."""
    others = {
        title: _outliers_of(record.phases[name]["outliers"])
        for name, title in PHASE_TITLES.items()
        if name in record.phases and name != TRAIN and record.phases[name]["outliers"]["count"]
    }
    return _with_other_phases(_outliers_of(record.outliers), others)


def _outliers_of(outliers: Mapping[str, Any]) -> str:
    if not outliers["count"]:
        return "none"
    causes = ", ".join(f"{count} x {cause}" for cause, count in outliers["causes"].items())
    return f"{count_of(outliers['count'], 'step')}, {outliers['excess_share']:.1%} of the window: {causes}"


def _with_other_phases(of_training: str, others: Mapping[str, str]) -> str:
    if not others:
        return of_training
    return "; ".join(f"{title}: {text}" for title, text in {PHASE_TITLES[TRAIN]: of_training, **others}.items())


def interference_text(record: RunRecord) -> str:
    """Returns what disturbed the window, and for how long; with their phase, what else disturbed the other phases."""
    known = set(record.interference["reasons"] or ())
    others = {}
    for name, title in PHASE_TITLES.items():
        text = record.phases[name]["interference"] if name in record.phases else None
        more = [reason for reason in (text or "none").split("|") if reason not in {"none", *known}]
        if more:
            others[title] = ", ".join(more)
    return _with_other_phases(_interference_of(record.interference), others)


def _interference_of(interference: Mapping[str, Any]) -> str:
    if interference["reasons"] is None:
        return "unknown"
    if not interference["reasons"]:
        return "no"
    shares = ", ".join(
        f"{reason} {interference['shares'][reason]:.0%} of the time" for reason in interference["reasons"]
    )
    return f"YES: {shares}; {interference['interference_steps']} of {interference['window_steps']} steps"


def accelerator_text(summary: Mapping[str, Any]) -> str:
    """Returns the use of the hardware's time, arithmetic and energy; empty if none of it is known."""
    parts = []
    if summary["accelerator_util"] is not None:
        parts.append(_utilisation_text(summary))
    if summary["model_flops_util"] is not None:
        precision = PEAK_PRECISIONS[summary["amp"].partition("-")[0]].upper()
        parts.append(f"{summary['model_flops_util']:.1%} of its {precision} peak")
    if summary["images_per_joule"] is not None:
        parts.append(f"{summary['images_per_joule']:.2f} images per joule")
    return ", ".join(parts)


def _utilisation_text(summary: Mapping[str, Any]) -> str:
    share, definition = summary["accelerator_util"], "as in MLPerf Storage: end to end / compute only"
    low, high = summary["data_gain_low"], summary["data_gain_high"]
    doubts = str(summary["verdict_doubts"]).split("|")
    if f"{COMPUTE}_{TOO_SLOW}" in doubts:
        return f"utilisation {share:.1%} {CANT_BE_RIGHT}, see the verdict ({definition})"
    if f"{COMPUTE}_{DISTURBED}" in doubts or f"{TRAIN}_{DISTURBED}" in doubts:
        return f"utilisation {share:.1%} DISTURBED, see the verdict ({definition})"
    if share <= 1:
        return f"utilisation {share:.1%} ({definition})"
    interval = "no interval" if low is None or high is None else f"{1 / high:.1%} to {1 / low:.1%}"
    return f"utilisation 100% within noise (measured {share:.1%}, {interval}; {definition})"


PHASE_COLUMNS = ("phase", "images/s", "95 % interval", "steps", "seconds")


def phase_rows(record: RunRecord) -> list[tuple[str, ...]]:
    """Returns a row of texts per measured phase, under PHASE_COLUMNS."""
    return [
        (
            title,
            f"{figures['fps']:.1f}",
            interval_text(figures),
            str(figures["window_steps"]),
            f"{figures['window_seconds']:.1f}",
        )
        for name, title in PHASE_TITLES.items()
        if (figures := record.phases.get(name)) is not None
    ]


def phases_table(record: RunRecord) -> RichTable:
    """Returns a table with a row per phase."""
    table = RichTable(
        title="phases, measured alternately (images/s of all devices)", box=box.SIMPLE_HEAD, title_justify="left"
    )
    for title in PHASE_COLUMNS:
        table.add_column(title, justify="left" if title == "phase" else "right")
    for row in phase_rows(record):
        table.add_row(*map(plain_text, row))
    return table
