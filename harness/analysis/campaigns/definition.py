"""A campaign as its TOML file describes it: a matrix of options, and the runs that it asks for."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.artifacts.file_names import unique_part
from harness.errors import UsageError
from harness.plan.declaration import flag
from harness.plan.options import RunConfig, parse_config

# What the campaign decides itself, or what would make several runs of one.
OWN = (
    "run_name", "results", "resume", "repeats", "device_counts", "nnodes", "node_rank", "master", "rendezvous_timeout",
)  # fmt: skip
KEYS = ("repeats", "options", "matrix", "include", "exclude")
MAX_CELLS, MAX_REPEATS = 1000, 100
# Of the characters that a run's name may have, some are needed for the number and for telling names apart.
MAX_NAME = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of a matrix. values are what tells it from the others, options all that its runs are given.

    reason is why it is left out, as an exclusion says; empty if it is run.
    """

    values: Mapping[str, Any]
    options: Mapping[str, Any]
    reason: str = ""

    @property
    def name(self) -> str:
        """Its values, for people."""
        return ", ".join(f"{flag(name)[2:]}={_word(value)}" for name, value in self.values.items()) or "the only cell"

    def run(self, repeat: int) -> str:
        """The name of one of its runs; repeat counts from 1. Different cells of a campaign have different names."""
        parts = (f"{flag(name)[2:]}-{unique_part(_word(value))}" for name, value in self.values.items())
        whole = "--".join(parts) or "run"
        if len(whole) > MAX_NAME:
            whole = f"{whole[:MAX_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
        return f"{whole}.r{repeat}"


@dataclass(frozen=True, slots=True)
class Campaign:
    """The cells of a matrix in their order, and how often each is run."""

    cells: tuple[Cell, ...]
    repeats: int

    @property
    def runs(self) -> list[tuple[Cell, int]]:
        """Every run with its number: all cells once, then all cells again, so that drift hits all alike."""
        numbers = range(1, self.repeats + 1)
        return [(cell, repeat) for repeat in numbers for cell in self.cells if not cell.reason]


def parse_campaign(table: Mapping[str, Any], where: str) -> Campaign:
    """Returns the campaign of a TOML file. Raises UsageError, with the file's name, for what it can't mean."""
    _check_keys(table, where)
    repeats = table.get("repeats", 1)
    if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
        raise UsageError(f"{where}: repeats is {repeats!r}; it must be a whole number from 1 to {MAX_REPEATS}")
    common = _options(_table(table, "options", where), f"{where}: options")
    matrix = _matrix(_table(table, "matrix", where), f"{where}: matrix")
    excluded = [_options(one, f"{where}: exclude") for one in _tables(table, "exclude", where)]
    cells = []
    if matrix:
        for values in itertools.product(*matrix.values()):
            found: dict[str, Any] = dict(zip(matrix, values, strict=True))
            is_out = any(all(found.get(name) == value for name, value in one.items()) for one in excluded)
            cells.append(Cell(found, {**common, **found}, "excluded" if is_out else ""))
    for one in _tables(table, "include", where):
        included = _options(one, f"{where}: include")
        cells.append(Cell(included, {**common, **included}))
    cells = cells or [Cell({}, common)]
    if len(cells) > MAX_CELLS:
        raise UsageError(f"{where}: {len(cells):,} cells are more than {MAX_CELLS:,}", "Divide it into campaigns.")
    names = [cell.name for cell in cells]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{where}: the cell {twice[0]!r} is there twice", "Omit it from [[include]] or [matrix].")
    for cell in cells:
        _check(cell, where)
    return Campaign(tuple(cells), repeats)


def _check(cell: Cell, where: str) -> None:
    """Raise UsageError for a cell that no run can be."""
    try:
        RunConfig(**cell.options)
    except UsageError as error:
        if not cell.reason:
            raise UsageError(f"{where}: the cell {cell.name!r}: {error.message}", error.cure) from error


def _check_keys(table: Mapping[str, Any], where: str) -> None:
    if unknown := [name for name in table if name not in KEYS]:
        raise UsageError(f"{where}: unknown {unknown[0]!r}", f"Known: {', '.join(KEYS)}.")


def _table(table: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"{where}: {name} is not a table", f"Write [{name}], and its values below.")
    return found


def _tables(table: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) and one for one in found):
        raise UsageError(f"{where}: {name} is not a list of tables", f"Write [[{name}]], and its values below.")
    return found


def _options(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = parse_config(dict(values), where)
    if own := [name for name in found if name in OWN]:
        raise UsageError(f"{where}: {flag(own[0])} is the campaign's own", "Omit it.")
    return found


def _matrix(values: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, listed in values.items():
        if not isinstance(listed, list) or not listed:
            raise UsageError(f"{where}: {name} is {listed!r}; it must be a list of values", f"Write {name} = [...].")
        each = [_options({name: value}, where) for value in listed]
        key = next(iter(each[0]))
        found[key] = [one[key] for one in each]
        if len({repr(value) for value in found[key]}) < len(each):
            raise UsageError(f"{where}: {name} has a value twice", "Omit one of them.")
    return found


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "auto" if value is None else str(value)


def config_of(cell: Cell, **own: Any) -> RunConfig:
    """The configuration of one of a cell's runs, with the campaign's own options."""
    return RunConfig(**{**cell.options, **own})
