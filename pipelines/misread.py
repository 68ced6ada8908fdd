"""Images that DALI decodes without an error to pixels that they don't have: known from the headers of PNM and TIFF.

Found by trial with DALI 2.4 (tests/pipelines/test_misread.py tries each kind): it scales no PNM whose maximum isn't
that of its bytes, takes CIELAB for red, green and blue and two channels for three, and inverts nothing of more than 8
bits.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

PNM_ENDINGS, TIFF_ENDINGS = (".ppm", ".pgm", ".pnm", ".pbm"), (".tif", ".tiff")
_ENDINGS = (*PNM_ENDINGS, *TIFF_ENDINGS)
# The last letters of these, by which most other names are told from them in no time.
ENDS_OF_MISREAD = ("m", "M", "f", "F")
# All reasons end so.
WRONG_PIXELS = "so that DALI would read wrong pixels"

# A PNM's header: its kind, two sizes and the maximum (which P1 and P4 lack), with white space or comments between.
# Comments may be of any length, so that a header is looked for in the first kilobytes alone.
_PNM_HEADER_BYTES = 8192
_BETWEEN = rb"(?:\s|#[^\n\r]*[\n\r])+"
_PNM_HEADER = re.compile(rb"P([2356])" + (_BETWEEN + rb"(\d{1,18})") * 3 + rb"(\s|#|\Z)")
_ASCII = (b"2", b"3")
# Their pixels are off by less than one grey level of 256.
_RIGHT_MAXIMA = (*range(254, 256), *range(65_280, 65_536))

_CLASSIC, _BIG = 42, 43
_MAX_ENTRIES = 4096
_BITS, _PHOTOMETRIC, _SAMPLES = 258, 262, 277
_WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _CIELAB = 0, 1, 2, 3, 8
# The types of values that these fields have, as struct has them: bytes, 16, 32 and 64 bits.
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


def may_be_misread(name: str) -> bool:
    """Whether a name is that of a PNM or a TIFF file."""
    return name[-5:].lower().endswith(_ENDINGS)


def fault_of_pixels(path: str) -> str:
    """Why DALI would decode a file to wrong pixels; empty for names of other formats, without opening the file."""
    return misread(path) if may_be_misread(path) else ""


def misread(path: str) -> str:
    """Why DALI would decode a PNM or TIFF file to wrong pixels, or why the file can't be opened; else empty."""
    try:
        with Path(path).open("rb") as stream:
            return misread_stream(stream)
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()


def misread_stream(stream: BinaryIO) -> str:
    """Why DALI would decode a PNM or TIFF file to wrong pixels; else empty. Raises OSError."""
    head = stream.read(_PNM_HEADER_BYTES)
    reason = _tiff(head, stream) if head[:2] in (b"II", b"MM") else _pnm(head)
    return f"{reason}, {WRONG_PIXELS}" if reason else ""


def _pnm(head: bytes) -> str:
    header = _PNM_HEADER.match(head)
    if header is None:
        return ""
    kind, maximum, after = header[1], int(header[4]), header[5]
    if after == b"#":
        return "a PNM with a comment at its maximum"
    if maximum in _RIGHT_MAXIMA or (kind in _ASCII and maximum < 255):
        return ""
    return f"a PNM with a maximum of {maximum:,}"


def _tiff(head: bytes, stream: BinaryIO) -> str:
    try:
        fields = _fields(head, stream)
    except (struct.error, KeyError):  # DALI reports what is wrong with such a file
        return ""
    photometric, samples, bits = fields.get(_PHOTOMETRIC), fields.get(_SAMPLES, 1), fields.get(_BITS, 1)
    if photometric == _CIELAB:
        return "a TIFF in CIELAB"
    if photometric == _WHITE_IS_0 and bits > 8:
        return f"a TIFF of {bits} bits with white as 0"
    if photometric == _BLACK_IS_0 and samples > 1:
        return f"a grey TIFF of {samples:,} channels"
    if photometric == _PALETTE and samples > 1:
        return f"a TIFF with a palette and {samples:,} channels"
    if photometric == _RGB and samples == 2:
        return "a TIFF of two colours"
    return ""


def _fields(head: bytes, stream: BinaryIO) -> Mapping[int, int]:
    """The first value of each field of a TIFF's first image that is looked at. Raises struct.error and KeyError."""
    order = "<" if head.startswith(b"II") else ">"
    (version,) = struct.unpack_from(f"{order}H", head, 2)
    if version not in (_CLASSIC, _BIG):
        return {}
    big = version == _BIG
    offset, count = ("Q", "Q") if big else ("I", "H")
    (place,) = struct.unpack_from(order + offset, head, 8 if big else 4)
    (entries,) = struct.unpack(order + count, _read_at(stream, place, struct.calcsize(count)))
    entry = struct.Struct(f"{order}HH{offset}{struct.calcsize(offset)}s")
    content = stream.read(entry.size * min(entries, _MAX_ENTRIES))
    found: dict[int, int] = {}
    for tag, kind, values, inline in entry.iter_unpack(content[: len(content) // entry.size * entry.size]):
        if tag not in (_BITS, _PHOTOMETRIC, _SAMPLES):
            continue
        code = _TYPES[kind]
        if values * struct.calcsize(code) > len(inline):
            inline = _read_at(stream, struct.unpack(order + offset, inline)[0], struct.calcsize(code))
        (found[tag],) = struct.unpack_from(order + code, inline)
    return found


def _read_at(stream: BinaryIO, place: int, size: int) -> bytes:
    """Returns this number of bytes from a place in the file on. Raises struct.error if the file ends before."""
    if place + size > stream.seek(0, os.SEEK_END):
        raise struct.error("the file ends before")
    stream.seek(place)
    return stream.read(size)
