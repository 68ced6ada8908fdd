"""Pickles that are no weights, crafted or damaged: each is refused, and none of them does anything."""

from __future__ import annotations

import copyreg
import operator
import os
import pickle
import struct
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.errors import WeightsError
from models.pickled import MAX_OPERATIONS, RefusedError, read_pickle
from models.weights import read_weights

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)
HEAD = b"\x80\x02"  # protocol 2


class Calls:
    """Pickled, it is a call of what is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Subclass(np.ndarray[Any, Any]):
    """An array whose state, on loading, makes a folder."""

    def __setstate__(self, state: Any) -> None:
        Path(os.environ["TRAP"]).mkdir()


class Remembered:
    """Pickled as a number of the registry of extensions."""


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there once anything ran."""
    path = tmp_path / "ran"
    monkeypatch.setenv("TRAP", str(path))
    return path


def refused(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "crafted.pdparams"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert caught.value.message.startswith(f"{str(path)!r} ")
    assert caught.value.cure
    return caught.value.message.removeprefix(f"{str(path)!r} ")


def make_folder(path: str) -> list[Any]:
    """Calls that make the folder when Python's own unpickler loads them."""
    reached = Calls(operator.attrgetter("mkdir"), Calls(__import__, "os"))
    return [
        Calls(os.mkdir, path),
        Calls(os.system, f"mkdir {path}"),
        Calls(eval, f"__import__('os').mkdir({path!r})"),
        Calls(exec, f"import os; os.mkdir({path!r})"),
        Calls(operator.methodcaller("mkdir", path), Calls(__import__, "os")),
        {"fc.weight": ARRAY, "fc.bias": Calls(os.mkdir, path)},
        OrderedDict(a=("fc.weight", Calls(os.mkdir, path))),
        [reached, Calls(os.mkdir, path)],
    ]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("which", range(8))
def test_code_is_named_and_not_run(tmp_path: Path, trap: Path, protocol: int, which: int) -> None:
    data = pickle.dumps(make_folder(str(trap))[which], protocol)
    pickle.loads(data)
    assert trap.exists()
    trap.rmdir()
    assert "which is code and not part of weights; none of it was run" in refused(tmp_path, data)
    assert not trap.exists()


def test_the_name_is_told(tmp_path: Path, trap: Path) -> None:
    told = refused(tmp_path, pickle.dumps({"a": Calls(os.mkdir, str(trap))}, 4))
    assert told.startswith(f"names '{os.mkdir.__module__}.mkdir'")
    long = refused(tmp_path, HEAD + b"cmodule\n" + b"x" * 5000 + b"\n.")
    assert len(long) < 200


@pytest.mark.parametrize("function", [np.load, np.memmap, np.fromfile, np.save])
def test_nothing_else_of_numpy_can_be_called(tmp_path: Path, trap: Path, function: Callable[..., Any]) -> None:
    told = refused(tmp_path, pickle.dumps({"a": Calls(function, str(trap), 3)}, 4))
    assert told.startswith(f"names 'numpy.{function.__name__}'")
    assert not trap.exists()


def test_no_subclass_of_an_array_is_made(tmp_path: Path, trap: Path) -> None:
    data = pickle.dumps({"a": ARRAY.view(Subclass)}, 4)
    pickle.loads(data)
    assert trap.exists()
    trap.rmdir()
    assert "Subclass', which is code" in refused(tmp_path, data)
    # Nor from anything that may be named.
    for kind in (b"cnumpy\ndtype\n", b"ccollections\nOrderedDict\n", b"}", b"N"):
        crafted = HEAD + b"cnumpy.core.multiarray\n_reconstruct\n" + kind + b"K\x00\x85U\x01b\x87R."
        assert refused(tmp_path, crafted) == "calls something in a way that does not make an array"
    assert not trap.exists()


def test_no_number_of_the_registry_is_looked_up(tmp_path: Path) -> None:
    copyreg.add_extension(__name__, "Remembered", 77)
    try:
        data = pickle.dumps({"a": Remembered}, 2)
        assert pickle.loads(data) == {"a": Remembered}  # and from here on without asking find_class
        assert "operation EXT1 of pickle" in refused(tmp_path, data)
    finally:
        copyreg.remove_extension(__name__, "Remembered", 77)


@pytest.mark.parametrize(
    ("operations", "name"),
    [
        (b"K\x01Q.", "BINPERSID"),
        (b"Psome\n.", "PERSID"),
        (b"(cos\nmkdir\no.", "GLOBAL"),
        (b"(ios\nmkdir\n.", "INST"),
        (b"(cnumpy\nndarray\no.", "OBJ"),
        (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"cnumpy\nndarray\n)}\x92.", "NEWOBJ_EX"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"(\x90.", "EMPTY_SET"),
    ],
)
def test_operations_that_no_array_needs_are_refused(tmp_path: Path, operations: bytes, name: str) -> None:
    told = refused(tmp_path, HEAD + operations)
    assert "names 'os.mkdir'" in told if name == "GLOBAL" else "of pickle at byte" in told


@pytest.mark.parametrize("target", [b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n"])
def test_nothing_that_is_named_can_be_changed(tmp_path: Path, target: bytes) -> None:
    assert (
        refused(tmp_path, HEAD + target + b"N}U\x08__call__K\x01s\x86b.")
        == "sets the state of something that is not an array"
    )


def test_tuples_nested_without_end_neither_crash_nor_hang(tmp_path: Path) -> None:
    """As a key, Python's unpickler hashes them: deep ones end the process, one of itself twice takes for ever."""
    deep = HEAD + b"})" + b"\x85" * 150_000 + b"K\x01s."
    assert refused(tmp_path, deep) == "has an entry whose name is a tuple, not a text"
    doubled = b"".join(b"q\x01h\x01\x86" for _ in range(100))
    assert refused(tmp_path, HEAD + b"})" + doubled + b"K\x01s.") == "has an entry whose name is a tuple, not a text"
    assert refused(tmp_path, HEAD + b"}U\x01a)" + doubled + b"s.") == "has a tuple as 'a', not an array"
    # A list that is in itself.
    assert refused(tmp_path, HEAD + b"}U\x01a]q\x01h\x01as.") == "has a list as 'a', not an array"
    many = HEAD + b"}" + b"U\x01aNs" * MAX_OPERATIONS + b"."
    assert refused(tmp_path, many) == "takes more than 200,000 operations to read"


def an_array(shape: bytes, dtype: bytes, raw: bytes) -> bytes:
    """One array 'a' as protocol 2 has it, of a shape and a kind given as they are pickled."""
    return (
        HEAD
        + b"}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"\x89\x88\x87R"
        + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )  # fmt: skip


def test_such_an_array_is_read_where_it_is_right() -> None:
    (values,) = read_pickle(an_array(b"K\x02K\x03\x86", b"f4", ARRAY.tobytes())).values()
    np.testing.assert_array_equal(values, ARRAY)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (an_array(b"K\x02\x85", b"O8", bytes(16)), "has an array of kind 'O8', not of numbers"),
        (an_array(b"K\x02\x85", b"V8", bytes(16)), "has an array of kind 'V8', not of numbers"),
        (an_array(b"K\x02\x85", b"f4,O", bytes(16)), "has an array of kind 'f4,O', not of numbers"),
        (
            an_array(b"J\xff\xff\xff\x7f\x85", b"f4", bytes(16)),
            "has an array with the shape 2147483647 and 16 bytes for it",
        ),
        (
            an_array(b"J\x00\x00\x00\x40J\x00\x00\x00\x40\x86", b"f4", b""),
            "has an array with the shape 1073741824 x 1073741824 and 0 bytes for it",
        ),
        (an_array(b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85", b"f4", b""), "has an array with an impossible shape"),
        (an_array(b"J\xff\xff\xff\xff\x85", b"f4", b""), "has an array with an impossible shape"),
        (an_array(b"U\x01x\x85", b"f4", b""), "has an array with an impossible shape"),
        (an_array(b"N", b"f4", b""), "has an array that does not consist of numbers"),
        (an_array(b"(" + b"K\x01" * 9 + b"t", b"f4", bytes(4)), "has an array that does not consist of numbers"),
    ],
)
def test_arrays_that_claim_what_is_not_there_are_refused(tmp_path: Path, data: bytes, told: str) -> None:
    assert refused(tmp_path, data) == told


def test_arrays_of_objects_are_refused_as_numpy_writes_them(tmp_path: Path, trap: Path) -> None:
    objects: npt.NDArray[Any] = np.array([Calls(os.mkdir, str(trap))], dtype=object)
    assert refused(tmp_path, pickle.dumps({"a": objects}, 4)) == "has an array of kind 'O8', not of numbers"
    records = np.zeros(2, dtype=[("x", "f4"), ("y", "O")])
    assert refused(tmp_path, pickle.dumps({"a": records}, 2)) == "has an array of kind 'V12', not of numbers"
    assert not trap.exists()


LENGTHS = {b"\x8e": "<Q", b"\x8d": "<Q", b"\x96": "<Q", b"B": "<I", b"X": "<I", b"T": "<i", b"\x8b": "<i"}


@pytest.mark.parametrize("operation", LENGTHS)
def test_little_memory_is_taken_whatever_is_claimed(tmp_path: Path, operation: bytes) -> None:
    """Lengths of bytes and texts, places in the memo, frames, and the same bytes again and again."""
    claimed = 2 ** (8 * struct.calcsize(LENGTHS[operation]) - 2)
    crafted = [
        HEAD + operation + struct.pack(LENGTHS[operation], claimed) + b"abc.",
        b"\x80\x04\x95" + struct.pack("<Q", claimed) + b"}.",
        HEAD + b"}r" + struct.pack("<I", 2**31 - 1) + b"s.",
        # A text of a kilobyte becomes bytes, 20,000 times.
        HEAD + b"X\x00\x04\x00\x00" + b"a" * 1024 + b"q\x00c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02"
        + b"h\x01h\x00h\x02\x86R" * 20_000 + b".",
    ]  # fmt: skip
    tracemalloc.start()
    began = time.monotonic()
    for data in crafted:
        refused(tmp_path, data)
    seconds, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert seconds < 30


def test_the_same_bytes_in_many_arrays_are_refused(tmp_path: Path) -> None:
    dumped = pickle.dumps({str(number): ARRAY for number in range(1000)}, 4)
    assert refused(tmp_path, dumped) == "has the same bytes in several arrays"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps({"fc.weight": ARRAY, "b": ("fc.bias", ARRAY[0])}, protocol)
    np.testing.assert_array_equal(read_pickle(data)["fc.weight"], ARRAY)
    for end in range(2, len(data)):
        with pytest.raises(RefusedError):
            read_pickle(data[:end])
    assert refused(tmp_path, data[:-1]) == "is cut short or damaged: its pickle breaks off"
    assert refused(tmp_path, data + data) == f"has {len(data):,} more bytes after the end of its pickle"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_flipped_bytes_are_refused_or_change_values_only(protocol: int) -> None:
    data = pickle.dumps(OrderedDict(a=ARRAY, b=("fc.bias", ARRAY[0])), protocol)
    generator = np.random.default_rng(0)
    for _ in range(5000):
        damaged = bytearray(data)
        for place in generator.integers(0, len(data), generator.integers(1, 4)):
            damaged[place] = generator.integers(256)
        try:
            arrays = read_pickle(bytes(damaged))
        except RefusedError:
            continue
        assert all(isinstance(values, np.ndarray) for values in arrays.values())
        assert sum(values.nbytes for values in arrays.values()) <= len(data)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "holds an empty dictionary"),
        ([ARRAY], "holds a list, not a dictionary of arrays"),
        (3, "holds 3, not a dictionary of arrays"),
        ({1: ARRAY}, "has an entry whose name is 1, not a text"),
        ({"epoch": 3}, "has 3 as 'epoch', not an array"),
        ({"model": {"fc.weight": ARRAY}}, "has a dictionary as 'model', not an array"),
        ({"fc.weight": ("name", ARRAY, 1)}, "has a tuple as 'fc.weight', not an array"),
        (
            {"a@@.0": ARRAY, "UnpackBigParamInfor@@": {"a": {"OriginShape": (2, 3), "slices": ["a@@.0"]}}},
            "has arrays in several pieces, as paddle.save with protocol 2 or 3 writes those above 1 GiB",
        ),
    ],
)
def test_what_is_no_dictionary_of_arrays_is_refused(tmp_path: Path, value: Any, told: str) -> None:
    assert refused(tmp_path, pickle.dumps(value, 4)) == told
