"""Tables with the reference's header: a row per finished run, a file per device, device count and data set."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.artifacts.file_names import REFERENCE, TABLE, readable_part, unique_part
from harness.artifacts.shared_schema import reference_table
from harness.artifacts.shared_tables import append_row
from harness.artifacts.tables import format_cell
from harness.machine.device_kinds import device_kind
from harness.plan.options import SYNC
from harness.plan.plan import RunPlan
from models.architecture import NEW
from models.sizes import SIZES

REFERENCE_FILE = ROOT / "results" / f"{REFERENCE}.csv"


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """A row with its header, both as text in file order."""

    header: tuple[str, ...]
    cells: tuple[str, ...]


def read_reference() -> ReferenceRow:
    """Returns the BI-V100 row."""
    with REFERENCE_FILE.open(newline="", encoding="utf-8") as stream:
        header, cells = csv.reader(stream)
    return ReferenceRow(tuple(header), tuple(cells))


def method_marks(plan: RunPlan) -> tuple[str, ...]:
    """Returns how a run's method differs from the reference's, as far as the header has no column for it."""
    pipeline, training, published = plan.pipeline, plan.training, SIZES[plan.model].auto_augment
    marks = {
        f"AMP {training.precision}": training.amp != "off",
        f"{pipeline.preprocessing} preprocessing": pipeline.preprocessing != "paddleclas",
        "AutoAugment": pipeline.auto_augment and not published,
        "no AutoAugment": published and not pipeline.auto_augment,
        "synchronised batch norm": training.bn_stats == SYNC,
        "pretrained": training.pretrained is not None and training.pretrained_head != NEW,
        "pretrained, new head": training.pretrained is not None and training.pretrained_head == NEW,
    }
    return tuple(mark for mark, there in marks.items() if there)


def append_reference_row(
    folder: Path, plan: RunPlan, summary: Mapping[str, Any], *, once: bool = False
) -> ReferenceRow:
    """Append a finished run to its table; once: only if the same row isn't there yet. Returns the row.

    Differences from the reference's method follow the method's name. The header has no column for the data set, so that
    results on other data sets than ImageNet get a file named after the data set.
    """
    table = reference_table(plan.device_name, plan.ranks)
    values = (
        ", ".join((f"PPLCNet_{plan.model}", *method_marks(plan))),
        f"{plan.pipeline.image_size}x{plan.pipeline.image_size}",
        summary["fps"],
        summary["top1"],
    )
    row = dict(zip(table.header, values, strict=True))
    append_row(folder / reference_table_file(plan), table, row, unique=tuple(table.header) if once else ())
    return ReferenceRow(tuple(table.header), tuple(format_cell(row[column.name], column) for column in table.columns))


def reference_table_file(plan: RunPlan) -> str:
    """Returns the file's name: table-<device>x<n>.csv for ImageNet, otherwise followed by the data set's name."""
    device = readable_part(plan.device if device_kind(plan.device).on_host else plan.device_name)
    data = "" if plan.data.imagenet else f"-{unique_part(plan.data.name)}"
    return f"{TABLE}{device}x{plan.ranks}{data}.csv"
