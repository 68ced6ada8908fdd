"""The versions that pyproject.toml asks for, compared with what is installed."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<versions>[^;]*?)\s*"
    r"(?:;\s*python_version\s*(?P<operator><|>=)\s*['\"](?P<python>[0-9.]+)['\"]\s*)?"
)
_BOUND = re.compile(r"\s*(>=|<|==)\s*([0-9][0-9.]*)\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package with the versions that are needed, such as ">=1.26,<2.4"."""

    name: str
    versions: str


def read_project(path: Path) -> dict[str, Any]:
    """Returns the table [project] of a pyproject.toml."""
    with path.open("rb") as stream:
        project: dict[str, Any] = tomllib.load(stream)["project"]
    return project


def parse_requirement(text: str, python: str) -> Requirement | None:
    """Returns the requirement; None if it isn't one of this version of Python. Raises ValueError for other markers."""
    found = _REQUIREMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"the requirement {text!r} can't be read")
    if found["python"] and not satisfies(python, found["operator"] + found["python"]):
        return None
    return Requirement(found["name"], found["versions"])


def satisfies(version: str, versions: str) -> bool:
    """Returns whether a version is one of those, such as ">=1.26,<2.4". Raises ValueError for other comparisons.

    Only the leading numbers are compared: 2.4.0rc1 is taken as 2.4.0.
    """
    for bound in filter(None, versions.split(",")):
        found = _BOUND.fullmatch(bound)
        if found is None:
            raise ValueError(f"the version {bound!r} can't be read")
        own, limit = _padded(version, found[2])
        if not {">=": own >= limit, "<": own < limit, "==": own == limit}[found[1]]:
            return False
    return True


def _padded(version: str, other: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the numbers of both, with zeros up to the same length."""
    first, second = _numbers(version), _numbers(other)
    length = max(len(first), len(second))
    return first + (0,) * (length - len(first)), second + (0,) * (length - len(second))


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()
