"""The first thing a page says of a run: throughput, top-1, the verdict, and the reference beside it."""

from __future__ import annotations

from typing import Any

from harness.artifacts.bad_image import left_out_of
from harness.artifacts.record import RunRecord
from harness.artifacts.reference_table import of_other_loader, read_reference, reference_row
from harness.artifacts.schema import Column
from harness.artifacts.shared_schema import SUMMARY
from harness.machine.device_kinds import device_kind
from harness.report.beside_reference import hardware, standing
from harness.report.findings import GAINS, gain_text, ledger_text, verdict_facts
from harness.report.page.html import Html, cell_of, element, facts, joined, table
from models.words import count_of

COLUMNS = {column.name: column for column in SUMMARY.columns}


def figure(record: RunRecord, name: str, digits: int | None = None) -> Html:
    """Returns a figure of a run's row in summary.csv, shown with fewer digits; a dash if it isn't known."""
    value, column = record.summary.get(name), COLUMNS[name]
    if value is None:
        return cell_of(None, column, "-")
    return cell_of(value, column, None if digits is None else f"{value:,.{digits}f}")


def headline(record: RunRecord) -> Html:
    """Returns the four boxes of one run."""
    return element(
        "div",
        box("Throughput", *throughput(record)),
        box("Top-1", *accuracy(record)),
        box("What holds it back", *verdict(record)),
        box("The reference", beside(record), also="reference"),
        class_="boxes",
    )


def box(title: str, *content: Html, also: str = "") -> Html:
    """Returns a box with a title; also is a further class of it."""
    return element("section", element("h2", title), *content, class_=f"box {also}".strip())


def throughput(record: RunRecord) -> tuple[Html, ...]:
    """Returns the rate with its interval, in total and per device."""
    if record.summary.get("fps") is None:
        return (element("p", "not measured", class_="big words"), element("p", _why_without(record)))
    devices = device_kind(record.plan.device).several(record.plan.ranks, record.summary["device_name"])
    interval = (
        element("p", figure(record, "fps_low", 1), " to ", figure(record, "fps_high", 1), " (95 % interval)")
        if record.summary.get("fps_low") is not None and record.summary.get("fps_high") is not None
        else element("p", "no interval: too few steps")
    )
    return (
        element("p", figure(record, "fps", 1), element("span", " images/s", class_="unit"), class_="big"),
        interval,
        element("p", "in total on ", devices),
        element("p", figure(record, "fps_per_device", 1), " images/s per device"),
    )


def _why_without(record: RunRecord) -> str:
    if record.status != "finished":
        return f"The run is {record.status}: its figures are known once it has ended as planned."
    return f"The run {record.plan.kind.does}."


def accuracy(record: RunRecord) -> tuple[Html, ...]:
    """Returns the top-1, with the number of images that it is of."""
    if record.summary.get("top1") is None:
        return (element("p", "not measured", class_="big words"), element("p", _why_without(record)))
    left_out = left_out_of(record)
    images = record.summary["val_images"]
    epochs = record.summary["epochs"]
    after = f", after {count_of(epochs, 'epoch')}" if epochs else ""
    return (
        element("p", figure(record, "top1", 4), class_="big"),
        element("p", "of ", figure(record, "val_images"), f" {'image' if images == 1 else 'images'}{after}"),
        element("p", "top-5 ", figure(record, "top5", 4)),
        element("p", ", ".join(left_out.parts)) if left_out.total else Html(),
    )


def verdict(record: RunRecord) -> tuple[Html, ...]:
    """Returns the bottleneck, and how much faster training would be if a stage cost nothing."""
    if record.verdict is None:
        if not record.ledger:
            return (element("p", "not measured", class_="big words"), element("p", _why_without(record)))
        return (
            element("p", figure(record, "data_wait_share", 2), class_="big"),
            element("p", "of training's time waits for data"),
            element("p", "Of all its time: ", ledger_text(record.ledger), "."),
            element("p", "What holds training back is measured by --throughput-only, in all phases."),
        )
    found = verdict_facts(record)
    gains = [(label, text) for label, text in found if label in GAINS.values()]
    bottleneck = next(text for label, text in found if label == "bottleneck")
    return (element("p", bottleneck, class_="big words"), facts(gains, "How much faster training would be"))


def beside(record: RunRecord) -> Html:
    """Returns the run's row below the reference's, and whether its top-1 may stand there."""
    reference = read_reference()
    rows = [_row(reference.header, reference.cells)]
    if record.summary.get("fps") is not None:
        other = of_other_loader(record)
        own = (reference_row(record), *(() if other is None else (reference_row(other),)))
        rows += [_row(row.header, row.cells) for row in own]
    method, crop, _, top1 = reference.header
    lines = standing(record) if "top1" in record.summary else [_why_without(record)]
    # Notes have a section of their own.
    reasons = [line.strip() for line in lines[1:] if not line.strip().startswith("note:")]
    return joined(
        table((method, crop, "FPS", top1), rows, "Compared with DeepSparkHub's result"),
        element("p", lines[0]),
        element("ul", [element("li", reason) for reason in reasons]) if reasons else Html(),
        element("p", hardware(record)) if "device_name" in record.summary else Html(),
    )


def _row(header: tuple[str, ...], cells: tuple[str, ...]) -> list[str]:
    """A row without the marks after the method's name, which stand below the table as departures."""
    name, size, fps, accuracy = cells
    devices = header[2].removeprefix("FPS (").removesuffix(")")
    return [f"{name.partition(',')[0]} on {devices}", size, fps, accuracy or "-"]


def gain_row(record: RunRecord, name: str) -> str:
    """Returns a gain in words; a dash if the run has none."""
    found: Any = None if record.verdict is None else record.verdict[name]
    return "-" if found is None else gain_text(found)


def summary_cells(record: RunRecord) -> list[tuple[Column, Html]]:
    """Returns every column of summary.csv with the run's figure, as the file has it."""
    return [(column, cell_of(record.summary.get(column.name), column)) for column in SUMMARY.columns]
