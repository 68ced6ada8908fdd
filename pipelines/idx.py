"""Files in MNIST's format (IDX): images and labels as arrays, or a DataError that says which byte is wrong."""

from __future__ import annotations

import gzip
import math
import re
import stat
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from pipelines.errors import DataError
from pipelines.image_lists import shown

# Source: "THE IDX FILE FORMAT" on the MNIST page: two zero bytes, the type of the values (8 for unsigned bytes), the
# number of dimensions; then each dimension as a big-endian 32-bit number, then the values, the last index fastest.
_UNSIGNED_BYTES = b"\0\0\x08"
_GZIP = b"\x1f\x8b"

# EMNIST's largest split has 547 MB. A gzip file can unpack to a thousand times its size, so the unpacked size is
# limited, too, and not only the size in the header.
MAX_BYTES = 2**30
# Each image becomes a file; EMNIST's largest split has 697,932.
MAX_IMAGES = 2_000_000
_CHUNK_BYTES = 2**20

# The names of the four files: KMNIST and Fashion-MNIST use MNIST's names, EMNIST puts the split before them and uses
# "test", and some mirrors have unpacked files with a dot before idx.
_SPLIT_WORDS = {"train": "train", "val": "t10k|test"}
_CONTENTS = {"images": 3, "labels": 1}
_CURE = (
    "The folder must hold one set's train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte, each packed (.gz) or not."
)
_AGAIN = "Fetch the file again."
_OTHER_SHAPES = (
    "Write the images as files (PNG or JPEG), which may have any shape, into class folders below train/ and val/, or"
    " list them in train_list.txt and val_list.txt (lines `path label`): --data takes that folder."
)

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class IdxSplit:
    """Images [N, side, side] of grey levels and labels [N], both unsigned bytes; images[i] shows labels[i].

    Raises ValueError if the two differ in length, for no images, and for images that are not square.
    """

    images: Bytes
    labels: Bytes

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images):,} images, but {len(self.labels):,} labels")
        if not len(self.images):
            raise ValueError("0 images; at least 1 is needed")
        height, width = self.images.shape[1:]
        if height != width:
            raise ValueError(f"images of {width} x {height} pixels; only square ones are imported")


@dataclass(frozen=True, slots=True)
class IdxSet:
    """What a folder of IDX files holds: val is MNIST's test set, t10k."""

    train: IdxSplit
    val: IdxSplit

    @property
    def num_classes(self) -> int:
        """One more than the highest label of either split."""
        return int(max(self.train.labels.max(), self.val.labels.max())) + 1

    def shared_images(self) -> int:
        """The number of val's images that are in train, too, to the byte."""
        known = {hash(image.tobytes()) for image in self.train.images}
        return sum(hash(image.tobytes()) in known for image in self.val.images)

    def transposed(self) -> IdxSet:
        """The set with every image's rows and columns swapped."""
        return IdxSet(*(IdxSplit(one.images.swapaxes(1, 2), one.labels) for one in (self.train, self.val)))


def read_idx_folder(folder: Path) -> IdxSet:
    """Read the four files of a set. Raises DataError for one that is missing, ambiguous or not what its name says."""
    entries = _entries(folder)
    # Labels first: they are small, and a missing file should not wait for the images.
    found = {
        (split, content): _only_one(entries, folder, split, content)
        for content in ("labels", "images")
        for split in _SPLIT_WORDS
    }
    arrays = {key: read_idx(path, _CONTENTS[key[1]]) for key, path in found.items()}

    def pair(split: str) -> IdxSplit:
        try:
            return IdxSplit(arrays[split, "images"], arrays[split, "labels"])
        except ValueError as error:
            images, labels = found[split, "images"], found[split, "labels"]
            height, width = arrays[split, "images"].shape[1:]
            raise DataError(
                f"{shown(images)} and {shown(labels.name)}: {error}",
                "Both files must be of one set and split." if height == width else _OTHER_SHAPES,
            ) from error

    return IdxSet(pair("train"), pair("val"))


def _entries(folder: Path) -> list[Path]:
    """The files and folders in a folder, in order. Raises DataError if it can't be opened."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        raise DataError(f"no such folder: {shown(folder)}", _CURE) from None
    except (OSError, ValueError) as error:  # ValueError for a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"the folder {shown(folder)} cannot be opened: {reason}", _CURE) from error


def _only_one(entries: list[Path], folder: Path, split: str, content: str) -> Path:
    """The file with this content of the split; an unpacked file takes precedence over a packed one.

    A folder of such a name, as some archives make one for each file, counts for the files in it, and only if there is
    no file beside it.
    """
    usual = f"{'train' if split == 'train' else 't10k'}-{content}-idx{_CONTENTS[content]}-ubyte"
    pattern = re.compile(rf"(.*-)?({_SPLIT_WORDS[split]})-{content}[-.]idx{_CONTENTS[content]}-ubyte(\.gz)?", re.DOTALL)
    matching = [entry for entry in entries if pattern.fullmatch(entry.name)]
    files = [entry for entry in matching if not entry.is_dir()]
    if not files:
        inner = [entry for of_folder in matching for entry in _entries(of_folder)]
        files = [entry for entry in inner if pattern.fullmatch(entry.name) and not entry.is_dir()]
    stems = sorted({str(file).removesuffix(".gz") for file in files})
    if not stems:
        raise DataError(f"{shown(folder)} holds no {usual}, packed or not", _CURE)
    if len(stems) > 1:
        names = [shown(Path(stem).relative_to(folder)) for stem in stems[:10]]
        listed = ", ".join(names) + (", ..." if len(stems) > 10 else "")
        raise DataError(
            f"{shown(folder)} holds {len(stems)} files for {usual}, where 1 is expected: {listed}",
            "Put the four files of one set into a separate folder.",
        )
    plain = Path(stems[0])
    return plain if plain in files else Path(f"{stems[0]}.gz")


def read_idx(path: Path, dimensions: int) -> Bytes:
    """The array of unsigned bytes in an IDX file with this number of dimensions, packed by gzip or not.

    Raises DataError for a file that can't be read or unpacked, that has another type or number of dimensions, that has
    more than MAX_BYTES, or that is shorter or longer than its header says.
    """
    where = shown(path)
    try:
        with ExitStack() as open_files:
            # Reading a pipe would wait for its other end.
            if not stat.S_ISREG(path.stat().st_mode):
                raise DataError(f"not a file: {where}", _CURE)
            stream: IO[bytes] = open_files.enter_context(path.open("rb"))
            # Recognised by the content, as browsers unpack some files but keep their names.
            packed = stream.read(2) == _GZIP
            stream.seek(0)
            if packed:
                stream = cast("IO[bytes]", open_files.enter_context(gzip.GzipFile(fileobj=stream)))
            shape = _read_header(stream, where, dimensions)
            wanted = math.prod(shape)
            sizes = " x ".join(f"{size:,}" for size in shape)
            if wanted > MAX_BYTES:
                raise DataError(
                    f"{where} says that it holds {sizes} values, {wanted:,} bytes; at most {MAX_BYTES:,} are read",
                    _AGAIN,
                )
            if shape[0] > MAX_IMAGES:
                raise DataError(
                    f"{where} says that it holds {shape[0]:,} images; at most {MAX_IMAGES:,} are read", _AGAIN
                )
            values = _read_at_most(stream, wanted + 1)
            if len(values) != wanted:
                held = "more" if len(values) > wanted else f"{len(values):,}"
                raise DataError(f"{where} should hold {sizes} values, {wanted:,} bytes, but holds {held}", _AGAIN)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{where} cannot be unpacked: {error}", _AGAIN) from error
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}", _CURE) from error
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_header(stream: IO[bytes], where: str, dimensions: int) -> tuple[int, ...]:
    """The size of each dimension. Raises DataError for another number of dimensions, or other than unsigned bytes."""
    expected = _UNSIGNED_BYTES + bytes([dimensions])
    magic = _read_at_most(stream, 4)
    if magic != expected:
        raise DataError(
            f"{where} begins with {magic.hex(' ') or 'nothing'}; {expected.hex(' ')} is expected: IDX, unsigned bytes, "
            f"{dimensions} {'dimension' if dimensions == 1 else 'dimensions'}",
            "Images are in files named idx3, labels in idx1. The file may also be a web page saved under this name.",
        )
    header = _read_at_most(stream, 4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError(f"{where} ends in its header, {4 + len(header)} of {4 + 4 * dimensions} bytes long", _AGAIN)
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    if 0 in shape[1:]:
        raise DataError(
            f"{where} says that its images are {shape[2]} x {shape[1]} pixels; at least 1 x 1 is needed", _AGAIN
        )
    return shape


def _read_at_most(stream: IO[bytes], count: int) -> bytearray:
    """The next `count` bytes, or fewer at the end; read in parts, so that a wrong header does not cost memory."""
    content = bytearray()
    while len(content) < count and (part := stream.read(min(count - len(content), _CHUNK_BYTES))):
        content += part
    return content
