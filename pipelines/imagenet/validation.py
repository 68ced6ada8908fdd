"""The labels of ILSVRC2012's validation images as they are handed out: in Kaggle's table or the kit's file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import DataError
from pipelines.image_lists import ImageList, shown
from pipelines.imagenet.numbering import (
    EXAMPLE,
    known_validation_labels,
    label_of_kit_number,
    label_of_wnid,
    validation_image_number,
)
from pipelines.list_files import decoded

VALIDATION_IMAGES = 50_000
KAGGLE_FILE = "LOC_val_solution.csv"
KIT_FILE = "ILSVRC2012_validation_ground_truth.txt"
# As Kaggle packs the images: the table is beside the folder ILSVRC, and the images in ILSVRC/Data/CLS-LOC.
_FOLDERS_ABOVE = 3
_KIT_FOLDERS = ("", "ILSVRC2012_devkit_t12/data", "devkit/data", "data")


@dataclass(frozen=True, slots=True)
class ValidationLabels:
    """The labels of validation images, from 0 by sorted WordNet IDs, by the number in the image's name."""

    file: Path
    labels: dict[int, int]

    def list_images(self, names: Sequence[str], root: Path, prefix: str) -> ImageList:
        """The images of these names in the folder prefix below root. Raises DataError for one without a label."""
        numbers = [validation_image_number(name) for name in names]
        without = [name for name, number in zip(names, numbers, strict=True) if number not in self.labels]
        if without:
            raise DataError(
                f"{len(without):,} of {len(names):,} images in {shown(root / prefix)} have no label in"
                f" {shown(self.file)}, such as {shown(without[0])}",
                "Write val_list.txt with lines `path label` for the images that are to be read.",
            )
        labels = tuple(self.labels[number] for number in numbers if number is not None)
        return ImageList(root, tuple(f"{prefix}/{name}" for name in names), labels)


def find_validation_labels(folder: Path) -> ValidationLabels | None:
    """The labels in Kaggle's table or the kit's file, in the folder or up to three above; None if neither is there."""
    above = folder.absolute()
    for _ in range(_FOLDERS_ABOVE + 1):
        if (above / KAGGLE_FILE).is_file():
            return read_kaggle(above / KAGGLE_FILE)
        for inner in _KIT_FOLDERS:
            if (above / inner / KIT_FILE).is_file():
                return read_kit(above / inner / KIT_FILE)
        above = above.parent
    return None


def read_kaggle(file: Path) -> ValidationLabels:
    """Read LOC_val_solution.csv: lines `image,wnid left top right bottom ...`. Raises DataError for anything else."""
    labels: dict[int, int] = {}
    for line, cells in enumerate(csv.reader(_text(file).splitlines()), start=1):
        if line == 1 and cells[:1] == ["ImageId"]:
            continue
        if not cells:
            continue
        number = validation_image_number(cells[0])
        wnid = cells[1].split()[0] if len(cells) > 1 and cells[1].split() else ""
        if number is None or wnid not in label_of_wnid():
            raise DataError(
                f"line {line} of {shown(file)} is not a validation image and the WordNet ID of its class:"
                f" {shown(','.join(cells))}",
                f"Give {KAGGLE_FILE} as Kaggle hands it out.",
            )
        labels[number] = label_of_wnid()[wnid]
    return _checked(file, labels)


def read_kit(file: Path) -> ValidationLabels:
    """Read the kit's file: the class's number of each image, 1 to 1000, a line each. Raises DataError for others."""
    labels: dict[int, int] = {}
    for line, text in enumerate(_text(file).split(), start=1):
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
        if number not in label_of_kit_number():
            raise DataError(
                f"line {line} of {shown(file)} is {shown(text)}, not one of the kit's numbers 1 to 1000",
                f"Give {KIT_FILE} from ImageNet's development kit.",
            )
        labels[line] = label_of_kit_number()[number]
    if len(labels) != VALIDATION_IMAGES:
        raise DataError(
            f"{shown(file)} has {len(labels):,} lines; the kit's file has one for each of {VALIDATION_IMAGES:,} images",
            f"Give {KIT_FILE} from ImageNet's development kit.",
        )
    return _checked(file, labels)


def _checked(file: Path, labels: dict[int, int]) -> ValidationLabels:
    known = known_validation_labels()
    wrong = [number for number, label in labels.items() if known.get(number, label) != label]
    if wrong or not labels:
        what = f"gives image {wrong[0]} another class than ILSVRC2012 ({EXAMPLE})" if wrong else "is empty"
        raise DataError(f"{shown(file)} {what}", "Give the file of ILSVRC2012's validation images.")
    return ValidationLabels(file, labels)


def _text(file: Path) -> str:
    try:
        return decoded(file.read_bytes())
    except OSError as error:
        raise DataError(f"the file {shown(file)} cannot be read: {error.strerror}") from error


def list_lines(labels: ValidationLabels, prefix: str) -> Iterator[str]:
    """The lines of a list of all images that have a label, with the names that ImageNet's archive gives them."""
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    for number, label in sorted(labels.labels.items()):
        yield f"{folder}ILSVRC2012_val_{number:08d}.JPEG {label}\n"
