"""A finished run beside the reference: both rows, and whether the top-1 may stand beside the published one."""

from __future__ import annotations

from rich import box
from rich.table import Table as RichTable

from harness.artifacts.record import RunRecord
from harness.artifacts.reference_table import (
    ReferenceRow,
    method_marks,
    of_other_loader,
    read_reference,
    reference_row,
    reference_table_file,
    refused_top1,
)
from harness.machine.device_kinds import device_kind
from harness.report.text import plain_text
from models.image_size import ImageSize
from models.sizes import RECIPE

REFERENCE_DATASET = "ImageNet (ILSVRC2012)"
REFERENCE_MODEL = "x1_0"


def beside_reference(record: RunRecord) -> RichTable:
    """Returns the run's row below the reference's."""
    reference = read_reference()
    title = "compared with the reference (DeepSparkHub, BI-V100)"
    table = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    method, crop, _, top1 = reference.header
    for title in (method, crop, "FPS (all devices)", "devices", top1):
        table.add_column(title, justify="right" if title in ("FPS (all devices)", top1) else "left")
    other = of_other_loader(record)
    rows = (reference, reference_row(record), *(() if other is None else (reference_row(other),)))
    for row in rows:
        name, size, fps, accuracy = row.cells
        table.add_row(*map(plain_text, (name, size, fps, _devices(row), accuracy or "-")))
    return table


def _devices(row: ReferenceRow) -> str:
    return row.header[2].removeprefix("FPS (").removesuffix(")")


def departures(record: RunRecord) -> list[str]:
    """Returns why a run's top-1 is not comparable with the reference's; empty if it is."""
    plan, lines = record.plan, []
    if not plan.data.imagenet:
        why = "built-in, not ImageNet" if plan.data.builtin else "not ImageNet by the number and names of its images"
        lines.append(f"data: reference {REFERENCE_DATASET}, this run {plan.data.name} ({why})")
    if plan.model != REFERENCE_MODEL:
        lines.append(f"model: reference PPLCNet_{REFERENCE_MODEL}, this run PPLCNet_{plan.model}")
    size, published = plan.pipeline.size, ImageSize.of(RECIPE.image_size)
    if size != published:
        lines.append(f"crop: reference {published.in_full}, this run {size.in_full}")
    if marks := method_marks(record):
        lines.append(f"method: reference as published, this run {', '.join(marks)}")
    if refused := refused_top1(record):
        lines.append(f"not written to {reference_table_file(plan)}: {refused}")
    return lines


def standing(record: RunRecord) -> list[str]:
    """Returns whether a run's top-1 may stand beside the reference's, the reasons against it, and the run's notes."""
    top1, reasons = record.summary["top1"], departures(record)
    published = read_reference().cells[3]
    if top1 is None:
        answer = f"The run has no top-1 to stand beside the reference's {published}."
        answer += " It also differs from the reference in:" if reasons else ""
    elif reasons:
        answer = f"May top-1 {top1:.4f} stand beside the reference's {published}? NO:"
    else:
        answer = (
            f"May top-1 {top1:.4f} stand beside the reference's {published}? Yes: the data and recipe are the same."
        )
    if record.warnings and top1 is not None and not reasons:
        answer += " See the notes, too:"
    return [answer, *(f"  {line}" for line in (*reasons, *(f"note: {warning}" for warning in record.warnings)))]


def hardware(record: RunRecord) -> str:
    """Returns on what the reference and the run were measured, in one line."""
    here = device_kind(record.plan.device).several(record.plan.ranks, record.summary["device_name"])
    return f"Throughput: reference on 4 x BI-V100, this run on {here}."
