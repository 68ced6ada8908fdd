"""Caffe's LMDB databases of encoded images, as its convert_imageset writes them: a Datum message for each image.

Sources: src/caffe/proto/caffe.proto (Datum) and tools/convert_imageset.cpp of BVLC/caffe; http://www.lmdb.tech/doc. A
value's bytes lie in one piece in data.mdb, which LMDB maps into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np

from pipelines.packed.members import NO_LABEL, Member, ShardError, ShardFormat
from pipelines.packed.protobuf import Message

# Fields of a Datum.
_DATA, _LABEL, _ENCODED = 4, 5, 7
MAPS = Path("/proc/self/maps")


def scan(database: Path) -> Iterator[Member]:
    """The images of a database in the order of their keys; database is its data.mdb."""
    lmdb = _lmdb()
    try:
        # Nobody writes to it, so that it needs no lock, which would be a file beside it.
        environment = lmdb.open(str(database.parent), readonly=True, lock=False, subdir=True)
    except lmdb.Error as error:
        raise ShardError(f"LMDB can't read it: {error}") from error
    with environment, database.open("rb") as stream, environment.begin(buffers=True) as transaction:
        begin: int | None = None
        for key, value in transaction.cursor():
            address = np.frombuffer(value, np.uint8).__array_interface__["data"][0]
            begin = _begin_of_map(address) if begin is None else begin
            yield _member(stream, bytes(key), address - begin, len(value))


def _lmdb() -> ModuleType:
    try:
        # Only where it is used, as it need not be installed.
        import lmdb
    except ImportError as error:
        raise ShardError("the package lmdb, which reads it, is not installed", "pip install lmdb") from error
    return lmdb


def _begin_of_map(address: int) -> int:
    """Where in this process's memory the file begins that is mapped at an address."""
    for line in MAPS.read_text().splitlines():
        span, _, offset = line.split()[:3]
        begin, end = (int(text, 16) for text in span.split("-"))
        if begin <= address < end:
            return begin - int(offset, 16)
    raise ShardError("LMDB doesn't map it into memory")


def _member(stream: BinaryIO, key: bytes, offset: int, size: int) -> Member:
    name = key.decode("utf-8", "surrogateescape")
    stream.seek(offset)
    message = Message(stream, offset + size, "Datum")
    where, label, encoded = None, NO_LABEL, False
    for field, length, value in message.fields(offset + size):
        if field == _DATA:
            where = (message.place, length)
        elif field == _LABEL:
            label = value
        elif field == _ENCODED:
            encoded = bool(value)
    if where is None or not encoded:
        raise ShardError(
            f"the images are stored as pixels, such as that of {name!r}",
            "Make it again with convert_imageset --encoded, or name a folder of the images.",
        )
    return Member(name, label, *where)


LMDB = ShardFormat("lmdb", ("data.mdb",), scan)
