"""Shows a run at one moment: as lines of a terminal of any size, as one line, or as an event for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.text import Text

from harness.report.live.now import MEASURING, DeviceNow, Now
from harness.report.text import printable
from models.words import count_of

# The letter of each part of a step in the bar.
LETTERS = {
    "data": "d", "copy": "c", "compute": "m", "forward": "f", "backward": "b", "optimizer": "o", "recording": "r",
    "between steps": "x",
}  # fmt: skip
STYLES = {"data": "yellow", "forward": "blue", "backward": "cyan", "optimizer": "magenta", "compute": "blue"}
MIN_WIDTH = 40
LABEL = 12


def screen(now: Now, width: int, height: int) -> list[Text]:
    """Returns the lines that fit: the most important ones, and how many were left out for lack of room."""
    width = max(width, MIN_WIDTH)
    devices = [_device_line(device, width) for device in now.devices]
    # From the most important to the least; each with its place on the screen.
    wanted = [
        (0, _title(now)),
        (1, _progress(now, width)),
        (2, _labelled("now", _doing(now))),
        (3, _throughput(now)),
        (9, _line("loss", _learning(now))),
        (4, _line("time", _bar(now.ledger, width - LABEL))),
        (11, _line("warning", now.warning, "yellow")),
        (5, _line("", _legend(now.ledger, width - LABEL))),
        (10, _line("left out", count_of(now.left_out, "image") if now.left_out else "")),
        (6, _devices_head(width) if devices else None),
        *((7, device) for device in devices),
    ]
    known = [(place, line) for place, line in wanted if line is not None]
    room = max(1, height)
    shown = known
    lines: list[tuple[int, Text]] = []
    if len(known) > room:
        shown = known[: room - 1]
        left_out = len(known) - len(shown)
        lines.append((12, Text(f"... {count_of(left_out, 'more line')}: the window has too few lines", "dim")))
    lines += shown
    ordered = [line for _, line in sorted(lines, key=lambda one: one[0])]
    for line in ordered:
        line.truncate(width, overflow="ellipsis")
        line.no_wrap = True
    return ordered


def one_line(now: Now) -> str:
    """Returns the run at this moment in one line, for logs."""
    parts = [f"{clock(now.seconds)} {_doing(now)}"]
    if now.fps_now is not None:
        parts.append(f"{now.fps_now:,.1f} images/s now")
    if now.fps is not None:
        parts.append(f"{now.fps:,.1f}{_interval(now)} so far")
    if now.loss is not None:
        parts.append(f"loss {now.loss:.4g}")
    if now.top1 is not None:
        parts.append(f"top-1 {now.top1:.4f}")
    if now.left_out:
        parts.append(f"{now.left_out:,} left out")
    if now.seconds_left is not None:
        parts.append(f"{clock(now.seconds_left)} left")
    return printable(", ".join(parts))


def event(now: Now) -> dict[str, Any]:
    """Returns what is known of the run at this moment, by name; what isn't known is left out."""
    return {name: value for name, value in asdict(now).items() if value is not None}


def clock(seconds: float) -> str:
    """Returns a duration as hours, minutes and seconds."""
    whole = int(seconds + 0.5)
    days, hours = divmod(whole // 3600, 24)
    text = f"{hours}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{count_of(days, 'day')} {text}" if days else text


def _title(now: Now) -> Text:
    return Text.assemble((printable(now.what), "bold"), f", run {printable(now.run)}")


def _doing(now: Now) -> str:
    parts = []
    if now.epoch is not None and now.epochs is not None:
        parts.append(f"epoch {now.epoch:,} of {now.epochs:,}")
    if now.step is not None and now.steps is not None:
        parts.append(f"step {now.step:,} of {now.steps:,}")
    return ", ".join([now.doing, *parts])


def _progress(now: Now, width: int) -> Text:
    left = "" if now.seconds_left is None else f", {clock(now.seconds_left)} left"
    text = f" {now.share_done:.0%}, {clock(now.seconds)}{left}"
    cells = max(8, min(50, width - len(text) - 2))
    full = int(cells * now.share_done)
    return Text.assemble("[", ("#" * full, "green"), "." * (cells - full), "]", text)


def _throughput(now: Now) -> Text:
    if now.fps_now is None and now.fps is None:
        return _labelled("images/s", "no step yet")
    parts = [f"{now.fps_now:,.1f} now"] if now.fps_now is not None else []
    if now.fps is not None:
        parts.append(f"{now.fps:,.1f}{_interval(now)} in {now.measured_steps:,} training steps")
    # That there is a rate so far says that it is measured.
    if now.state and now.state != MEASURING:
        parts.append(now.state)
    return _labelled("images/s", "; ".join(parts), "bold")


def _interval(now: Now) -> str:
    if now.fps_low is None or now.fps_high is None:
        return ""
    return f" ({now.fps_low:,.1f} to {now.fps_high:,.1f})"


def _bar(ledger: Mapping[str, float], cells: int) -> Text | str:
    """The parts of training's time, each as a stretch of its letter; the largest remainders fill up the bar."""
    total = sum(ledger.values())
    if not total:
        return ""
    cells = max(8, cells - 2)
    exact = {name: share / total * cells for name, share in ledger.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda one: counts[one] - exact[one])[: cells - sum(counts.values())]:
        counts[name] += 1
    return Text.assemble(*((LETTERS[name] * count, STYLES.get(name, "")) for name, count in counts.items()))


def _legend(ledger: Mapping[str, float], cells: int) -> str:
    """What the letters of the bar mean, and the shares; the smallest ones are left out where there is no room."""
    words = {name: f"{LETTERS[name]} {name} {share:.0%}" for name, share in ledger.items()}
    for name in sorted(ledger, key=lambda one: ledger[one]):
        if len(", ".join(words.values())) <= cells:
            break
        del words[name]
    return ", ".join(words.values())


def _learning(now: Now) -> str:
    parts = [] if now.loss is None else [f"{now.loss:.4g}"]
    if now.learning_rate is not None:
        parts.append(f"learning rate {now.learning_rate:.3g}")
    if now.top1 is not None:
        of = f" of {now.val_images:,} images" if now.val_images else ""
        parts.append(f"top-1 {now.top1:.4f}{of}")
    return ", ".join(parts)


def _line(label: str, content: str | Text, style: str = "") -> Text | None:
    return _labelled(label, content, style) if content else None


def _labelled(label: str, content: str | Text, style: str = "") -> Text:
    text = content if isinstance(content, Text) else Text(printable(content), style)
    return Text.assemble((f"{label:<{LABEL}}", "dim"), text)


COLUMNS = ("util", "JPEG", "memory (GiB)", "power", "temp")
WIDTHS = (6, 6, 15, 8, 7)


def _devices_head(width: int) -> Text:
    titles = "".join(f"{title:>{cells}}" for title, cells in _fitting(COLUMNS, width))
    return Text(f"{'device':<{LABEL}}{titles}", "dim")


def _device_line(device: DeviceNow, width: int) -> Text:
    used, total = device.memory_used_bytes, device.memory_total_bytes
    memory = "-" if used is None else f"{used / 2**30:.1f}" + ("" if total is None else f" / {total / 2**30:.0f}")
    values = (
        _or_dash(device.util_percent, "%"), _or_dash(device.jpeg_util_percent, "%"), memory,
        _or_dash(device.power_watts, "W"), _or_dash(device.temperature_celsius, "C"),
    )  # fmt: skip
    cells = "".join(f"{value:>{cells}}" for value, cells in _fitting(values, width))
    return Text(f"{printable(device.label)[: LABEL - 1]:<{LABEL}}{cells}")


def _fitting(values: tuple[str, ...], width: int) -> list[tuple[str, int]]:
    """The first values for which there is room."""
    found, used = [], LABEL
    for value, cells in zip(values, WIDTHS, strict=True):
        used += cells
        if used <= width:
            found.append((value, cells))
    return found


def _or_dash(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f} {unit}"
