"""Slurm's lists of nodes, such as `node[01-03,07],gpu5`, written out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

# More nodes than any machine has; a list that names more is a mistake, and would take the memory.
MAX_NODES = 65536
# A name is made of plain text and of brackets with numbers; it may have several of these.
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\],\s]+)")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def expand(text: str) -> list[str]:
    """Returns the names in a list of nodes, in its order.

    A range's numbers have the leading zeros of its first one: `n[08-10]` is n08, n09 and n10. Where a name has several
    brackets, the last one's numbers change fastest. Raises ValueError for anything else, such as an open bracket.
    """
    names: list[str] = []
    for item in _items(text):
        parts = [list(_numbers(part[1])) if part[1] is not None else [part[2]] for part in _PART.finditer(item)]
        count = 1
        for part in parts:
            count *= len(part)
        if len(names) + count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} nodes")
        names += map("".join, product(*parts))
    return names


def _items(text: str) -> Iterator[str]:
    """The names of a list, whose brackets aren't written out yet."""
    at = 0
    while True:
        item = re.compile(rf"(?:{_PART.pattern})+").match(text, at)
        if item is None:
            raise ValueError(f"no name of a node at {text[at:]!r}")
        yield item[0]
        at = item.end()
        if at == len(text):
            return
        if text[at] != ",":
            raise ValueError(f"no comma at {text[at:]!r}")
        at += 1


def _numbers(ranges: str) -> Iterator[str]:
    """The numbers within a bracket."""
    for text in ranges.split(","):
        found = _RANGE.fullmatch(text)
        if found is None:
            raise ValueError(f"no range of numbers: {text!r}")
        first, last = found[1], found[2] or found[1]
        if not int(first) <= int(last) < int(first) + MAX_NODES:
            raise ValueError(f"no range of numbers: {text!r}")
        yield from (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
