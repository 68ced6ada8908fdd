"""Which image files a data set holds and what their labels are, checked before a run spends hours on them."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import DataError

# What DALI's decoders read and people keep images in. Compared in lower case: ImageNet's own files end in .JPEG.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jp2")

# More classes would need a head of billions of weights; such a number is a typing error.
MAX_CLASSES = 1_000_000

# Enough to see the pattern of a fault without filling the terminal.
FAULTS_NAMED = 10

# More than a file name can have (255 bytes), but bounded: a binary file given as a list may be one line of many
# megabytes.
_SHOWN_CHARACTERS = 300

# Large enough that the cost of passing a chunk to a thread is negligible, small enough to keep 16 threads busy.
_FILES_PER_CHUNK = 512

# The only reason of file_fault that is about a file's content.
EMPTY_FILE = "0 bytes"

# Most images are readable by all, which saves a second request to the disk for each of them.
_READABLE_BY_ALL = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
# The effective user is the one who will open a file, but not every platform can check for it.
_EFFECTIVE_IDS = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True)
class ImageList:
    """Image files and their labels, in the list's own order.

    paths are relative to root, with "/" between folders, as the list writes them; labels[i] is the class index of
    paths[i]. Bytes of a file name that are not UTF-8 are kept as surrogate escapes, as os.fsdecode does. Raises
    ValueError if the two differ in length.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, indices: Sequence[int]) -> ImageList:
        """Returns the images at these indices, in this order."""
        return ImageList(
            self.root, tuple(self.paths[index] for index in indices), tuple(self.labels[index] for index in indices)
        )


def shown(name: str | os.PathLike[str]) -> str:
    """The file name or line, quoted for a message; control characters are escaped, so that it stays on one line."""
    text = os.fspath(name)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]!r}..."
    return repr(text)


def _first_ten(faults: Sequence[str]) -> str:
    """One indented line per fault, at most ten, then the number of further ones."""
    lines = [f"  {fault}" for fault in faults[:FAULTS_NAMED]]
    if len(faults) > FAULTS_NAMED:
        lines.append(f"  and {len(faults) - FAULTS_NAMED:,} more")
    return "\n".join(lines)


def _label(token: str) -> int | None:
    """The label in plain decimal digits, or None. int() alone would accept "1_0" and "٣"."""
    digits = token[1:] if token.startswith("-") else token
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    return int(token)


def _leaves_root(path: str) -> bool:
    return path.startswith("/") or (".." in path and posixpath.normpath(path).split("/", 1)[0] == "..")


def _read_lines(list_file: Path) -> list[str]:
    """The list's lines without their line ends. Raises DataError if the file can't be read."""
    cure = "Write it with one line `path label` per image, the path relative to the data set's folder."
    try:
        # Only "\n" ends a line: str.splitlines would also cut file names at U+2028 and its like. "utf-8-sig" drops the
        # byte-order mark that some Windows editors put in front.
        text = list_file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise DataError(f"no such list: {shown(list_file)}", cure) from None
    except OSError as error:
        raise DataError(f"the list {shown(list_file)} cannot be read: {error.strerror}", cure) from error
    if not text.strip():
        raise DataError(f"the list {shown(list_file)} is empty", cure)
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_list(list_file: Path, root: Path, num_classes: int) -> ImageList:
    """Read lines `path label`; the label is the last word, so that paths may hold spaces. Blank lines are skipped.

    Labels must lie in 0..num_classes-1 and paths below root. check_files checks whether the files exist. Raises
    DataError, with the first ten faults by line, for a missing, unreadable or empty list, a line without a label, a
    label outside its range and a path that leaves root.
    """
    if num_classes > MAX_CLASSES:
        raise DataError(f"{num_classes:,} classes; at most {MAX_CLASSES:,} are read", "Use --classes N with fewer.")
    known_labels = {str(label): label for label in range(num_classes)}  # a look-up is several times faster than int()
    paths: list[str] = []
    labels: list[int] = []
    unlabelled: list[str] = []
    outside: list[str] = []
    leaving: list[str] = []
    highest_label = -1

    for number, line in enumerate(_read_lines(list_file), start=1):
        words = line.rsplit(None, 1)
        if not words:
            continue
        label = known_labels.get(words[-1])
        if label is None:
            label = _label(words[-1])
        where = f"{list_file.name}:{number}"
        if label is None or len(words) == 1:
            unlabelled.append(f"{where}: {shown(line)}")
            continue
        path = words[0]
        if not 0 <= label < num_classes:
            outside.append(f"{where}: label {label} of {shown(path)}")
            highest_label = max(highest_label, label)
        elif _leaves_root(path):
            leaving.append(f"{where}: {shown(path)}")
        paths.append(path)
        labels.append(label)

    total = len(paths) + len(unlabelled)
    if unlabelled:
        raise DataError(
            f"{len(unlabelled):,} of {total:,} lines of {shown(list_file)} do not read `path label`:\n"
            + _first_ten(unlabelled),
            "End each line with a space and the image's class as a whole number, or remove the line.",
        )
    if outside:
        cure = "Labels count from 0."
        if highest_label >= num_classes:
            cure += f" If the list is right: --classes {highest_label + 1}"
        raise DataError(
            f"{len(outside):,} of {total:,} lines of {shown(list_file)} have a label outside 0..{num_classes - 1}:\n"
            + _first_ten(outside),
            cure,
        )
    if leaving:
        raise DataError(
            f"{len(leaving):,} of {total:,} paths in {shown(list_file)} lead out of {shown(root)}:\n"
            + _first_ten(leaving),
            "Write paths relative to the data set's folder and below it; a symbolic link there may point elsewhere.",
        )
    return ImageList(root=root, paths=tuple(paths), labels=tuple(labels))


def scan_class_folders(
    folder: Path, root: Path, class_names: Sequence[str] | None = None
) -> tuple[ImageList, tuple[str, ...]]:
    """List the images below folder, where each sub-folder is a class. Returns them with the class names.

    Classes and files are sorted by name; hidden ones are skipped. Without class_names the sub-folders are the classes,
    and each must hold an image. With class_names (those of the training set) their order defines the labels, and a
    class may be absent or empty. Paths are relative to root; folder must be below it. Raises DataError for an
    unreadable folder, one without class folders or images, an empty class and a class that is not in class_names.
    """
    prefix = folder.relative_to(root).as_posix()
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
        # Names stay plain strings: a Path object per file would take minutes for ImageNet.
        files = {
            name: sorted(
                file
                for file in os.listdir(folder / name)  # noqa: PTH208
                if file.lower().endswith(IMAGE_EXTENSIONS) and not file.startswith(".")
            )
            for name in found
        }
    except OSError as error:
        raise DataError(f"the folder {shown(folder)} cannot be read: {error.strerror}") from error

    if not found:
        raise DataError(
            f"the folder {shown(folder)} holds no class folders",
            f"Sort its images into one folder per class, or list them in {folder.name}_list.txt (lines `path label`).",
        )
    if not any(files.values()):
        raise DataError(
            f"none of the {len(found):,} class folders in {shown(folder)} holds an image",
            f"Images end in {', '.join(IMAGE_EXTENSIONS)} and lie directly in their class's folder.",
        )
    if class_names is None:
        empty = [shown(name) for name in found if not files[name]]
        if empty:
            raise DataError(
                f"{len(empty):,} of {len(found):,} class folders in {shown(folder)} hold no image:\n"
                + _first_ten(empty),
                "Each folder there counts as a class of the model: fill these, or remove them.",
            )
        class_names = found
    label_of = {name: label for label, name in enumerate(class_names)}
    unknown = [shown(name) for name in found if name not in label_of]
    if unknown:
        raise DataError(
            f"{len(unknown):,} of {len(found):,} class folders in {shown(folder)} are not classes of the training"
            " set:\n" + _first_ten(unknown),
            f"The training set has {len(label_of):,} classes; rename or remove these folders.",
        )
    paths = tuple(f"{prefix}/{name}/{file}" for name in found for file in files[name])
    labels = tuple(label_of[name] for name in found for _ in files[name])
    return ImageList(root=root, paths=paths, labels=labels), tuple(class_names)


def file_fault(path: str) -> tuple[int, str]:
    """A file's size in bytes, and why it can't be read as an image; the reason is empty if none was found."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path object per file would double the time
    except OSError as error:
        return 0, (error.strerror or type(error).__name__).lower()
    except ValueError:  # a NUL in the name
        return 0, "not a possible file name"
    if not stat.S_ISREG(status.st_mode):
        return status.st_size, "not a regular file"
    if status.st_mode & _READABLE_BY_ALL != _READABLE_BY_ALL and not os.access(
        path, os.R_OK, effective_ids=_EFFECTIVE_IDS
    ):
        return status.st_size, "permission denied"
    return status.st_size, "" if status.st_size else EMPTY_FILE


def _check_chunk(root: str, paths: Sequence[str]) -> list[tuple[int, str]]:
    return [file_fault(f"{root}/{path}") for path in paths]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of inspecting every file of a list: sizes in bytes, in its order, and why files are unusable."""

    images: ImageList
    sizes: tuple[int, ...]
    faults: dict[int, str]

    def refuse(self) -> DataError:
        """The error that names the first ten unusable files with their reasons, and the number of all of them."""
        named = [f"{shown(self.images.paths[index])}: {reason}" for index, reason in self.faults.items()]
        return DataError(
            f"{len(named):,} of {len(self.images):,} listed files cannot be used:\n{_first_ten(named)}",
            f"Paths are relative to {shown(self.images.root)}. Restore these files, remove them from the list, or allow"
            " that many with --max-bad-images N and --bad-images skip.",
        )


def check_files(image_list: ImageList, threads: int = 16) -> FileCheck:
    """Inspect every file without opening it.

    Several threads do so at the same time, because on a network disk each inspection waits for an answer. Raises
    ValueError for threads below 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    root = os.fspath(image_list.root)
    chunks = [
        image_list.paths[start : start + _FILES_PER_CHUNK] for start in range(0, len(image_list), _FILES_PER_CHUNK)
    ]
    sizes: list[int] = []
    faults: dict[int, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for checked in pool.map(_check_chunk, [root] * len(chunks), chunks):
            for size, reason in checked:
                if reason:
                    faults[len(sizes)] = reason
                sizes.append(size)
    return FileCheck(image_list, tuple(sizes), faults)
