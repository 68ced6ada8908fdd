"""Reads what `Pipeline.serialize` writes, so that a test can see a graph it cannot run.

DALI serialises a pipeline as a protobuf message, with float arguments in single precision. The field numbers below are
those that DALI 2.4 writes; none of its message definitions comes with the wheel.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

Value = bool | int | float | str | list["Value"]

# Message fields, by number.
PIPELINE = {
    "threads": 1,
    "batch_size": 2,
    "operators": 5,
    "outputs": 7,
    "seed": 9,
    "checkpointing": 10,
    "cpu_prefetch": 13,
    "gpu_prefetch": 14,
}
OPERATOR = {"name": 1, "inputs": 2, "outputs": 3, "arguments": 4}
EDGE = {"name": 1, "device": 2, "is_argument": 3, "argument": 4}
ARGUMENT = {"name": 1, "type": 2, "float": 3, "int64": 4, "string": 5, "bool": 6, "elements": 7, "is_vector": 8}

# Python source lines, display names and the like, which change nothing that an operator does.
BOOKKEEPING = ("device", "preserve_name")

Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True)
class Operator:
    """One node of the graph.

    name is the operator's schema, e.g. "Resize", and "Resize#2" where it comes a second time; device is "cpu", "mixed"
    or "gpu". inputs are the outputs it reads, as "name[index of the output]", and tensor_arguments those that it takes
    an argument from. arguments holds the others, with each float as the shortest decimal that has its single-precision
    value.
    """

    name: str
    device: str
    inputs: tuple[str, ...] = ()
    tensor_arguments: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A whole pipeline; outputs are pairs of an operator's output and the device it ends on; seed None is by chance."""

    threads: int
    batch_size: int
    seed: int | None
    checkpointing: bool
    cpu_prefetch: int
    gpu_prefetch: int
    operators: tuple[Operator, ...]
    outputs: tuple[tuple[str, str], ...]


def read_graph(serialised: bytes) -> Graph:
    """The pipeline in its serialised form."""
    pipeline = _message(serialised)
    operators = [_message(data) for data in _bytes(pipeline, PIPELINE["operators"])]
    names = _numbered([_text(operator, OPERATOR["name"]) for operator in operators])
    producers = {
        _text(_message(output), EDGE["name"]): f"{name}[{index}]"
        for name, operator in zip(names, operators, strict=True)
        for index, output in enumerate(_bytes(operator, OPERATOR["outputs"]))
    }
    outputs = [_message(data) for data in _bytes(pipeline, PIPELINE["outputs"])]
    return Graph(
        threads=_integer(pipeline, PIPELINE["threads"]),
        batch_size=_integer(pipeline, PIPELINE["batch_size"]),
        seed=_integer(pipeline, PIPELINE["seed"]) if PIPELINE["seed"] in pipeline else None,
        checkpointing=bool(_integer(pipeline, PIPELINE["checkpointing"])),
        cpu_prefetch=_integer(pipeline, PIPELINE["cpu_prefetch"]),
        gpu_prefetch=_integer(pipeline, PIPELINE["gpu_prefetch"]),
        operators=tuple(_operator(*named, producers) for named in zip(names, operators, strict=True)),
        outputs=tuple((producers[_text(output, EDGE["name"])], _text(output, EDGE["device"])) for output in outputs),
    )


def _numbered(schemas: list[str]) -> list[str]:
    """Each schema, from its second time on with that number."""
    counts: Counter[str] = Counter()
    names = []
    for schema in schemas:
        counts[schema] += 1
        names.append(schema if counts[schema] == 1 else f"{schema}#{counts[schema]}")
    return names


def _operator(name: str, operator: Fields, producers: dict[str, str]) -> Operator:
    inputs = []
    tensor_arguments = {}
    for edge in map(_message, _bytes(operator, OPERATOR["inputs"])):
        producer = producers[_text(edge, EDGE["name"])]
        if _integer(edge, EDGE["is_argument"]):
            tensor_arguments[_text(edge, EDGE["argument"])] = producer
        else:
            inputs.append(producer)
    arguments = {
        _text(argument, ARGUMENT["name"]): _value(argument)
        for argument in map(_message, _bytes(operator, OPERATOR["arguments"]))
    }
    return Operator(
        name=name,
        device=str(arguments["device"]),
        inputs=tuple(inputs),
        tensor_arguments=tensor_arguments,
        arguments={
            name: value for name, value in arguments.items() if name not in BOOKKEEPING and not name.startswith("_")
        },
    )


def _value(argument: Fields) -> Value:
    if _integer(argument, ARGUMENT["is_vector"]):
        return [_value(_message(element)) for element in _bytes(argument, ARGUMENT["elements"])]
    kind = _text(argument, ARGUMENT["type"])
    if kind == "string":
        return _text(argument, ARGUMENT["string"])
    if kind == "int64":
        return _integer(argument, ARGUMENT["int64"])
    if kind == "bool":
        return bool(_integer(argument, ARGUMENT["bool"]))
    if kind == "float":
        (value,) = struct.unpack("<f", _bytes(argument, ARGUMENT["float"])[0])
        return float(str(np.float32(value)))
    raise ValueError(f"argument {_text(argument, ARGUMENT['name'])} is of type {kind}, which this reader does not know")


def _text(message: Fields, number: int) -> str:
    return _bytes(message, number)[0].decode()


def _bytes(message: Fields, number: int) -> list[bytes]:
    return [value for value in message.get(number, []) if isinstance(value, bytes)]


def _integer(message: Fields, number: int) -> int:
    """The int64 of the field."""
    (value,) = message[number]
    assert isinstance(value, int)
    return value - (1 << 64) if value >> 63 else value


def _message(data: bytes) -> Fields:
    """The message's fields by number, each with its values in order."""
    fields: Fields = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Pairs of a field's number and its value: varints as int, the rest as bytes.

    Source: the protobuf documentation's page on encoding. Raises ValueError for the deprecated groups and for a value
    that the end of the message cuts off.
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            varint, position = _varint(data, position)
            yield number, varint
            continue
        if wire_type == 2:
            length, position = _varint(data, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"field {number} has wire type {wire_type}; this reader knows 0, 1, 2 and 5")
        if position + length > len(data):
            raise ValueError(f"field {number} ends {position + length - len(data)} bytes after its message")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The base-128 number at position, and the position after it."""
    value = shift = 0
    while data[position] & 0x80:
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
    return value | data[position] << shift, position + 1
