"""The commands of run_bench.py, by name."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence

from harness.commands.declared import of_data, of_stored_runs, of_this_machine
from harness.commands.parser import Command, Parser
from harness.errors import UsageError
from harness.report.text import ENTRY


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Run a command. Raises UsageError for an unknown one, and whatever the command raises."""
    command = COMMANDS.get(name)
    if command is None:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        cure = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(COMMANDS)}. See {ENTRY} --help."
        raise UsageError(f"unknown command {name!r}", cure)
    parser = Parser(f"{ENTRY} {name}", command.help)
    command.declare(parser)
    command.run(**vars(parser.parse_args(arguments)))


def commands_help() -> str:
    """One line for each command, for the end of --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([f"commands ({ENTRY} COMMAND --help has their options):", *lines])


def _declare_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def _completion(shell: str) -> None:
    from harness.commands.completion import completion

    completion(shell, {name: (command.help, command.declare) for name, command in COMMANDS.items()})


COMMANDS = dict(
    sorted(
        {
            **of_data.COMMANDS,
            **of_stored_runs.COMMANDS,
            **of_this_machine.COMMANDS,
            "completion": Command("print what makes a shell complete options", _declare_completion, _completion),
        }.items()
    )
)
