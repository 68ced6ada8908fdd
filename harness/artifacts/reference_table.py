"""Tables with the reference's header: a row per finished run, a file per device, device count and data set.

The header has few columns. What else departs from the published training follows the method's name, as marks.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.artifacts.bad_image import left_out_of
from harness.artifacts.file_names import REFERENCE, TABLE, readable_part, unique_part
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import TRAIN_BESIDE, Table
from harness.artifacts.shared_schema import reference_table
from harness.artifacts.shared_tables import append_row
from harness.artifacts.tables import format_cell
from harness.machine.device_kinds import device_kind
from harness.plan.left_out import MAX_BAD_IMAGES, MAX_BAD_SHARE, SPLIT_WORDS, Limit
from harness.plan.plan import RunPlan
from harness.plan.published import marks
from models.words import count_of

# The mean size of ILSVRC2012's JPEGs lies between these, in training (115 kB) and in validation (135 kB), by the sizes
# of the archives that they are handed out in.
IMAGENET_MEAN_BYTES = (100_000, 150_000)
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


def method_marks(record: RunRecord) -> tuple[str, ...]:
    """Returns how a finished run departs from the reference's method and data, as far as no column says so."""
    changed = (_changed_on_the_way(record, "epochs", "epochs planned"), _changed_on_the_way(record, "ranks", "devices"))
    left_out = [
        f"{count_of(count, f'{SPLIT_WORDS[split]} image')} left out"
        for split, count in left_out_of(record).counts.items()
        if count
    ]
    return (*marks(record.config, record.plan), *_other_files(record), *filter(None, changed), *left_out)


def _other_files(record: RunRecord) -> tuple[str, ...]:
    """Returns the mean size of a run's files if they can't be ImageNet's own, such as resized ones."""
    mean_bytes = record.profile["mean_bytes"]
    if not record.plan.data.imagenet or IMAGENET_MEAN_BYTES[0] <= mean_bytes <= IMAGENET_MEAN_BYTES[1]:
        return ()
    return (f"files of {mean_bytes / 1024:.3g} KiB",)


def _changed_on_the_way(record: RunRecord, name: str, words: str) -> str:
    """Returns the different values that a resumed run's attempts had, in their order; empty if there was only one."""
    values = dict.fromkeys(str(attempt[name]) for attempt in record.made_attempts())
    return f"{' then '.join(values)} {words}" if len(values) > 1 else ""


def refused_top1(record: RunRecord) -> str:
    """Returns why a run's top-1 is not written to a table: it is of too few images; empty if it is written.

    The limits are the defaults of the options, whatever the run allowed.
    """
    left_out = left_out_of(record)
    if record.summary["top1"] is None or not Limit().exceeded(left_out):
        return ""
    limit = f"{MAX_BAD_IMAGES} images or {MAX_BAD_SHARE:.0%} of a split"
    return f"{' and '.join(left_out.parts)} were left out, more than {limit}"


def reference_row(record: RunRecord) -> ReferenceRow:
    """Returns a finished run's row under the reference's header, with its marks behind the method's name."""
    table, row = _table_and_row(record)
    return ReferenceRow(tuple(table.header), tuple(format_cell(row[column.name], column) for column in table.columns))


def of_other_loader(record: RunRecord) -> RunRecord | None:
    """The record as if the run had only measured the loader beside its own; None if there was only one."""
    plan = record.plan
    if plan.beside is None:
        return None
    summary = {**record.summary, "fps": record.phases[TRAIN_BESIDE]["fps"]}
    return replace(record, plan=replace(plan, pipeline=plan.beside, compares_loaders=False), summary=summary)


def append_reference_row(folder: Path, record: RunRecord, *, once: bool = False) -> None:
    """Append a finished run to its table, unless its top-1 is refused; once: only if the same row isn't there yet.

    The header has no column for the data set, so that results on other data sets than ImageNet get a file named after
    the data set.
    """
    if refused_top1(record):
        return
    table, row = _table_and_row(record)
    append_row(folder / reference_table_file(record.plan), table, row, unique=tuple(table.header) if once else ())


def _table_and_row(record: RunRecord) -> tuple[Table, dict[str, Any]]:
    plan = record.plan
    table = reference_table(plan.device_name, plan.ranks)
    values = (
        ", ".join((f"PPLCNet_{plan.model}", *method_marks(record))),
        plan.pipeline.size.in_full,
        record.summary["fps"],
        record.summary["top1"],
    )
    return table, dict(zip(table.header, values, strict=True))


def reference_table_file(plan: RunPlan) -> str:
    """Returns the file's name: table-<device>x<n>.csv for ImageNet, otherwise followed by the data set's name."""
    device = readable_part(plan.device if device_kind(plan.device).on_host else plan.device_name)
    data = "" if plan.data.imagenet else f"-{unique_part(plan.data.name)}"
    return f"{TABLE}{device}x{plan.ranks}{data}.csv"
