"""Which images a data set holds, where they are and what their labels are; and reading their files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.columns import Bytes, Numbers, Texts
from pipelines.packed.divided import joined

# More classes would need a head of billions of weights; such a number is a typing error.
MAX_CLASSES = 1_000_000

# Enough to see the pattern of a fault without filling the terminal.
FAULTS_NAMED = 10

# More than a file name can have (255 bytes), but bounded: a binary file given as a list may be one line of many
# megabytes.
_SHOWN_CHARACTERS = 300

CUT_SHARD = "the shard ends before the image does"
_NOT_READ = OSError(0, "not read")
# Images in a shard that are no further apart are read at once: a tar's headers and labels lie between them.
MAX_GAP_BYTES = 16 << 10


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """Where images lie within larger files: files are absolute, or relative to the list's root.

    Image i is the sizes[i] bytes of files[numbers[i]] from offsets[i] on. Arrays are [images]. format is what the files
    are called in messages. stamps has the size in bytes and the time of the last change (ns) of each file when it was
    listed. divided has the images between whose bytes are headers of RecordIO's (see `pipelines.packed.divided`).
    """

    format: str
    files: tuple[str, ...]
    stamps: tuple[tuple[int, int], ...]
    numbers: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    divided: frozenset[int] = frozenset()

    def path(self, root: Path, number: int) -> str:
        """The path of the file of this number, for a list with this root."""
        # An absolute path stays what it is.
        return os.path.join(root, self.files[number])  # noqa: PTH118

    def take(self, places: npt.NDArray[Any]) -> Extents:
        """Those of the images at these places, in this order."""
        divided = (
            frozenset(new for new, old in enumerate(places.tolist()) if old in self.divided)
            if self.divided
            else frozenset()
        )
        chosen = (self.numbers[places], self.offsets[places], self.sizes[places])
        return Extents(self.format, self.files, self.stamps, *chosen, divided)


@dataclass(frozen=True, slots=True, init=False)
class ImageList:
    """Images and their labels, in the list's own order.

    paths are relative to root, with "/" between folders; labels[i] is the class index of
    paths[i]. Bytes of a file name that are not UTF-8 are kept as surrogate escapes, as os.fsdecode does. extents says
    where in shards the images lie, whose paths are then a shard's and a member's name in it; None for files of their
    own. Raises ValueError if the columns differ in length.
    """

    root: Path
    paths: Texts
    labels: Numbers
    extents: Extents | None

    def __init__(self, root: Path, paths: Iterable[str], labels: Iterable[int], extents: Extents | None = None) -> None:
        for name, value in (
            ("root", root), ("paths", Texts.of(paths)), ("extents", extents),
            ("labels", labels if isinstance(labels, Numbers) else Numbers(labels)),
        ):  # fmt: skip
            object.__setattr__(self, name, value)
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths, but {len(self.labels)} labels")
        if extents is not None and len(extents.numbers) != len(self.paths):
            raise ValueError(f"{len(self.paths)} paths, but {len(extents.numbers)} places")

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> str:
        """The path of the file that has the image: its own one, or its shard."""
        if self.extents is None:
            return f"{self.root}/{self.paths[index]}"
        return self.extents.path(self.root, int(self.extents.numbers[index]))

    def files(self, most: int | None = None) -> Sequence[str]:
        """The paths of the files that have images, each once: as many as there are images, or the shards.

        most is the number of those that are returned, from all over the list.
        """
        count = len(self) if self.extents is None else len(self.extents.files)
        places = spread(count, count if most is None else most)
        if self.extents is None:
            return [f"{self.root}/{path}" for path in self.paths.take(places)]
        return [self.extents.path(self.root, place) for place in places]

    def content(self, index: int) -> bytes:
        """The image's file, or what would be in it. Raises OSError, also where there is no regular file."""
        if self.extents is None:
            found = _whole_file(self.file(index))
        else:
            part = read_contents(self, (index,))[0]
            found = part if isinstance(part, OSError) else part.tobytes()
        if isinstance(found, OSError):
            raise found
        return found

    def part(self, indices: Sequence[int]) -> ImageList:
        """Returns the images at these indices, in this order."""
        places = np.asarray(indices, dtype=np.int64)
        extents = None if self.extents is None else self.extents.take(places)
        return ImageList(self.root, self.paths.take(places), self.labels.take(places), extents)


def read_contents(images: ImageList, indices: Iterable[int]) -> list[Bytes | OSError]:
    """The bytes of each of these images [its length], or why they can't be read.

    Images that lie close to one another in a shard are read at once; all are requested from the disk before the first
    one is read.
    """
    if images.extents is None:
        whole = (_whole_file(images.file(index)) for index in indices)
        return [one if isinstance(one, OSError) else np.frombuffer(one, np.uint8) for one in whole]
    extents = images.extents
    places = np.fromiter(indices, np.int64)
    found: list[Bytes | OSError] = [_NOT_READ] * len(places)
    opened: dict[int, int | OSError] = {}
    spans = close_spans(extents, places, MAX_GAP_BYTES)
    try:
        for span in spans:
            if span.number not in opened:
                opened[span.number] = _opened(extents.path(images.root, span.number))
            if isinstance(descriptor := opened[span.number], int):
                with suppress(OSError):
                    os.posix_fadvise(descriptor, span.begin, span.end - span.begin, os.POSIX_FADV_WILLNEED)
        for span in spans:
            read = opened[span.number]
            content = _extent(read, span.begin, span.end) if isinstance(read, int) else read
            for place in span.places.tolist():
                found[place] = _cut(content, extents, int(places[place]), span.begin)
    finally:
        for descriptor in opened.values():
            if isinstance(descriptor, int):
                os.close(descriptor)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Bytes from begin to end (without it) of the file of this number, and the places of the images within them."""

    number: int
    begin: int
    end: int
    places: npt.NDArray[np.int64]


def close_spans(extents: Extents, indices: npt.NDArray[np.int64], max_gap: int) -> list[Span]:
    """The parts of files that have these images, in the files' order; images at most max_gap bytes apart share one.

    A span's places are those in indices.
    """
    if not len(indices):
        return []
    numbers, begins = extents.numbers[indices], extents.offsets[indices]
    ends = begins + extents.sizes[indices]
    order = np.lexsort((begins, numbers))
    numbers, begins, ends = numbers[order], begins[order], ends[order]
    apart = (numbers[1:] != numbers[:-1]) | (begins[1:] - ends[:-1] > max_gap)
    cuts = np.flatnonzero(apart) + 1
    bounds = zip([0, *cuts.tolist()], [*cuts.tolist(), len(order)], strict=True)
    return [
        Span(int(numbers[first]), int(begins[first]), int(ends[first:last].max()), order[first:last])
        for first, last in bounds
    ]


def _cut(content: Bytes | OSError, extents: Extents, index: int, begin: int) -> Bytes | OSError:
    """The image at an index of the bytes of a span that begins at a place in its file."""
    if isinstance(content, OSError):
        return content
    offset, size = int(extents.offsets[index]), int(extents.sizes[index])
    own = content[offset - begin : offset - begin + size]
    if len(own) < size:
        return OSError(0, CUT_SHARD)
    return np.frombuffer(joined(own.tobytes(), offset), np.uint8) if index in extents.divided else own


def _extent(descriptor: int, begin: int, end: int) -> Bytes | OSError:
    """The bytes of a file from begin to end; fewer where it ends before."""
    content = np.empty(end - begin, np.uint8)
    done = 0
    try:
        while done < len(content):
            count = os.preadv(descriptor, [content[done:]], begin + done)  # type: ignore[list-item]
            if not count:
                return content[:done]
            done += count
    except OSError as error:
        return error
    return content


def _whole_file(path: str) -> bytes | OSError:
    descriptor = _opened(path)
    if isinstance(descriptor, OSError):
        return descriptor
    try:
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return OSError(0, "not a regular file")
            return stream.readall()
    except OSError as error:
        return error


def _opened(path: str) -> int | OSError:
    try:
        # O_NONBLOCK, as opening a pipe would wait for its other end.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error
    except ValueError:  # a NUL in the name
        return OSError(0, "not a possible file name")


def spread(count: int, most: int) -> list[int]:
    """Returns at most this number of places, from all over a list of count entries."""
    taken = min(count, most)
    return [place * count // taken for place in range(taken)]


def shown(name: str | os.PathLike[str]) -> str:
    """The file name or line, quoted for a message; control characters are escaped, so that it stays on one line."""
    text = os.fspath(name)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]!r}..."
    return repr(text)


def first_ten(faults: Sequence[str]) -> str:
    """One indented line per fault, at most ten, then the number of further ones."""
    lines = [f"  {fault}" for fault in faults[:FAULTS_NAMED]]
    if len(faults) > FAULTS_NAMED:
        lines.append(f"  and {len(faults) - FAULTS_NAMED:,} more")
    return "\n".join(lines)
