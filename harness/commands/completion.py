"""`run_bench.py completion`: prints what makes a shell complete this tool's commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import shtab

from harness.commands.run_options import add_manner, add_run_options
from harness.report.text import ENTRY

Declare = Callable[[argparse.ArgumentParser], None]


def completion(shell: str, commands: Mapping[str, tuple[str, Declare]]) -> None:
    """Print a script for a shell; commands have their line of help, and declare their options."""
    print(shtab.complete(combined_parser(commands), shell))


def combined_parser(commands: Mapping[str, tuple[str, Declare]]) -> argparse.ArgumentParser:
    """Returns a parser that knows the options of a run and those of every command."""
    parser = argparse.ArgumentParser(prog=ENTRY, argument_default=argparse.SUPPRESS)
    add_manner(add_run_options(parser))
    added = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (text, declare) in commands.items():
        declare(added.add_parser(name, help=text))
    _complete_files(parser)
    return parser


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have values that are paths completed as such."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _complete_files(one)
        elif action.metavar in ("PATH", "FILE", "DATA", "TO", "FROM", "WHAT", "DIR"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
