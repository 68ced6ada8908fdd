"""The command line: options made from RunConfig, errors for people, and the documented exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.commands.registry import Parser, commands_help, run_command
from harness.errors import INTERRUPTED_EXIT_CODE, UsageError
from harness.launch.launcher import WORKER_COMMAND
from harness.launch.process_tree import die_with_run
from harness.plan.config import RunConfig, flag, option_fields, option_type, parse_config
from harness.report.text import ENTRY, printable
from models.errors import ActionableError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Messages list things in lines, and the end of a log may have tabs.
LAYOUT = "\n\t"


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    # Told to end, a run ends like one that is interrupted: its ranks with it, its tables whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments[:1] == [WORKER_COMMAND]:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_run(os.environ)
            from harness.training.worker import run_rank

            return run_rank(Path(arguments[1]))
        if arguments and not arguments[0].startswith("-"):
            run_command(arguments[0], arguments[1:])
            return 0
        given, dry_run = parse(arguments)
        # The rest loads pandas and looks at hardware; a mistyped option should not wait for that.
        RunConfig(**given)
        from harness.commands.resume import requested_config
        from harness.commands.run import run

        config = requested_config(given)
        if config is None:
            print("nothing to go on with: the run is finished")
            return 0

        run(config, dry_run=dry_run)
    except ActionableError as error:
        return _complain(error.message, error.cure, error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", "", INTERRUPTED_EXIT_CODE)
    return 0


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """The options that a command line gives, by RunConfig's names, and whether only the plan is wanted.

    The command line wins over the --config file, that over the defaults. Raises UsageError.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    dry_run = given.pop("dry_run", False)
    file = given.pop("config", None)
    values = _read_toml(Path(file)) if file is not None else {}
    return {**values, **given}, dry_run


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is no TOML: {error}") from error
    return parse_config(table, str(path))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        ENTRY, "Train PP-LCNet on JPEGs that DALI decodes, and record how fast that goes.", epilog=commands_help()
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop; needs neither data nor GPU")
    parser.add_argument("--config", metavar="FILE", help="TOML file with options; the command line wins over it")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for item in option_fields():
        title = item.metadata["group"]
        group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
        text = item.metadata["help"].replace("%", "%%")
        if item.default is not None and not isinstance(item.default, bool):
            text += f" (default: {item.default})"
        if option_type(item.name) is bool:
            group.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, help=text)
        else:
            # Choices are checked by RunConfig, so that a TOML file gets the same answer as the command line.
            metavar = "{" + ",".join(item.metadata["choices"]) + "}" if item.metadata["choices"] else None
            bare = {"nargs": "?", "const": item.metadata["bare"]} if item.metadata["bare"] else {}
            metavar = metavar or item.metadata["metavar"]
            group.add_argument(flag(item.name), type=option_type(item.name), metavar=metavar, help=text, **bare)
    return parser


def _complain(message: str, cure: str, code: int) -> int:
    print(f"error: {printable(message, LAYOUT)}", file=sys.stderr)
    for line in cure.splitlines():
        print(f"  {printable(line, LAYOUT)}", file=sys.stderr)
    return code
