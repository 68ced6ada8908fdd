"""Arrays from an untrusted pickle: a reader of only those operations with which weights are written.

Python's own unpickler imports what the file names. Even if that is prevented, a deeply nested tuple as a dictionary's
key can crash the process, one that shares its parts can take forever to hash, and any memo index or length that the
file claims is allocated. So this reader calls nothing that a file names, has only the operations that `paddle.save` and
numpy need, and takes memory in proportion to the file.
"""

from __future__ import annotations

import io
import math
import pickletools  # only to identify operations and read their arguments
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

# An array takes 15 to 50; PaddleClas's largest model has about 2000 arrays.
MAX_OPERATIONS = 200_000
MAX_DIMENSIONS = 8
MAX_BYTES = 1 << 31  # of a file; 20 times the largest size with 20,000 classes
MAX_SHOWN = 60
# What `paddle.save` adds to a state_dict: Paddle's own names, and how arrays above 1 GiB were split.
NAMES, SPLIT = "StructuredToParameterName@@", "UnpackBigParamInfor@@"
CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})


class RefusedError(Exception):
    """The file holds something other than weights; the text completes a sentence that begins with the file's name."""


class _Named(Enum):
    """The names that a file may use, each with its meaning here."""

    RECONSTRUCT = "an array, empty until its state comes"
    FROMBUFFER = "an array of given bytes"
    NDARRAY = "the kind of an array"
    DTYPE = "the kind of an element"
    ENCODE = "bytes that were written as text"
    TUPLE = "a tensor in Paddle: its name and its values"
    ORDERED_DICT = "a dictionary"


_KNOWN = {
    ("numpy", "ndarray"): _Named.NDARRAY,
    ("numpy", "dtype"): _Named.DTYPE,
    ("_codecs", "encode"): _Named.ENCODE,
    ("builtins", "tuple"): _Named.TUPLE,
    ("__builtin__", "tuple"): _Named.TUPLE,
    ("collections", "OrderedDict"): _Named.ORDERED_DICT,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Named.RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Named.FROMBUFFER for core in ("core", "_core")},
}
_ARGUMENTS = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHERS = {"PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BYTEARRAY8", "GLOBAL", "STOP"}
_BY_CODE = {one.code.encode("latin1"): one for one in pickletools.opcodes}


class _Dtype:
    """The kind of an array's elements; the state that follows may reverse the order of their bytes."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


class _Array:
    """An array that is being built; the file's own bytes are its memory."""

    def __init__(self) -> None:
        self.values: npt.NDArray[Any] | None = None

    def fill(self, shape: Any, dtype: Any, fortran: bool, raw: bytes) -> None:
        if not isinstance(dtype, _Dtype) or type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
            raise RefusedError("has an array that does not consist of numbers")
        if not all(type(side) is int and 0 <= side < MAX_BYTES for side in shape):
            raise RefusedError("has an array with an impossible shape")
        if math.prod(shape) * dtype.dtype.itemsize != len(raw):
            raise RefusedError(f"has an array with the shape {shown_shape(shape)} and {len(raw):,} bytes for it")
        self.values = np.ndarray(shape, dtype.dtype, raw, order="F" if fortran else "C")


def read_pickle(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a pickled dictionary, by name, without running anything.

    Protocols 2 to 5 are accepted, with values that are arrays or Paddle's tensors. The arrays share the memory of data
    and can't be written to. Raises RefusedError for anything else.
    """
    entries = _Machine(len(data)).run(data)
    if type(entries) is not dict:
        raise RefusedError(f"holds {_kind(entries)}, not a dictionary of arrays")
    if SPLIT in entries:
        raise RefusedError("has arrays in several pieces, as paddle.save with protocol 2 or 3 writes those above 1 GiB")
    entries.pop(NAMES, None)
    if not entries:
        raise RefusedError("holds an empty dictionary")
    arrays = {name: _array(name, value) for name, value in entries.items()}
    if sum(values.nbytes for values in arrays.values()) > len(data):
        raise RefusedError("has the same bytes in several arrays")
    return arrays


def shown(text: str) -> str:
    """A name from the file, quoted, on one line of bounded length."""
    return repr(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!r}..."


def shown_shape(shape: tuple[int, ...]) -> str:
    """A shape for a message, such as "3 x 3"."""
    return " x ".join(map(str, shape)) or "a single number"


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    if type(value) is tuple and len(value) == 2 and type(value[0]) is str:
        value = value[1]
    if not isinstance(value, _Array) or value.values is None:
        raise RefusedError(f"has {_kind(value)} as {shown(name)}, not an array")
    return value.values


def _kind(value: Any) -> str:
    kinds = {dict: "a dictionary", list: "a list", tuple: "a tuple", str: "a text", bytes: "bytes", type(None): "None"}
    return kinds.get(type(value), f"{value!r:.20}" if isinstance(value, int | float) else "something unfinished")


def _operations(data: bytes) -> Iterator[tuple[str, Any]]:
    """A pickle's operations with their arguments, up to its end.

    Raises RefusedError for operations that weights don't need, before their arguments are read, and ValueError for data
    that end too early.
    """
    stream = io.BytesIO(data)
    while True:
        operation = _BY_CODE.get(stream.read(1))
        if operation is None:
            raise ValueError("no operation")
        name = operation.name
        if name not in _ADMITTED:
            raise RefusedError(f"asks for operation {name} of pickle at byte {stream.tell() - 1}, which no array needs")
        if name == "STOP":
            break
        if name == "GLOBAL":
            # pickletools would take a backslash for more than that.
            yield name, [stream.readline().rstrip(b"\n").decode() for _ in range(2)]
        else:
            argument: Any = operation.arg.reader(stream) if operation.arg is not None else None
            if name == "FRAME" and argument > len(data) - stream.tell():
                raise ValueError("a frame beyond the end")
            yield name, argument
    excess = len(data) - stream.tell()
    if excess:
        raise RefusedError(f"has {excess:,} more bytes after the end of its pickle")


class _Machine:
    """Pickle's stack machine, in which names are only names and nothing is called."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # Bytes that are written as text are in the file, each at least once.
        self._encodable = size

    def run(self, data: bytes) -> Any:
        """The object that the pickle describes."""
        try:
            for count, (name, argument) in enumerate(_operations(data)):
                if count >= MAX_OPERATIONS:
                    raise RefusedError(f"takes more than {MAX_OPERATIONS:,} operations to read")
                self._step(name, argument)
            return self.pop(1)[0]
        # Data that end early, and impossible lengths or texts.
        except (ValueError, IndexError, OverflowError) as error:
            raise RefusedError("is cut short or damaged: its pickle breaks off") from error

    def _step(self, name: str, argument: Any) -> None:
        """Carry out an operation."""
        if name in _ACTIONS:
            _ACTIONS[name](self)
        elif name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self.pop(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.remember(argument)
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise RefusedError("is damaged: it refers to an object that it does not have")
            self.stack.append(self.memo[argument])
        elif name == "BYTEARRAY8":
            self.stack.append(bytes(argument))
        elif name == "GLOBAL":
            self.name(*argument)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise RefusedError("is damaged: its pickle takes more objects than it has")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def marked(self) -> list[Any]:
        begin = self.marks.pop()
        taken = self.stack[begin:]
        del self.stack[begin:]
        return taken

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def set(self, items: list[Any]) -> None:
        entries = self.stack[-1]
        if type(entries) is not dict or len(items) % 2:
            raise RefusedError("is damaged: it sets entries of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys would be hashed, which can take forever for a tuple of tuples.
            if type(key) is not str:
                raise RefusedError(f"has an entry whose name is {_kind(key)}, not a text")
            entries[key] = value

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedError("is damaged: it adds to something that is not a list")
        self.stack[-1].extend(items)

    def name(self, module: Any, attribute: Any) -> None:
        if type(module) is not str or type(attribute) is not str or (module, attribute) not in _KNOWN:
            named = shown(f"{module}.{attribute}") if type(module) is type(attribute) is str else "something"
            raise RefusedError(f"names {named}, which is code and not part of weights; none of it was run")
        self.stack.append(_KNOWN[module, attribute])

    def reduce(self, what: Any, arguments: Any) -> Any:
        """The object that calling a name with these arguments would return."""
        match what, arguments:
            case _Named.RECONSTRUCT, (_Named.NDARRAY, *_):
                return _Array()
            case _Named.FROMBUFFER, (bytes() as raw, dtype, shape, order):
                array = _Array()
                array.fill(shape, dtype, order == "F", raw)
                return array
            case _Named.DTYPE, (str() as code, *_):
                if code not in CODES:
                    raise RefusedError(f"has an array of kind {shown(code)}, not of numbers")
                return _Dtype(code)
            case _Named.ENCODE, (str() as text, "latin1"):
                return self._bytes(text)
            case _Named.TUPLE, (tuple() as values,):
                return values
            case _Named.ORDERED_DICT, ():
                return {}
        raise RefusedError("calls something in a way that does not make an array")

    def build(self, state: Any) -> None:
        match self.stack[-1], state:
            case _Array() as array, (1, shape, dtype, bool() | 0 | 1 as fortran, bytes() | str() as raw):
                array.fill(shape, dtype, bool(fortran), raw if isinstance(raw, bytes) else self._bytes(raw))
            case _Dtype() as kind, (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
                kind.dtype = kind.dtype.newbyteorder(order)
            case _:
                raise RefusedError("sets the state of something that is not an array")

    def _bytes(self, text: str) -> bytes:
        """The bytes that protocol 2 writes as text."""
        self._encodable -= len(text)
        if self._encodable < 0:
            raise RefusedError("has the same bytes in several arrays")
        return text.encode("latin1")


_ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.marks.append(len(machine.stack)),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.marked())),
    "SETITEM": lambda machine: machine.set(machine.pop(2)),
    "SETITEMS": lambda machine: machine.set(machine.marked()),
    "APPEND": lambda machine: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine: machine.extend(machine.marked()),
    "MEMOIZE": lambda machine: machine.remember(len(machine.memo)),
    "STACK_GLOBAL": lambda machine: machine.name(*machine.pop(2)),
    "REDUCE": lambda machine: machine.stack.append(machine.reduce(*machine.pop(2))),
    "BUILD": lambda machine: machine.build(*machine.pop(1)),
}
_ADMITTED = {*_ARGUMENTS, *_CONSTANTS, *_TUPLES, *_OTHERS, *_ACTIONS}
