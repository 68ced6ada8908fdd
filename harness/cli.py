"""The command line: options from RunConfig, readable errors, and the documented exit codes."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness import ROOT
from harness.commands.parser import Parser
from harness.commands.registry import commands_help, run_command
from harness.commands.run_options import Manner, add_manner, add_run_options, given_options, take_manner
from harness.errors import INTERRUPTED_EXIT_CODE, MachineError
from harness.launch import signals
from harness.launch.launcher import WORKER_COMMAND
from harness.launch.process_tree import RUN_PID, die_with_run
from harness.plan.given import check_given
from harness.plan.schedulers.found import placed
from harness.report.output import tolerate_lost_output
from harness.report.text import ENTRY, printable
from models.errors import ActionableError
from pipelines.quick_loading import quick_loading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Kept in messages: some have several lines, and the end of a log may have tabs.
LAYOUT = "\n\t"
# The level of optimisation at which Python drops docstrings.
NO_DOCSTRINGS = 2


def main(arguments: Sequence[str]) -> int:
    """Run the command line. Returns its exit code."""
    try:
        if sys.flags.optimize >= NO_DOCSTRINGS:
            raise MachineError(
                "Python runs without docstrings (python -OO, or PYTHONOPTIMIZE), which Paddle needs",
                "Start it without: env -u PYTHONOPTIMIZE",
            )
        # Whoever types it gets what any unknown command gets.
        if arguments[:1] == [WORKER_COMMAND] and len(arguments) == 2 and RUN_PID in os.environ:
            die_with_run(os.environ)
            signals.end_at_once()
            with quick_loading():
                from harness.training.worker import run_rank
            # What is loaded stays: a later look for garbage, which may fall into a step, leaves it out.
            gc.freeze()
            run_rank(Path(arguments[1]))
            return 0
        signals.listen()
        if arguments and not arguments[0].startswith("-"):
            run_command(arguments[0], arguments[1:])
            return 0
        given, manner = parse(arguments)
        placed_given, place = placed(given, os.environ)
        # The rest loads pandas and queries the hardware; a mistyped option should be reported before that.
        check_given(placed_given)
        from harness.commands.run import run_given

        run_given(placed_given, manner, place)
    except ActionableError as error:
        return _complain(error.message, error.cure, error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", "", INTERRUPTED_EXIT_CODE)
    return 0


def start(arguments: Sequence[str]) -> NoReturn:
    """Run the command line as a process of its own, and end it with the exit code."""
    output = tolerate_lost_output()
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse, after --help
        code = int(ended.code or 0)
    # An interpreter that ends would die of them, after the work was done.
    signals.ignore()
    lost = output.flushed()
    if lost:
        code = code or _complain(f"the output is incomplete: {lost}", "What a run recorded is complete.", 3)
    sys.exit(code)


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], Manner]:
    """Returns the options that a command line sets, by RunConfig's names, and how it is to be carried out.

    The command line takes precedence over the --config file, and the file over the defaults. Raises UsageError for
    options that can't be parsed.
    """
    given = vars(_parser().parse_args(arguments))
    manner = take_manner(given)
    return given_options(given), manner


def versions() -> list[str]:
    """Returns a line for this project, and for each installed package of Paddle and DALI, with its version.

    The project's is that of pyproject.toml, because the tool runs from its checkout.
    """
    from harness.machine.environment import package_versions

    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    lines = [f"{project['name']} {project['version']}"]
    for library, start in (("Paddle", "paddle"), ("DALI", "nvidia-dali")):
        found = [f"{name} {number}" for name, number in package_versions().items() if name.startswith(start)]
        lines += found or [f"{library} is not installed"]
    return lines


class _Version(argparse.Action):
    """Prints the versions and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the versions and exit."""
        print(*versions(), sep="\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        ENTRY,
        "Train PP-LCNet on JPEGs decoded by DALI, and record the throughput and what limits it.",
        epilog=f"{commands_help()}\n\ndocs/options.md describes every option in full.",
        usage=f"{ENTRY} [options]\n       {ENTRY} COMMAND [options]",
    )
    group = add_run_options(parser)
    add_manner(group)
    group.add_argument("--version", action=_Version, nargs=0, help="Print the versions of this, Paddle and DALI.")
    group.add_argument("-h", "--help", action="help", help="Print this help and exit.")
    return parser


def _complain(message: str, cure: str, code: int) -> int:
    print(f"error: {printable(message, LAYOUT)}", file=sys.stderr)
    for line in cure.splitlines():
        print(f"  {printable(line, LAYOUT)}", file=sys.stderr)
    return code
