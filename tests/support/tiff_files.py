"""TIFF and PNM files written by hand, of kinds that no library writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.int64]
BLACK_IS_0, RGB, PALETTE, CIELAB = 1, 2, 3, 8
PLANAR = (284, 3, [2])


def tiff(
    pixels: Pixels,
    photometric: int,
    bits: int = 8,
    *,
    order: str = "<",
    big: bool = False,
    more: Sequence[tuple[int, int, list[int]]] = (),
) -> bytes:
    """An uncompressed TIFF of unsigned pixels [height, width, channels], of 8 or 16 bits.

    order is that of its bytes, "<" or ">"; big: as BigTIFF, with 64-bit places. more are further fields: tag, type (3
    for 16-bit values) and values; with PLANAR, channels follow one another.
    """
    height, width, channels = pixels.shape
    planes = np.moveaxis(pixels, 2, 0) if PLANAR in more else pixels[np.newaxis]
    strips = [plane.astype(f"{order}u{bits // 8}").tobytes() for plane in planes]
    offset, count, codes = ("Q", "Q", {3: "H", 4: "I", 16: "Q"}) if big else ("I", "H", {3: "H", 4: "I"})
    place = 16 if big else 4
    fields = [
        (256, 3, [width]), (257, 3, [height]), (258, 3, [bits] * channels), (259, 3, [1]), (262, 3, [photometric]),
        (273, place, [0] * len(strips)), (277, 3, [channels]), (278, 3, [height]), (279, place, list(map(len, strips))),
        *more,
    ]  # fmt: skip
    fields.sort()
    begin = 16 if big else 8
    room = struct.calcsize(offset)
    behind = begin + struct.calcsize(f"={count}") + len(fields) * (4 + 2 * room) + room
    sizes = {tag: len(values) * struct.calcsize(codes[kind]) for tag, kind, values in fields}
    data = behind + sum(size for size in sizes.values() if size > room)
    places = [data + sum(map(len, strips[:index])) for index in range(len(strips))]
    entries, outside = b"", b""
    for tag, kind, values in fields:
        content = struct.pack(f"{order}{len(values)}{codes[kind]}", *(places if tag == 273 else values))
        if len(content) > room:
            content, outside = struct.pack(order + offset, behind + len(outside)), outside + content
        entries += struct.pack(f"{order}HH{offset}", tag, kind, len(values)) + content.ljust(room, b"\0")
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(f"{order}HHHQ", 43, 8, 0, begin) if big else struct.pack(f"{order}HI", 42, begin)
    number = struct.pack(order + count, len(fields))
    return head + number + entries + bytes(room) + outside + b"".join(strips)


def pnm(pixels: Pixels, kind: int, maximum: int) -> bytes:
    """A PNM of kind 2, 3 (text), 5 or 6 (bytes) of pixels [height, width, 1 or 3] from 0 to maximum."""
    height, width, _ = pixels.shape
    head = f"P{kind} # made by a test\n{width}\n# 100\n{height} {maximum}\n".encode()
    if kind < 4:
        return head + " ".join(map(str, pixels.ravel().tolist())).encode() + b"\n"
    return head + pixels.astype(">u2" if maximum > 255 else "u1").tobytes()
