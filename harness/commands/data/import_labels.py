"""`run_bench.py import-labels`: makes a list with ImageNet's labels from the files that they are handed out in."""

from __future__ import annotations

import os
from pathlib import Path

from harness.artifacts.atomic import disk_errors, replaced
from harness.errors import MachineError, UsageError
from harness.report.console import Console
from harness.report.text import command_line
from pipelines.errors import DataError
from pipelines.image_lists import shown
from pipelines.imagenet.conversion import converted_list
from pipelines.imagenet.validation import list_lines, read_kaggle, read_kit
from pipelines.list_files import decoded

PREFIX = "val"
_LOOKED_AT_BYTES = 4096


def import_labels(source: str, to: str, prefix: str = PREFIX) -> None:
    """Write the list `to` with the labels in source, from 0 in the order of sorted WordNet IDs.

    source is Kaggle's LOC_val_solution.csv, the development kit's ILSVRC2012_validation_ground_truth.txt, or a list of
    images in another numbering. prefix is the folder of the images that the first two name, relative to the data set's.
    Raises UsageError if `to` exists, DataError for a source that isn't one of these, and MachineError if the list can't
    be written.
    """
    file, target = Path(source), Path(to)
    _refuse_existing(target)
    lines = _lines(file, prefix)
    content = "".join(lines).encode(errors="surrogateescape")
    try:
        with disk_errors(target, elsewhere="another file"), replaced(target, overwrite=False) as stream:
            stream.write(content)
    except MachineError as error:
        if isinstance(error.__cause__, FileExistsError):
            _refuse_existing(target)
        raise
    console = Console()
    console.line(f"{len(lines):,} labels written to {shown(target)}")
    use = command_line("--data", "DATA", "--val-list", to)
    console.line(f"To use it as the validation list of the folder DATA: {use}")


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(f"{shown(target)} exists already", "Name a file that does not exist, or remove it first.")


def _lines(file: Path, prefix: str) -> list[str]:
    """The lines of the list, by what the source's first line looks like."""
    try:
        with file.open("rb") as stream:
            first = decoded(stream.read(_LOOKED_AT_BYTES)).strip().split("\n", 1)[0].strip()
    except OSError as error:
        raise DataError(
            f"the file {shown(file)} cannot be read: {error.strerror}",
            "Give LOC_val_solution.csv, ILSVRC2012_validation_ground_truth.txt, or a list.",
        ) from error
    if first.isdigit():
        return list(list_lines(read_kit(file), prefix))
    if first.startswith("ImageId,") or (first.startswith("ILSVRC2012_val_") and ",n" in first):
        return list(list_lines(read_kaggle(file), prefix))
    paths, labels = converted_list(file)
    return [f"{path} {label}\n" for path, label in zip(paths, labels, strict=True)]
