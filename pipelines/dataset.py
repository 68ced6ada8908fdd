"""What --data names: a folder or a built-in set, both opened in the same way."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.augmentation import Augmentation
from pipelines.builtin import BUILTIN
from pipelines.errors import DataError
from pipelines.image_lists import ImageList, read_list, scan_class_folders, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# ILSVRC2012, the classification task of 2012 (Russakovsky et al., arXiv:1409.0575, table 2).
IMAGENET_TRAIN_IMAGES = 1_281_167
IMAGENET_VAL_IMAGES = 50_000
IMAGENET_CLASSES = 1000

TRAIN_SPLIT, VAL_SPLIT = "train", "val"

SETTINGS_FILE = "dataset.toml"
_SETTINGS = ("name", "num_classes", "augmentation")
_AUGMENTATION_SETTINGS = tuple(field.name for field in dataclasses.fields(Augmentation))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set ready to read: val is None if there is none; num_classes is the model's number of outputs.

    builtin: the set came with the harness, so that its top-1 is never shown as ImageNet's. Raises ValueError for a set
    without training images, and for a label for which the model would have no output.
    """

    name: str
    root: Path
    num_classes: int
    train: ImageList
    val: ImageList | None
    augmentation: Augmentation
    builtin: bool

    def __post_init__(self) -> None:
        for split, images in self.splits.items():
            if not images:
                raise ValueError(f"{self.name}: {split} holds 0 images; at least 1 is needed")
            if not 0 <= min(images.labels) <= max(images.labels) < self.num_classes:
                raise ValueError(
                    f"{self.name}: {split} has labels {min(images.labels)}..{max(images.labels)}; "
                    f"{self.num_classes} classes allow 0..{self.num_classes - 1}"
                )

    @property
    def splits(self) -> dict[str, ImageList]:
        """The lists of images by the name of their split."""
        return {TRAIN_SPLIT: self.train} if self.val is None else {TRAIN_SPLIT: self.train, VAL_SPLIT: self.val}


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings in dataset.toml; None where it has none."""

    name: str | None = None
    num_classes: int | None = None
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)


def _refuse_unknown(table: dict[str, object], known: tuple[str, ...], where: str) -> None:
    unknown = [shown(key) for key in table if key not in known]
    if unknown:
        raise DataError(f"{where} has unknown keys: {', '.join(unknown)}", f"Known keys: {', '.join(known)}.")


def _read_settings(file: Path) -> _Settings:
    """Read dataset.toml if it exists. Raises DataError for anything in it that is not understood."""
    where = shown(file)
    try:
        document: dict[str, object] = tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        return _Settings()
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from error
    except ValueError as error:  # bad UTF-8 or bad TOML
        raise DataError(f"{where} is not TOML: {error}", "https://toml.io describes the format.") from error

    _refuse_unknown(document, _SETTINGS, where)
    name = document.get("name")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise DataError(f"{where}: name is {name!r}; it must be a text and not empty")
    num_classes = document.get("num_classes")
    # bool is a kind of int in Python, but `num_classes = true` is a mistake.
    if num_classes is not None and (
        not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1
    ):
        raise DataError(f"{where}: num_classes is {num_classes!r}; it must be a whole number of at least 1")
    table = document.get("augmentation", {})
    if not isinstance(table, dict):
        raise DataError(f"{where}: augmentation is {table!r}; it must be a table", "Write it as [augmentation].")
    _refuse_unknown(table, _AUGMENTATION_SETTINGS, f"{where} [augmentation]")
    for key, value in table.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise DataError(f"{where} [augmentation]: {key} is {value!r}; it must be a number")
    try:
        augmentation = Augmentation(**table)
    except ValueError as error:
        raise DataError(f"{where} [augmentation]: {error}") from error
    return _Settings(name=name, num_classes=num_classes, augmentation=augmentation)


def _open_folder(folder: Path, num_classes: int | None, *, builtin: bool) -> Dataset:
    choices = f"--data takes a folder in ImageNet's layout or a built-in set: {', '.join(sorted(BUILTIN))}."
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"no such folder: {shown(folder)}", choices) from None
    except (OSError, ValueError) as error:  # ValueError for a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"the folder {shown(folder)} cannot be opened: {reason}", choices) from error
    if not stat.S_ISDIR(mode):
        raise DataError(f"not a folder: {shown(folder)}", choices)
    settings = _read_settings(folder / SETTINGS_FILE)
    classes_wanted = num_classes if num_classes is not None else settings.num_classes

    train_list, val_list = folder / "train_list.txt", folder / "val_list.txt"
    train_folder, val_folder = folder / "train", folder / "val"
    val: ImageList | None = None
    if train_list.exists():
        classes = classes_wanted if classes_wanted is not None else IMAGENET_CLASSES
        train = read_list(train_list, folder, classes)
        class_names: tuple[str, ...] | None = None
    elif train_folder.is_dir():
        train, class_names = scan_class_folders(train_folder, folder)
        classes = classes_wanted if classes_wanted is not None else len(class_names)
        if classes < len(class_names):
            raise DataError(
                f"{shown(train_folder)} holds {len(class_names):,} class folders, more than the {classes:,} classes "
                "asked for",
                f"To train on all of them: --classes {len(class_names)}",
            )
    else:
        raise DataError(f"{shown(folder)} holds neither train_list.txt nor a folder train", choices)

    if val_list.exists():
        val = read_list(val_list, folder, classes)
    elif class_names is not None and val_folder.is_dir():
        val, _ = scan_class_folders(val_folder, folder, class_names)

    return Dataset(
        name=settings.name or os.path.basename(os.path.abspath(folder)) or str(folder),  # noqa: PTH100, PTH119
        root=folder,
        num_classes=classes,
        train=train,
        val=val,
        augmentation=settings.augmentation,
        builtin=builtin,
    )


def open_dataset(data: str | Path, num_classes: int | None = None) -> Dataset:
    """Open the built-in set or the folder that data names; files are listed but not yet inspected (see check_files).

    A text that is a built-in set's name means that set, whatever folders there are; "./digits", or a Path, means the
    folder. A folder holds train_list.txt and val_list.txt (1000 classes by default), or else class folders below train
    and val (as many classes as train has folders). dataset.toml in it may set name, num_classes and [augmentation]; the
    argument num_classes takes precedence. Raises DataError if the set can't be used in this way.
    """
    if num_classes is not None and num_classes < 1:
        raise DataError(f"{num_classes} classes asked for; at least 1 is needed", "--classes N takes a whole number.")
    if isinstance(data, str) and data in BUILTIN:
        return _open_folder(BUILTIN[data](), num_classes, builtin=True)
    return _open_folder(Path(data), num_classes, builtin=False)


def fingerprint(dataset: Dataset) -> str:
    """A digest of the lists: files, order and labels. The place and the content of the files are not part of it."""
    digest = hashlib.sha256()
    for split, images in dataset.splits.items():
        digest.update(f"\0\0{split}\0{len(images)}\0".encode())
        digest.update("\0".join(images.paths).encode(errors="surrogateescape"))
        digest.update(",".join(map(str, images.labels)).encode())
    return digest.hexdigest()


def is_imagenet(dataset: Dataset) -> bool:
    """Whether the set has ILSVRC2012's exact counts; only then may its top-1 be compared with published ones."""
    return (
        len(dataset.train) == IMAGENET_TRAIN_IMAGES
        and dataset.val is not None
        and len(dataset.val) == IMAGENET_VAL_IMAGES
        and dataset.num_classes == IMAGENET_CLASSES
    )
