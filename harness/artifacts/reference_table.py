"""Tables under the reference's own header: a row per finished run, a file per device, count and data set."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.artifacts.file_names import readable_part, unique_part
from harness.artifacts.shared_schema import reference_table
from harness.artifacts.tables import append_row, format_cell
from harness.plan.config import SYNC
from harness.plan.plan import RunPlan
from models.sizes import SIZES

REFERENCE_FILE = ROOT / "results" / "bi_v100.csv"


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """A row under its own header, both as text in file order."""

    header: tuple[str, ...]
    cells: tuple[str, ...]


def read_reference() -> ReferenceRow:
    """The BI-V100 row."""
    with REFERENCE_FILE.open(newline="", encoding="utf-8") as stream:
        header, cells = csv.reader(stream)
    return ReferenceRow(tuple(header), tuple(cells))


def method_marks(plan: RunPlan) -> tuple[str, ...]:
    """What sets a run's method apart from the reference's, for which the header has no column either."""
    pipeline, training, published = plan.pipeline, plan.training, SIZES[plan.model].auto_augment
    marks = {
        f"AMP {training.precision}": training.amp != "off",
        f"{pipeline.preprocessing} preprocessing": pipeline.preprocessing != "paddleclas",
        "AutoAugment": pipeline.auto_augment and not published,
        "no AutoAugment": published and not pipeline.auto_augment,
        "synchronised batch norm": training.bn_stats == SYNC,
        "pretrained": training.pretrained is not None,
    }
    return tuple(mark for mark, there in marks.items() if there)


def append_reference_row(
    folder: Path, plan: RunPlan, summary: Mapping[str, Any], *, once: bool = False
) -> ReferenceRow:
    """Add a finished run to its mirrored table, and return the row; once: unless the very same row is there.

    What departs from the reference's method stands after the method's name. The header has no room for the data set, so
    results on anything but ImageNet get a file named after it.
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
    """The file's name: table-<device>x<n>.csv for ImageNet, with the data set's name behind it otherwise."""
    device = readable_part(plan.device_name if plan.device == "gpu" else plan.device)
    data = "" if plan.data.imagenet else f"-{unique_part(plan.data.name)}"
    return f"table-{device}x{plan.ranks}{data}.csv"
