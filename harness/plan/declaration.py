"""How an option is declared: once, with its help, its limits, and its rules for resuming, nodes, comparing, marking."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from harness.errors import UsageError
from models.image_size import ImageSize, PlainSize

# Paddle and DALI take seeds of 32 bits, to which ranks add their numbers; no other whole number needs more.
MAX_INT = 2**31 - 1 - 2**16

# The value of --resume without a name, and of options that are decided by what is found; it may be given, too.
AUTO = "auto"

# Whether an option may differ when a run is resumed. SAME: it may not. KEPT: it may not, and a value that the plan
# decided is kept, as it depends on options that may differ. NOTED: it may, and a note in the record says that sums may
# round differently. FREE: it may; `harness.commands.resume.check_same_run` has the conditions for epochs and devices.
SAME, KEPT, NOTED, FREE = "same", "kept", "noted", "free"
# Whether the nodes of a run must agree on it (SAME), or each has its own value.
OWN = "own"
# Whether `compare` shows that two runs differ in it.
SHOWN, HIDDEN = "shown", "hidden"
# How a run's row in the table with the reference's header says that the option isn't as published. MARK: in words after
# the method's name, see `harness.plan.published`. CELL: by a cell or the header. FILE: by the file's name. UNMARKED: it
# doesn't, as the option changes neither the recipe nor the data.
MARK, CELL, FILE, UNMARKED = "mark", "cell", "file", "unmarked"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a number; None is unlimited."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def check(self, name: str, value: float, reason: str = "", whole: object = None, part: str = "it") -> None:
        """Raise UsageError, with the reason for the limits, unless the option's value is finite and within them.

        value may be a part of the option's whole value, and part is what it is called.
        """
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag(name)} is {value}; it must be finite")
        broken = (
            (self.at_least is not None and value < self.at_least)
            or (self.above is not None and value <= self.above)
            or (self.at_most is not None and value > self.at_most)
            or (self.below is not None and value >= self.below)
        )
        if broken:
            words = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
            allowed = " and ".join(f"{text} {limit}" for text, limit in words.items() if limit is not None)
            given = value if whole is None else whole
            raise UsageError(f"{flag(name)} is {given}; {part} must be {allowed}", reason)


@dataclass(frozen=True, slots=True)
class Option:
    """An option as it was declared; see `option`. kind is the type of its value, without None."""

    name: str
    kind: type
    default: Any
    group: str
    help: str
    choices: tuple[str, ...]
    metavar: str
    bare: str | None
    limits: Limits
    resume: str
    nodes: str
    compare: str
    path: bool
    image_size: bool
    reason: str
    row: str
    word: str | None

    def check(self, value: Any) -> None:
        """Raise UsageError for a value that is not one of the choices, or is outside the limits.

        None is allowed. Whole numbers must be at most MAX_INT. Limits of an image's size are those of either side.
        """
        if value is None:
            return
        if self.word is not None and value == self.word:
            raise UsageError(f"{flag(self.name)} {value} is for a command line, and this is none", "Give a number.")
        if self.image_size:
            check_sides(self.name, value, self.limits, self.reason)
            return
        if self.choices and value not in self.choices:
            raise UsageError(f"unknown {self.name} {value!r}", f"Known: {', '.join(self.choices)}.")
        if self.kind is int:
            Limits(at_most=MAX_INT).check(self.name, value)
        if self.kind in (int, float):
            self.limits.check(self.name, value, self.reason)

    def read(self, text: str) -> Any:
        """Returns the value that a text stands for; "auto" stands for None where a number or a choice is decided.

        Raises ValueError for a text that is no such value, UsageError for the home folder of an unknown user, and for
        what is no image's size.
        """
        if self.word is not None and text == self.word:
            return text
        if self.image_size:
            return read_size(text, flag(self.name))
        if self.path:
            return home_path(text)
        return None if self._is_auto(text) else self.kind(text)

    def _is_auto(self, value: Any) -> bool:
        return value == AUTO and self.default is None and (self.kind in (int, float) or bool(self.choices))

    def parse(self, value: Any, where: str) -> Any:
        """Returns a value of a TOML table or a record as `read` does. Raises UsageError for another type."""
        if self._is_auto(value):
            return None
        if self.word is not None and value == self.word:
            return value
        if self.image_size and type(value) in (int, str):
            return read_size(value, where)
        if self.kind is float and type(value) is int and abs(value) <= MAX_INT:
            value = float(value)
        if type(value) is not self.kind:
            raise UsageError(
                f"{where} is {value!r}, of type {type(value).__name__}; it must be of type {self.kind.__name__}"
            )
        return home_path(str(value)) if self.path else value


def read_size(value: PlainSize, where: str) -> PlainSize:
    """Returns an image's size as it is stored. Raises UsageError, which says where, for a text that means none."""
    try:
        return ImageSize.of(value).plain
    except ValueError as error:
        raise UsageError(
            f"{where} is {value!r}, which is not a size in pixels",
            "Give the side of a square, such as 224, or height x width, such as 80x160.",
        ) from error


def check_sides(name: str, value: PlainSize, limits: Limits, reason: str = "") -> None:
    """Raise UsageError, with the reason for the limits, unless both sides of an image's size are within them."""
    size = ImageSize.of(value)
    if size.height == size.width:
        limits.check(name, size.height, reason)
    else:
        for side, pixels in (("height", size.height), ("width", size.width)):
            limits.check(name, pixels, reason, size.plain, f"its {side}")


def home_path(text: str) -> str:
    """Returns a path with the home folder that ~ or ~user at its start stands for.

    Shells replace it only at the start of a word, so not in --data=~/images, and never in a file. Raises UsageError for
    a user whom this machine doesn't have.
    """
    # pathlib would also remove the ./ by which a folder is told from a built-in data set.
    path = os.path.expanduser(text)  # noqa: PTH111
    if path.startswith("~"):
        user = path.partition("/")[0]
        raise UsageError(
            f"{text!r} is below the home folder of a user {user[1:]!r}, whom this machine doesn't have",
            f"For a folder of that name: ./{path}",
        )
    return path


def option(
    default: Any,
    group: str,
    help: str,  # noqa: A002
    *,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    bare: str | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    resume: str = SAME,
    nodes: str = SAME,
    compare: str = SHOWN,
    path: bool = False,
    image_size: bool = False,
    reason: str = "",
    row: str = MARK,
    word: str | None = None,
) -> Any:
    """A dataclass field that is also a command-line option and a TOML key.

    help is a sentence that states the unit and the scope; "Default:" begins how a default of None is decided. bare is
    the value of an option that is given without one. resume is SAME, KEPT, NOTED or FREE, nodes SAME or OWN, compare
    SHOWN or HIDDEN, row MARK, CELL, FILE or UNMARKED. path: the value is that of a file or folder, in which ~ stands
    for the home folder. reason is why the number has its limits. word may be given in a number's place, and stands for
    one that is found out before a configuration is made.
    for the home folder. image_size: the value is that of an image, see `models.image_size.PlainSize`. reason is why the
    number has its limits.
    """
    metadata = {
        "group": group,
        "help": help,
        "choices": choices,
        "metavar": metavar,
        "bare": bare,
        "limits": Limits(at_least, above, at_most, below),
        "resume": resume,
        "nodes": nodes,
        "compare": compare,
        "path": path,
        "image_size": image_size,
        "reason": reason,
        "row": row,
        "word": word,
    }
    return field(default=default, metadata=metadata)


@cache
def options_of(declared: type) -> Mapping[str, Option]:
    """The options that a dataclass declares, by name and in order."""
    hints = get_type_hints(declared)
    found = {}
    for item in fields(declared):
        hint = hints[item.name]
        kind = next(one for one in (get_args(hint) or (hint,)) if one is not type(None))
        found[item.name] = Option(name=item.name, kind=kind, default=item.default, **item.metadata)
    return found


def first_sentence(text: str) -> str:
    """The first sentence of an option's help."""
    return text.partition(". ")[0].removesuffix(".") + "."


def flag(name: str) -> str:
    """The command-line spelling of a name: batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


def parse_values(declared: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of a TOML table or a record for the options that a dataclass declares, checked for names and types.

    Keys may be spelled with dashes. Raises UsageError, which names where, for an unknown key or a value of another
    type.
    """
    known = options_of(declared)
    parsed = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
            raise UsageError(f"{where}: unknown key {key!r}", hint)
        if name in parsed:
            raise UsageError(
                f"{where}: {name!r} is there twice, with a dash and with an underscore", "Keep one of them."
            )
        parsed[name] = known[name].parse(value, f"{where}: {key}")
    return parsed
