"""Whether each image of a list can be used: its file and its header are inspected, and all of its pixels decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.bad_image_probe import DATA_FAULT, reason_of
from pipelines.dali_graphs import Contents, checking_graph
from pipelines.file_checks import EMPTY_FILE
from pipelines.jpeg_data import END_OF_IMAGE, EndMarkers, damage, with_end
from pipelines.list_findings import KINDS_OF_LISTS, Finding, Kind
from pipelines.misread import WRONG_PIXELS, misread_stream
from pipelines.reading import Taken, reading_of
from pipelines.settings import MAX_PIXELS, PipelineSettings
from pipelines.storage import Storage

# Larger images are decoded one at a time: a batch of them would need gigabytes.
MAX_IN_A_BATCH_PIXELS = 25_000_000
BATCH_SIZE = 32
# Files inspected at once, ahead of decoding: a network disk answers many requests at the same time.
LOOKED_AT = 1024

EMPTY, MISSING, UNREADABLE, UNDECODABLE, HUGE = "empty", "missing", "unreadable", "undecodable", "huge"
MISREAD, FORMAT, UNENDED, DAMAGED = "misread", "format", "no_end_marker", "damaged"
CHECKSUM = "checksum"
# What an inspection finds, so that a file that is read after its inspection has changed since.
OF_FILES = (EMPTY, MISSING, UNREADABLE)


KINDS = {
    EMPTY: Kind("image is empty (0 bytes): restore it", "images are empty (0 bytes): restore them", True),
    MISSING: Kind("image is missing: restore it", "images are missing: restore them", True),
    UNREADABLE: Kind(
        "image is unreadable: restore it or correct its permissions",
        "images are unreadable: restore them or correct their permissions",
        True,
    ),
    UNDECODABLE: Kind("image can't be decoded: restore it", "images can't be decoded: restore them", True),
    HUGE: Kind(
        f"image has more than {MAX_PIXELS:,} pixels: scale it down",
        f"images have more than {MAX_PIXELS:,} pixels: scale them down",
        True,
    ),
    MISREAD: Kind(
        "image would be read with wrong pixels: convert it to PNG",
        "images would be read with wrong pixels: convert them to PNG",
        True,
    ),
    CHECKSUM: Kind(
        "shard isn't what was packed: fetch it again", "shards aren't what was packed: fetch them again", True
    ),
    **KINDS_OF_LISTS,
    UNENDED: Kind(
        "JPEG lacks the marker at its end: its pixels are whole, and it is used",
        "JPEGs lack the marker at their end: their pixels are whole, and they are used",
        False,
    ),
    DAMAGED: Kind(
        "JPEG is damaged, but decodes: what it lacks is filled in, and it is used anyway; restore it",
        "JPEGs are damaged, but decode: what they lack is filled in, and they are used anyway; restore them",
        False,
    ),
    FORMAT: Kind(
        "image has another format than its name says: it is used anyway",
        "images have another format than their names say: they are used anyway",
        False,
    ),
}

# What a file begins with, by format.
TIFF, PNM = "TIFF", "PNM"
SIGNATURES = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG"),
    ("BMP", b"BM"),
    ("GIF", b"GIF8"),
    (TIFF, b"II*\0"),
    (TIFF, b"MM\0*"),
    ("JPEG 2000", b"\0\0\0\x0cjP"),
    ("JPEG 2000", b"\xff\x4f\xff\x51"),
    *((PNM, kind) for kind in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")),
)
FORMAT_OF_EXTENSION = {
    "jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WebP",
    "jp2": "JPEG 2000", "tif": TIFF, "tiff": TIFF, "ppm": PNM, "pgm": PNM,
    "pbm": PNM, "pnm": PNM,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings among the list's images before `end`, after those of the previous part; sorted by index."""

    end: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Images of the list before `end`: those to decode, and the findings about the others' files."""

    end: int
    indices: tuple[int, ...]
    findings: tuple[Finding, ...]


def format_of(signature: bytes) -> str:
    """The format that a file's first bytes identify; "" for an unknown one."""
    if signature[:4] == b"RIFF" and signature[8:12] == b"WEBP":
        return "WebP"
    return next((name for name, start in SIGNATURES if signature.startswith(start)), "")


class Verification:
    """Checks a list once from image `start` on, in batches, on this number of threads; yields each batch's findings.

    Every file is inspected before it is opened, and every header is read before pixels are decoded. A batch that fails
    is checked again image by image, each bad one twice. There are findings only about what was seen while the storage
    could be read; while it can't, the check waits. Raises StorageError when that takes too long.
    """

    def __init__(self, storage: Storage, threads: int, start: int = 0) -> None:
        self._storage, self._images = storage, storage.images
        self._pool = ThreadPoolExecutor(threads)
        self._settings = PipelineSettings(BATCH_SIZE, image_size=1, decode_threads=threads)
        # For single images: those too large for a batch, and those of a batch that failed.
        self._alone = PipelineSettings(1, image_size=1, decode_threads=1, prefetch=1)
        self._end_markers = EndMarkers()
        self._reading = reading_of(storage, self._end_markers)
        self._to_draw = self._reading.ahead(self._draw(start), lambda drawn: drawn.indices, BATCH_SIZE)
        # As DALI reads ahead: what the pipeline has begun, and what was dropped with a pipeline that failed.
        self._begun: deque[tuple[_Drawn, Future[Any], Taken]] = deque()
        self._dropped: deque[tuple[_Drawn, Future[Any]]] = deque()
        # Findings about the files after the last one that can be opened.
        self._last_findings: tuple[Finding, ...] = ()
        self._pipeline: Any = None
        self._content: list[npt.NDArray[np.uint8]] = []

    def __iter__(self) -> Iterator[Checked]:
        pipeline: Any = None
        while True:
            if pipeline is None:
                pipeline = checking_graph(self._reading.feed(self._feed), self._settings, MAX_IN_A_BATCH_PIXELS)
                pipeline.build()
            try:
                _, sizes, signatures = pipeline.run()
            except StopIteration:
                break
            except RuntimeError as error:
                _raise_unless_data(error)
                pipeline = None
                drawn, _, taken = self._begun.popleft()
                taken.close()
                # Of a pipeline that failed before these were begun, too.
                self._dropped.extendleft((begun, requested) for begun, requested, _ in reversed(self._begun))
                while self._begun:
                    self._begun.popleft()[2].close()
                decoded = self._check_each(drawn.indices)
            else:
                drawn, _, taken = self._begun.popleft()
                taken.close()
                decoded = self._judge_batch(
                    drawn.indices, np.array(sizes.as_tensor()), np.array(signatures.as_tensor())
                )
                decoded += [_unended(index) for index in drawn.indices if index in taken.completed]
            found = sorted([*drawn.findings, *decoded], key=lambda finding: finding.index)
            yield Checked(drawn.end, tuple(found))
        yield Checked(len(self._images), self._last_findings)

    def _feed(self) -> list[npt.NDArray[np.uint8]]:
        drawn, requested = self._dropped.popleft() if self._dropped else next(self._to_draw)
        taken = self._reading.take(drawn.indices, requested)
        self._begun.append((drawn, requested, taken))
        return taken.arrays

    def _draw(self, start: int) -> Iterator[_Drawn]:
        """Batches of images whose files can be opened; together with _last_findings they cover the whole list."""
        chosen: list[int] = []
        findings: list[Finding] = []
        count = len(self._images)
        for begin in range(start, count, LOOKED_AT):
            part = range(begin, min(begin + LOOKED_AT, count))
            faults = self._storage.inspect(self._images.part(part)).faults
            for index in part:
                reason = faults.get(index - begin)
                if reason is not None:
                    findings.append(_file_finding(index, reason))
                    continue
                chosen.append(index)
                if len(chosen) == BATCH_SIZE:
                    yield _Drawn(index + 1, tuple(chosen), tuple(findings))
                    chosen, findings = [], []
        if chosen:
            yield _Drawn(count, tuple(chosen), tuple(findings))
        else:
            self._last_findings = tuple(findings)

    def _check_each(self, indices: Sequence[int]) -> list[Finding]:
        """Check images one by one, and those with findings again, as reading may have failed on the way.

        Files that were good when they were inspected, and are gone now, are looked for as long as they may be on their
        way back; see `Patience.troubled`.
        """
        storage = self._storage
        found = self._look(indices)
        if any(finding.kind in OF_FILES for finding in found):
            storage.patience.suspect()
        while found:
            suspects = sorted({finding.index for finding in found})
            changed = storage.changed_unix(suspects)
            storage.patience.before_second_look(changed)
            found = self._look(suspects)
            returning = storage.patience.troubled and any(finding.kind in OF_FILES for finding in found)
            if storage.changed_unix(suspects) == changed and not returning:
                break
        storage.patience.over()
        return found

    def _look(self, indices: Sequence[int]) -> list[Finding]:
        """The findings of one check of these images, at whose beginning and end the storage could be read."""
        while True:
            before = self._storage.obstacle()
            found = [] if before else [finding for index in indices for finding in self._check_alone(index)]
            obstacle = before or self._storage.obstacle()
            if not obstacle:
                return found
            self._storage.wait(obstacle)

    def _check_alone(self, index: int) -> list[Finding]:
        """Check the image by itself, up to MAX_PIXELS."""
        try:
            content = self._images.content(index)
        except OSError as error:  # it has changed since it was inspected
            return [_file_finding(index, _reason(error))]
        if not content:
            return [_file_finding(index, EMPTY_FILE)]
        found = self._decode(index, content)
        undecodable = any(finding.kind == UNDECODABLE for finding in found)
        ended = with_end(content) if undecodable and not content.endswith(END_OF_IMAGE) else None
        if ended is not None:
            again = self._decode(index, ended)
            if not any(KINDS[finding.kind].bad for finding in again):
                found = [_unended(index), *again]
                self._end_markers.report(self._images.paths[index])
        return found

    def _decode(self, index: int, content: bytes) -> list[Finding]:
        """Decode the content of the image at an index."""
        self._content = [np.frombuffer(content, np.uint8)]
        if self._pipeline is None:
            self._pipeline = checking_graph(Contents(lambda: self._content), self._alone, MAX_PIXELS)
            self._pipeline.build()
        try:
            _, sizes, signatures = self._pipeline.run()
        except RuntimeError as error:
            self._pipeline = None
            _raise_unless_data(error)
            return [Finding(index, UNDECODABLE, reason_of(str(error)))]
        (height, width), signature = np.array(sizes.at(0)), np.array(signatures.at(0))
        if int(height) * int(width) > MAX_PIXELS:
            return [Finding(index, HUGE, f"{width:,} x {height:,} pixels")]
        return self._judge(index, content, signature.tobytes())

    def _judge_batch(
        self, indices: Sequence[int], sizes: npt.NDArray[Any], signatures: npt.NDArray[Any]
    ) -> list[Finding]:
        """Findings about a decoded batch from its headers; larger images were not decoded yet, and are checked here."""
        pixels = sizes.astype(np.int64).prod(axis=1)
        fits = (pixels <= MAX_IN_A_BATCH_PIXELS).tolist()
        decoded = [
            (index, bytes(signature)) for index, signature, fit in zip(indices, signatures, fits, strict=True) if fit
        ]
        alone = [index for index, fit in zip(indices, fits, strict=True) if not fit]
        found: list[Finding] = []
        for (index, _), judged in [(image, self._pool.submit(self._judge_file, *image)) for image in decoded]:
            if isinstance(judged.exception(), OSError):  # it could be read a moment ago
                alone.append(index)
            else:
                found += judged.result()
        return [*found, *(self._check_each(alone) if alone else ())]

    def _judge_file(self, index: int, signature: bytes) -> list[Finding]:
        """Findings about a decoded image, which is read again. Raises OSError."""
        return self._judge(index, self._images.content(index), signature)

    def _judge(self, index: int, content: bytes, signature: bytes) -> list[Finding]:
        """Findings about a decoded image: its format, and damage that its decoder passes over."""
        path = self._images.paths[index]
        actual, found = format_of(signature), []
        expected = FORMAT_OF_EXTENSION.get(path[path.rfind(".") + 1 :].lower())
        # A file that its name gives away was looked at before it was opened.
        if actual != expected and actual in (TIFF, PNM) and (reason := misread_stream(BytesIO(content))):
            return [_file_finding(index, reason)]
        if expected is not None and actual != expected:
            found.append(Finding(index, FORMAT, f"a {actual} file" if actual else f"not a {expected} file"))
        if actual == "JPEG" and (reason := damage(content)):
            found.append(Finding(index, DAMAGED, reason))
        return found


def _raise_unless_data(error: RuntimeError) -> None:
    if not DATA_FAULT.search(str(error)):
        raise error


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _unended(index: int) -> Finding:
    return Finding(index, UNENDED, "the file ends after its last scan")


def _file_finding(index: int, reason: str) -> Finding:
    kind = {EMPTY_FILE: EMPTY, "no such file or directory": MISSING}.get(reason, UNREADABLE)
    kind = MISREAD if reason.endswith(WRONG_PIXELS) else kind
    return Finding(index, kind, reason)
