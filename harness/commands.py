"""The words that run_bench.py takes instead of options: what each does, and its own options."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from harness.errors import UsageError

ENTRY = "run_bench.py"


@dataclass(frozen=True, slots=True)
class Command:
    """What its line in --help says, what declares its options, and what carries it out with their values, by name.

    run imports what it needs itself: a mistyped option should not wait for that.
    """

    help: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., None]


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are UsageErrors, and whose options can't be shortened."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong."""
        raise UsageError(message, f"See {self.prog} --help.")


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Carry out a command. Raises UsageError for one that isn't known, and whatever the command raises."""
    command = COMMANDS.get(name)
    if command is None:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        cure = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(COMMANDS)}. See {ENTRY} --help."
        raise UsageError(f"unknown command {name!r}", cure)
    parser = Parser(f"{ENTRY} {name}", command.help)
    command.declare(parser)
    command.run(**vars(parser.parse_args(arguments)))


def commands_help() -> str:
    """A line for every command, for the end of --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([f"commands ({ENTRY} COMMAND --help has their options):", *lines])


def _declare_compare(parser: argparse.ArgumentParser) -> None:
    what = "name of a run or of a series of repeats, path of a record (.json), or bi_v100, the published row"
    parser.add_argument("a", metavar="A", help=f"what B is held against: {what}")
    parser.add_argument("b", metavar="B", help="likewise")
    parser.add_argument(
        "--results", metavar="PATH", default="results", help="folder that has the runs (default: results)"
    )
    parser.add_argument(
        "--fail-if-slower",
        metavar="LIMIT",
        help="exit with 1 if B is slower by more than this, such as 5%% or 0.05, and not by noise",
    )


def _compare(a: str, b: str, results: str, fail_if_slower: str | None = None) -> None:
    from harness.compare import compare_saved

    compare_saved(a, b, results, fail_if_slower)


def _declare_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a folder in ImageNet's layout or a built-in set, as for --data")
    parser.add_argument("--classes", metavar="N", type=int, help="the model's classes (default: as for a run)")
    parser.add_argument("--threads", metavar="N", type=int, help="that decode (default: one per core)")
    parser.add_argument(
        "--results", metavar="PATH", default="results", help="folder for what is found (default: results)"
    )


def _verify(data: str, results: str, classes: int | None = None, threads: int | None = None) -> None:
    from harness.verify import verify

    verify(data, results, classes, threads)


COMMANDS = {
    "compare": Command("is run B as fast as run A, or is it noise?", _declare_compare, _compare),
    "verify": Command("can every image of a data set be read and decoded?", _declare_verify, _verify),
}
