"""The options of a run on a command line: declared once in `harness.plan`, and read from there or from a TOML file."""

from __future__ import annotations

import argparse
import codecs
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.plan.declaration import Option, first_sentence, flag, home_path
from harness.plan.options import parse_config, run_options
from harness.report.text import EVENTS, QUIET, TEXT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The options of a run that a tuning decides itself, or has no use for.
NOT_TUNED = (
    "throughput_only", "eval_only", "resume", "repeats", "device_counts", "profile", "nnodes", "node_rank", "master",
    "rendezvous_timeout", "auto_batch", "target_ci", "phases", "metrics",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manner:
    """How a command line is carried out, apart from what it asks for: as a plan only, and with which output."""

    dry_run: bool = False
    output: str = TEXT


def add_manner(group: argparse._ArgumentGroup) -> None:
    """Add the options of a `Manner`."""
    group.add_argument("--dry-run", action="store_true", help="Print the plan and exit; needs neither data nor GPU.")
    group.add_argument("--quiet", action="store_true", help="Print notes and errors only.")
    group.add_argument(
        "--json", action="store_true", help="Print one JSON value a line, and nothing else (docs/report.md)."
    )


def take_manner(parsed: dict[str, Any]) -> Manner:
    """Take the options of a `Manner` out of the parsed ones. Raises UsageError for two outputs."""
    dry_run, quiet, events = (parsed.pop(name, False) for name in ("dry_run", "quiet", "json"))
    if quiet and events:
        raise UsageError("--quiet and --json are two kinds of output", "Leave one of them out.")
    return Manner(dry_run, QUIET if quiet else EVENTS if events else TEXT)


def add_run_options(parser: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> argparse._ArgumentGroup:
    """Add the options of a run to a parser, in their groups, without some of them, and --config in the last group.

    Returns that group.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for declared in run_options().values():
        if declared.name in without:
            continue
        group = groups.get(declared.group) or groups.setdefault(
            declared.group, parser.add_argument_group(declared.group)
        )
        _add(group, declared)
    last = parser.add_argument_group("this command line")
    last.add_argument(
        "--config", metavar="FILE", type=home_path, help="TOML file with options; the command line overrides it."
    )
    return last


def given_options(parsed: dict[str, Any]) -> dict[str, Any]:
    """Returns the parsed options with those of the --config file, which they override. Raises UsageError."""
    file = parsed.pop("config", None)
    if file is None:
        return parsed
    return {**parse_config(read_toml(Path(file), f"--config {file}"), file), **parsed}


def read_toml(path: Path, where: str) -> dict[str, Any]:
    """Returns what a TOML file holds. Raises UsageError, which names it as where says."""
    try:
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UsageError(f"{where} is in UTF-16, and TOML is in UTF-8", "Save it again, as UTF-8.")
        # Some editors put a byte order mark in front of UTF-8, too.
        table: dict[str, Any] = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} is not valid TOML: {error}") from error
    return table


def _add(group: argparse._ArgumentGroup, declared: Option) -> None:
    """Add an option to the parser. RunConfig checks its choices, so that a TOML file gets the same errors."""
    text = first_sentence(declared.help).replace("%", "%%")
    if declared.kind is bool:
        group.add_argument(flag(declared.name), action="store_true", help=text)
        group.add_argument(
            flag(f"no_{declared.name}"), dest=declared.name, action="store_false", help=argparse.SUPPRESS
        )
        return
    if declared.default is not None:
        text = f"{text.removesuffix('.')} (default: {declared.default})."
    bare: dict[str, Any] = {"nargs": "?", "const": declared.bare} if declared.bare else {}
    metavar = declared.metavar or "{" + ",".join(declared.choices) + "}"
    # argparse names a wrong value's type by the function's name.
    read = partial(declared.read)
    read.__name__ = declared.kind.__name__  # type: ignore[attr-defined]
    group.add_argument(flag(declared.name), type=read, metavar=metavar, help=text, **bare)
