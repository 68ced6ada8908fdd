"""How commands and their options are parsed, and what a command is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from harness.errors import UsageError
from harness.plan.declaration import home_path


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its line in --help, the function that declares its options, and the one that runs it.

    run takes the options' values by name. It imports what it needs itself, so that a mistyped option is reported
    without waiting for that.
    """

    help: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., None]


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Prints most options in one line: it leaves room for their names, and uses the terminal's whole width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, and whose options can't be abbreviated."""

    def __init__(self, prog: str, description: str, epilog: str | None = None, usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            usage=usage,
            formatter_class=_HelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            add_help=usage is None,
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message."""
        raise UsageError(message, f"See {self.prog} --help.")


def add_path(parser: argparse.ArgumentParser, name: str, *, metavar: str, help: str, **more: Any) -> None:  # noqa: A002
    """Add an option whose value is a path, or may be one."""
    parser.add_argument(name, metavar=metavar, type=home_path, help=help, **more)


def add_results(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --results; what says which folder it is."""
    parser.add_argument(
        "--results", metavar="PATH", type=home_path, default="results", help=f"{what} (default: results)"
    )
