"""Files of every kind that a data set may hold by mistake, and what is to come of each."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 90, 120

START_OF_FRAME, START_OF_SCAN = b"\xff\xc0", b"\xff\xda"
QUANTISATION_TABLE, HUFFMAN_TABLE = b"\xff\xdb", b"\xff\xc4"
# Places of the fields in a frame header, from its marker: 2 bytes of marker, 2 of length, then these.
PRECISION, SIZE, COMPONENTS = 4, 5, 9


def picture(seed: int = 1, mode: str = "RGB") -> Image.Image:
    """Soft blotches of 90 x 120 pixels, another picture for each seed."""
    blotches = np.random.default_rng(seed).integers(0, 256, (10, 13, 3), dtype=np.uint8)
    return Image.fromarray(blotches).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    """The image as a file's content."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def good() -> bytes:
    """A JPEG that nothing is wrong with."""
    return encoded(picture(), quality=90)


def changed(content: bytes, place: int, by: bytes) -> bytes:
    """The content with other bytes at a place."""
    return content[:place] + by + content[place + len(by) :]


def _flipped_scan() -> bytes:
    content = bytearray(good())
    for place in range(content.index(START_OF_SCAN) + 40, len(content) - 10, 37):
        content[place] ^= 0x55
    return bytes(content)


def _without_last_scan(content: bytes) -> bytes:
    return content[: content.rindex(START_OF_SCAN)]


def _animated_gif() -> bytes:
    return encoded(picture(), "GIF", save_all=True, append_images=[picture(2), picture(3)])


def _png_16_bits() -> bytes:
    levels = np.random.default_rng(2).integers(0, 65536, (60, 80), dtype=np.uint16)
    return encoded(Image.fromarray(levels), "PNG")


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned clockwise by a quarter
    return encoded(picture(), exif=exif)


@cache
def contents() -> dict[str, bytes]:
    """What is in each kind of file, by the kind's name."""
    jpeg, png, webp, bmp = good(), encoded(picture(), "PNG"), encoded(picture(), "WEBP"), encoded(picture(), "BMP")
    frame, scan = jpeg.index(START_OF_FRAME), jpeg.index(START_OF_SCAN)
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    return {
        "empty": b"",
        "cut-in-magic": jpeg[:1],
        "cut-after-magic": jpeg[:2],
        "cut-before-frame": jpeg[:frame],
        "cut-in-frame": jpeg[: frame + 6],
        "cut-before-scan": jpeg[:scan],
        "cut-at-scan-start": jpeg[: scan + 20],
        "cut-and-ended": jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "cut-at-half": jpeg[: len(jpeg) // 2],
        "cut-near-end": jpeg[: -len(jpeg) // 20],
        "cut-end-marker": jpeg[:-2],
        "cut-in-end-marker": jpeg[:-1],
        "cut-last-byte": jpeg[:-3],
        "progressive-cut-end-marker": encoded(picture(), progressive=True)[:-2],
        "progressive-cut-last-scan": _without_last_scan(encoded(picture(), progressive=True)),
        "text": b"hello world\n" * 40,
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 10,
        "random": noise,
        "zeros": bytes(5000),
        "flipped-scan": _flipped_scan(),
        "flipped-components": changed(jpeg, frame + COMPONENTS, b"\x07"),
        "flipped-quantisation": changed(jpeg, jpeg.index(QUANTISATION_TABLE) + 3, b"\xc8"),
        "flipped-huffman": changed(jpeg, jpeg.index(HUFFMAN_TABLE) + 2, b"\xff"),
        "cmyk": encoded(picture(mode="CMYK")),
        "grey": encoded(picture(mode="L")),
        "progressive": encoded(picture(), progressive=True),
        "turned": _turned(),
        "one-pixel": encoded(Image.new("RGB", (1, 1), (9, 9, 9))),
        "trailing-bytes": jpeg + noise,
        "huge": changed(jpeg, frame + SIZE, struct.pack(">HH", 30_000, 30_000)),
        "no-height": changed(jpeg, frame + SIZE, struct.pack(">HH", 0, WIDTH)),
        "12-bit": changed(jpeg, frame + PRECISION, b"\x0c"),
        "arithmetic": changed(jpeg, frame + 1, b"\xc9"),
        "lossless": changed(jpeg, frame + 1, b"\xc3"),
        "png": png,
        "png-16-bit": _png_16_bits(),
        "png-alpha": encoded(picture(mode="RGBA"), "PNG"),
        "png-cut": png[: len(png) // 2],
        "png-cut-in-header": png[:20],
        "png-flipped": changed(png, len(png) // 2, bytes([png[len(png) // 2] ^ 255])),
        "gif": _animated_gif(),
        "webp": webp,
        "webp-cut": webp[: len(webp) // 2],
        "bmp": bmp,
        "bmp-cut": bmp[:2000],
        "tiff": encoded(picture(), "TIFF"),
        "jp2-broken": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(500),
    }


HEADER = "its header is broken or cut off"
PIXELS = "its pixels can't be decoded: damaged or cut off"
OTHER = "not an image format that DALI decodes"

# The reason why DALI can't decode a content; the others it can.
UNDECODABLE = {
    **dict.fromkeys(
        ("cut-at-scan-start", "cut-at-half", "cut-near-end", "12-bit", "cut-last-byte", "progressive-cut-last-scan"),
        PIXELS,
    ),
    **dict.fromkeys(("lossless", "png-flipped", "webp-cut", "bmp-cut"), PIXELS),
    **dict.fromkeys(("cut-after-magic", "cut-before-frame", "cut-in-frame", "cut-before-scan"), HEADER),
    **dict.fromkeys(("flipped-components", "flipped-quantisation", "flipped-huffman"), HEADER),
    **dict.fromkeys(("png-cut", "png-cut-in-header", "jp2-broken"), HEADER),
    **dict.fromkeys(("cut-in-magic", "text", "html", "random", "zeros", "gif"), OTHER),
    "huge": "it has more than 178,956,970 pixels",
    # A decoder's first image fails another way than its later ones.
    "no-height": f"{HEADER}|{PIXELS}",
}
# Contents that train from a copy that has what they lack.
UNENDED = ("cut-end-marker", "cut-in-end-marker", "progressive-cut-end-marker")
# Contents that decode, though some of their bits are missing.
DAMAGED = ("cut-and-ended",)
# Contents that are images, but no JPEGs, and what each is.
OTHER_FORMATS = {
    **dict.fromkeys(("png", "png-16-bit", "png-alpha"), "PNG"),
    "webp": "WebP",
    "bmp": "BMP",
    "tiff": "TIFF",
}


@dataclass(frozen=True)
class Kind:
    """A file of a kind: its name in the folder, what puts it there, and what is to come of it.

    fault is a regular expression of the reason why it is left out, "" where it trains. verdict is the kind that verify
    reports, "" for none. looked_at says that a look at the file without opening it tells the fault.
    """

    name: str
    write: Callable[[Path], object]
    fault: str = ""
    verdict: str = ""
    looked_at: bool = False

    def __str__(self) -> str:
        return ascii(self.name[:40])


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _of_content(name: str, content: bytes) -> Kind:
    if name == "empty":
        return Kind("empty.jpg", partial(_put, content), "0 bytes", "empty", looked_at=True)
    fault = UNDECODABLE.get(name, "")
    verdict = "undecodable" if fault else "format" if name in OTHER_FORMATS else ""
    if name == "huge":
        verdict = "huge"
    elif name in UNENDED:
        verdict = "no_end_marker"
    elif name in DAMAGED:
        verdict = "damaged"
    return Kind(f"{name}.jpg", partial(_put, content), fault, verdict)


def _put_closed(path: Path) -> None:
    path.write_bytes(good())
    path.chmod(0)


LOOKED_AT = (
    Kind("missing.jpg", lambda path: None, "no such file or directory", "missing", looked_at=True),
    Kind("folder.jpg", Path.mkdir, "not a regular file", "unreadable", looked_at=True),
    Kind("pipe.jpg", os.mkfifo, "not a regular file", "unreadable", looked_at=True),
    Kind("loop.jpg", lambda path: path.symlink_to(path.name), "too many levels of symbolic links", "unreadable", True),
    Kind("dangling.jpg", lambda path: path.symlink_to("nothing"), "no such file or directory", "missing", True),
    Kind("l" * 300 + ".jpg", lambda path: None, "file name too long", "unreadable", looked_at=True),
    Kind("no\0file.jpg", lambda path: None, "not a possible file name", "unreadable", looked_at=True),
)
CLOSED = Kind("closed.jpg", _put_closed, "permission denied", "unreadable", looked_at=True)
ODD_NAMES = tuple(
    Kind(name, partial(_put, good()))
    for name in (
        "two\nlines.jpg",
        "=1+1 <script>alert('x')</script> \"quoted\" [bold].jpg".replace("/", "\u2215"),
        "@+-é中\u202e.jpg",
        os.fsdecode(b"not utf8 \xff\xfe.jpg"),
    )
)


def kinds() -> list[Kind]:
    """All of them."""
    closed = () if os.geteuid() == 0 else (CLOSED,)
    return [*(_of_content(*item) for item in contents().items()), *LOOKED_AT, *closed, *ODD_NAMES]
