"""`run_bench.py import-idx`: converts MNIST, or a data set in its format, to a folder of JPEGs to train on."""

from __future__ import annotations

import glob
import os
import time
from contextlib import closing
from pathlib import Path

from harness.artifacts.atomic import disk_errors
from harness.errors import UsageError
from harness.machine.host import available_cores
from harness.report.console import Console
from harness.report.progress import image_bar
from harness.report.text import command_line
from models.architecture import MIN_IMAGE_SIZE
from models.notes import Note
from models.words import count_of
from pipelines.augmentation import Augmentation
from pipelines.dataset import open_dataset
from pipelines.idx import IdxSet, read_idx_folder
from pipelines.idx_folder import write_folder
from pipelines.image_lists import shown
from pipelines.list_findings import label_notes
from pipelines.whole_folder import whole_folder

# PP-LCNet halves its input five times: 64 pixels leave 2 x 2 for the last stage, as for the built-in digits.
IMAGE_SIZE_PIXELS = 64
# A larger number is taken for a typing error: a picture of 28 pixels is only blur then, and 70,000 of them fill a disk.
MAX_PIXELS = 1024
# As for the built-in digits: a mirrored digit is not a digit, and a crop of 8 % shows only a piece of a stroke.
FLIP_PROBABILITY = 0.0
CROP_AREA_MIN = 0.35


def import_idx(
    source: str,
    to: str,
    name: str | None = None,
    image_size: int = IMAGE_SIZE_PIXELS,
    flip_probability: float = FLIP_PROBABILITY,
    crop_area_min: float = CROP_AREA_MIN,
    transpose: bool = False,
) -> None:
    """Write the four IDX files in the folder source as a data set into the folder to, which must not exist yet.

    Raises UsageError for a value outside its limits or a folder that exists, DataError for files that are not valid IDX
    files, and MachineError if the folder can't be written.
    """
    target = Path(to)
    name = _checked_name(target, name)
    if not 1 <= image_size <= MAX_PIXELS:
        raise UsageError(f"--image-size is {image_size}; it must be between 1 and {MAX_PIXELS} pixels")
    try:
        augmentation = Augmentation(flip_probability=flip_probability, crop_area_min=crop_area_min)
    except ValueError as error:
        raise UsageError(f"invalid augmentation: {error}") from error
    _refuse_existing(target)
    data = read_idx_folder(Path(source))
    data = data.transposed() if transpose else data
    console, began = Console(), time.monotonic()
    total = len(data.train.labels) + len(data.val.labels)
    threads = available_cores()
    _name_leftovers(target, console)
    with (
        disk_errors(shown(target), elsewhere="a folder on another disk"),
        whole_folder(target, _unfinished_prefix(target)) as folder,
        closing(write_folder(data, folder, name, image_size, augmentation, threads)) as writing,
        image_bar(console, total) as bar,
    ):
        task = bar.add_task("writing", total=total, rate="images")
        for done in writing:
            rate = done / max(time.monotonic() - began, 1e-9)
            bar.update(task, completed=done, rate=f"images, {rate:,.0f} images/s")
        _refuse_existing(target)  # another process may have made it meanwhile
    _conclude(console, data, target, name, image_size, time.monotonic() - began)


def _checked_name(target: Path, name: str | None) -> str:
    """Returns the name for dataset.toml. Raises UsageError for a name that can't be written there."""
    if name is None:
        # TOML can't hold bytes of a folder's name that aren't UTF-8.
        name = os.fsencode(target.absolute().name).decode(errors="replace")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"--name is {name!r}; it must be valid UTF-8") from None
    if not name.strip():
        raise UsageError(f"--name is {name!r}; it must not be empty")
    return name


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(f"{shown(target)} exists already", "Name a folder that does not exist, or remove it first.")


def _unfinished_prefix(target: Path) -> str:
    return f".{target.name[:50]}-import-"


def _name_leftovers(target: Path, console: Console) -> None:
    """Print where imports that were ended by SIGKILL have left unfinished folders."""
    for left in sorted(target.absolute().parent.glob(f"{glob.escape(_unfinished_prefix(target))}*")):
        console.notice(
            Note(
                f"{left} was left by an import that was killed: remove it, unless that import is still running",
                "Remove the folder.",
            )
        )


def _conclude(console: Console, data: IdxSet, target: Path, name: str, image_size: int, seconds: float) -> None:
    total = len(data.train.labels) + len(data.val.labels)
    side = data.train.images.shape[1]
    lines = [
        f"{count_of(total, 'image')} imported in {seconds:,.1f} s: {total / max(seconds, 1e-9):,.0f} images/s",
        f"{name!r}: {len(data.train.labels):,} for training, {len(data.val.labels):,} for validation,"
        f" {count_of(data.num_classes, 'class')}, {side} x {side} pixels as {image_size} x {image_size}",
        *(f"note: {note}" for note in _notes(data, target)),
        f"To train on it: {_training_command(target, image_size)}",
    ]
    for line in lines:
        console.line(line)


def _notes(data: IdxSet, target: Path) -> list[Note]:
    """What the user should know about the labels and the splits, in words."""
    notes = label_notes(open_dataset(target))
    lowest = int(min(data.train.labels.min(), data.val.labels.min()))
    if lowest:
        notes.append(
            Note(
                f"the labels run from {lowest} to {data.num_classes - 1} and none is 0: the model has an output for"
                f" each label from 0 on, so that {count_of(lowest, 'output')} will never be right",
                "Subtract the smallest label from all of them, if they count from 1.",
            )
        )
    if shared := data.shared_images():
        notes.append(
            Note(
                f"{shared:,} of {count_of(len(data.val.labels), 'validation image')} are among the training images,"
                " too, to the byte: top-1 will look better than it is",
                "Take them out of one of the two.",
            )
        )
    return notes


def _training_command(target: Path, image_size: int) -> str:
    """Returns the command that trains on the folder. A bare name could be that of a built-in data set."""
    data = str(target) if len(target.parts) > 1 else f"./{target}"
    return command_line("--data", data, "--image-size", str(max(image_size, MIN_IMAGE_SIZE)))
