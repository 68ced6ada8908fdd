"""What is in a JPEG behind its header: whole, damaged though it decodes, or without the marker at its end.

Some phones and programs leave the end marker out. libjpeg and browsers show such an image whole; DALI's decoder refuses
it. Markers and scans are those of ITU-T T.81.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from models.notes import Note
from pipelines.image_lists import shown
from pipelines.settings import MAX_PIXELS

START_OF_IMAGE, END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
# Frames of Huffman-coded samples of 8 bits: baseline, extended sequential, progressive. Others aren't decoded.
FRAMES, PROGRESSIVE = (0xC0, 0xC1, 0xC2), 0xC2
END, SCAN = 0xD9, 0xDA
# A marker that ends the coded data of a scan: neither a stuffed zero nor a restart marker nor a fill byte.
AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
COEFFICIENTS = 64
# What libjpeg says about coded data that is cut off or makes no sense, with its own spelling.
DAMAGE = re.compile("premature end of data segment|bad Huffman code|instead of RST|bad progression|Invalid progressive")
# Colours that can't be made grey.
FOUR_COLOURS = ("CMYK", "YCCK")


def with_end(content: bytes) -> bytes | None:
    """The content of a JPEG that lacks only its end marker, with one; None for any other file.

    It lacks only that if every scan that its frame needs is there, and the last one is whole: libjpeg, which warns
    when it needs bits that a file doesn't have, decodes it without a word. Images of more than MAX_PIXELS are not
    decoded, and are other files, too.
    """
    content = content.rstrip(b"\xff")
    if not _ends_in_last_scan(content):
        return None
    ended = content + END_OF_IMAGE
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(ended)
    except ValueError:
        return None
    return None if height * width > MAX_PIXELS or _complaint(ended) else ended


def damage(content: bytes) -> str:
    """What libjpeg reports about bits that a JPEG lacks or that mean nothing, which decoders fill in; empty for none.

    Other oddities, such as extra bytes between its parts, are not damage.
    """
    complaint = _complaint(content)
    return complaint if DAMAGE.search(complaint) else ""


def _complaint(content: bytes) -> str:
    """What libjpeg's strict reading ends with; empty if it ends well."""
    try:
        colours = simplejpeg.decode_jpeg_header(content)[2]
        # All of its bits are read for an image of an eighth of the size, too.
        simplejpeg.decode_jpeg(
            content,
            colorspace="CMYK" if colours in FOUR_COLOURS else "GRAY",
            min_height=1,
            min_width=1,
            min_factor=8,
            fastdct=True,
            strict=True,
        )
    except ValueError as error:
        return str(error)
    return ""


def _ends_in_last_scan(content: bytes) -> bool:
    """Whether a JPEG's last scan goes on to the end of the file, and none is missing."""
    if not content.startswith(START_OF_IMAGE):
        return False
    scans = _Scans()
    place = len(START_OF_IMAGE)
    while place + 4 <= len(content) and content[place] == 0xFF:
        code, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if code == 0xFF:  # a fill byte
            place += 1
            continue
        segment, after = content[place + 4 : place + 2 + length], place + 2 + length
        if code == END or after > len(content):
            return False
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC) and not scans.frame(code, segment):
            return False
        if code == SCAN:
            if not scans.add(segment):
                return False
            marker = AFTER_SCAN.search(content, after)
            if marker is None:
                return scans.complete()
            after = marker.start()
        place = after
    return False


@dataclass(slots=True)
class _Scans:
    """Which bits of which coefficients the scans so far have, by component: the lowest bit of each, None for none."""

    progressive: bool = False
    lowest: dict[int, list[int | None]] = field(default_factory=dict)

    def frame(self, code: int, segment: bytes) -> bool:
        """Begin with this frame header. Returns whether it is one of those that are decoded, and the first."""
        if code not in FRAMES or self.lowest or len(segment) < 6 or len(segment) != 6 + 3 * segment[5]:
            return False
        self.progressive = code == PROGRESSIVE
        self.lowest = {segment[6 + 3 * number]: [None] * COEFFICIENTS for number in range(segment[5])}
        return bool(self.lowest)

    def add(self, segment: bytes) -> bool:
        """Add the scan of this header. Returns whether the header is one of the frame's."""
        components = segment[1 : 1 + 2 * segment[0] : 2] if segment else b""
        if not components or len(segment) != 4 + 2 * len(components) or not self.lowest.keys() >= set(components):
            return False
        first, last, bits = segment[-3], segment[-2], segment[-1] & 15
        if not self.progressive:
            first, last, bits = 0, COEFFICIENTS - 1, 0
        for component in components:
            self.lowest[component][first : last + 1] = [bits] * (min(last, COEFFICIENTS - 1) + 1 - first)
        return True

    def complete(self) -> bool:
        """Returns whether all coefficients of all components are there to the last bit."""
        return all(bits == 0 for lowest in self.lowest.values() for bits in lowest)


class Copy:
    """A copy of an image in memory, which has a path for as long as it is not closed."""

    def __init__(self, content: bytes) -> None:
        self._descriptor = os.memfd_create("image")
        try:
            os.write(self._descriptor, content)
        except OSError:
            self.close()
            raise

    @property
    def path(self) -> str:
        """Where this process finds the copy."""
        return f"/proc/self/fd/{self._descriptor}"

    def close(self) -> None:
        """Let go of the copy's memory."""
        os.close(self._descriptor)


def close_all(copies: Iterable[Copy]) -> None:
    """Let go of the memory of these copies."""
    for copy in copies:
        copy.close()


def copy_with_end(path: str) -> Copy | None:
    """A copy with an end marker if the file is a JPEG that lacks only that (see `with_end`), else None.

    None, too, if the file or memory for the copy can't be had.
    """
    with suppress(OSError, ValueError):
        with Path(path).open("rb") as stream:
            stream.seek(-len(END_OF_IMAGE), os.SEEK_END)
            if stream.read() == END_OF_IMAGE:
                return None
            stream.seek(0)
            ended = with_end(stream.read())
        return None if ended is None else Copy(ended)
    return None


@dataclass(slots=True)
class EndMarkers:
    """Replaces JPEGs that lack only their end marker by copies in memory that have it.

    Files are looked at only after the first such image was reported. say gets one line about that.
    """

    say: Callable[[str], None] = lambda _: None
    _found: bool = False

    def report(self, path: str) -> bool:
        """Note that an image lacks only its end marker. Returns whether it is the first."""
        if self._found:
            return False
        self._found = True
        # Each copy of the batches to come is an open file.
        with suppress(OSError, ValueError):
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.say(
            Note(
                f"{shown(path)} lacks the marker at a JPEG's end; its pixels are whole, so that it is used, as are"
                " others like it, which run_bench.py verify lists",
                "Fetch the files again that run_bench.py verify lists.",
            )
        )
        return True

    def completed(self, content: npt.NDArray[np.uint8]) -> bytes | None:
        """The content of an image with an end marker, if that is all that it lacks; None for any other image."""
        if not self._found or content[-len(END_OF_IMAGE) :].tobytes() == END_OF_IMAGE:
            return None
        return with_end(content.tobytes())

    def copies(self, paths: Iterable[str]) -> dict[str, Copy]:
        """Copies of those images among the paths that lack only their end marker. The caller closes them."""
        if not self._found:
            return {}
        return {path: copy for path in set(paths) if (copy := copy_with_end(path)) is not None}
