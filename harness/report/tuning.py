"""What a person reads of a tuning: what it will try, each trial as it ends, and what was found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable

from harness.analysis.comparing.compare import Difference
from harness.analysis.tuning.knobs import Knob, Scope
from harness.analysis.tuning.search import (
    ALREADY_FED,
    CONFIRMED,
    DISTURBED,
    NO_BETTER_SETTING,
    NOT_CONFIRMED,
    OUT_OF_TIME,
    WINNER_FAILED,
    Tuned,
)
from harness.analysis.tuning.stored import Tuning, TuningFiles
from harness.analysis.tuning.trial import Candidate, Trial, mean_rate, usual_disturbances
from harness.plan.declaration import flag
from harness.report.console import Console
from harness.report.text import plain_text
from models.words import count_of

# Why a search ended, in words.
STOPS = {
    ALREADY_FED: "already fed: training waits so little for images that no way to load them can make it much faster",
    NO_BETTER_SETTING: "no other value of any setting was faster by 3 % or more, beyond noise",
    OUT_OF_TIME: "the time of --minutes is over; --resume with more of it continues the search",
    DISTURBED: "other programs disturbed every try of a trial; --resume continues when the machine is idle",
    WINNER_FAILED: "a trial that was to confirm the fastest settings failed",
}


def show_plan(console: Console, tuning: Tuning, knobs: Sequence[Knob], default: Candidate, scope: Scope) -> None:
    """Print which settings are varied, their values, and for how long at most."""
    console.rich.print(plain_text(f"tuning {tuning.name}: {tuning.minutes:g} minutes at most"))
    for knob in knobs:
        values = knob.values(default, scope)
        if values:
            text = ", ".join(f"[{value}]" if value == default[knob.name] else str(value) for value in values)
            console.rich.print(plain_text(f"  {flag(knob.name):<18} {text}"))


def settings_text(candidate: Candidate, default: Candidate) -> str:
    """A candidate in words: how it differs from the settings to begin with."""
    changes = candidate.changes(default)
    return " ".join(f"{flag(name)} {value}" for name, value in changes.items()) or "as given"


def show_trial(console: Console, trial: Trial, default: Candidate) -> None:
    """Print a trial in a line."""
    rate = f"{trial.fps:,.1f} images/s" if trial.fps is not None else f"failed: {trial.failure}"
    disturbed = f" (disturbed: {', '.join(trial.disturbed)})" if trial.disturbed else ""
    text = f"trial {trial.number}, {trial.purpose}: {settings_text(trial.candidate, default)}: {rate}{disturbed}"
    console.line(text)


def show_tuned(
    console: Console, tuning: Tuning, found: Tuned, files: TuningFiles, add: Mapping[str, Any], omit: Sequence[str]
) -> None:
    """Print the candidates, the fastest first, why the search ended, and how to use what it found.

    add are the options by which its settings differ from those that were given, omit the given ones that they replace.
    """
    console.rich.print(_candidates(tuning, found))
    first = tuning.trials[0]
    lines = [f"ended after {count_of(len(tuning.trials), 'trial')}: {STOPS[found.stop]}"]
    if first.compute_fps is not None and first.fps is not None:
        lines.append(
            f"ceiling: {first.compute_fps:,.1f} images/s without any loading, {first.compute_fps / first.fps:.2f} x"
            " the settings to begin with"
        )
    if found.difference is not None and found.winner is not None:
        lines.append(f"{settings_text(found.winner, found.default)}: {_change_text(found.difference)}")
    if found.outcome == NOT_CONFIRMED:
        lines.append(
            "not confirmed: in trials of their own these settings were not faster by 3 % or more, and beyond noise"
        )
    if found.outcome == CONFIRMED:
        words = shlex.join(word for name, value in add.items() for word in (flag(name), str(value)))
        without = f", without {', '.join(map(flag, omit))}" if omit else ""
        lines += [f"to use them: add {words}{without}", f"or --config {shlex.quote(str(files.options))}"]
    else:
        lines.append("keep the settings that you have")
    for line in lines:
        console.line(line)
    console.line(f"Written to {files.folder}/: {files.trials.name}, {files.options.name}")


def _change_text(difference: Difference) -> str:
    """The winner's rate compared with the default's."""
    change = f"{100 * difference.change:+.1f} % compared with the settings to begin with"
    if difference.low is None or difference.high is None:
        return change
    return f"{change} (95 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f} %; {difference.how})"


def _candidates(tuning: Tuning, found: Tuned) -> RichTable:
    table = RichTable(title=plain_text(f"tuning {tuning.name}"), box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("settings", "trials", "images/s", "p99 of a step"):
        table.add_column(title, justify="left" if title == "settings" else "right")
    made: dict[Candidate, list[Trial]] = {}
    for trial in tuning.trials:
        if trial.fps is not None and not set(trial.disturbed) - usual_disturbances(tuning.trials):
            made.setdefault(trial.candidate, []).append(trial)
    for candidate, trials in sorted(made.items(), key=lambda item: -mean_rate(item[1])):
        slow = [trial.step_seconds_p99 for trial in trials if trial.step_seconds_p99 is not None]
        cells = (
            settings_text(candidate, found.default),
            str(len(trials)),
            f"{mean_rate(trials):,.1f}",
            f"{1000 * max(slow):.0f} ms" if slow else "-",
        )
        table.add_row(*map(plain_text, cells))
    return table
