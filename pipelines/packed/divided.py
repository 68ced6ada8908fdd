"""RecordIO's records of several parts: bytes in which its magic number stands at the place of a word are cut there."""

from __future__ import annotations

import struct

MAGIC = struct.pack("<I", 0xCED7230A)
# The magic number and a word with the part's kind and length.
HEADER_BYTES, WORD_BYTES = 8, 4


def joined(content: bytes, offset: int) -> bytes:
    """The bytes of an image of several parts; content has the headers between them, offset is its place in the file."""
    parts = []
    place = 0
    # The first part's length stands before its content, but it ends where a header with the magic number follows.
    while True:
        header = content.find(MAGIC, place)
        while header >= 0 and (offset + header) % WORD_BYTES:
            header = content.find(MAGIC, header + 1)
        if header < 0:
            parts.append(content[place:])
            return MAGIC.join(parts)
        parts.append(content[place:header])
        place = header + HEADER_BYTES
