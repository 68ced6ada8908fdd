"""Whatever the documentation names is there: pages, headings, files, tests, options, commands and make's targets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import ROOT
from harness.cli import parse
from harness.commands.parser import Parser
from harness.commands.registry import COMMANDS
from harness.plan.declaration import flag
from harness.plan.options import RunConfig, run_options
from tests.support.pages import PAGES, anchors, code_blocks

# Folders whose files the pages name by their path, and files of other projects that have the look of ours.
FOLDERS = ("docs", "harness", "pipelines", "models", "tests", "benchmarks", "requirements", "examples")
OURS = re.compile(rf"\b(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
FOREIGN_FILES = {"pp_lcnet.py"}
# Options of other programs that the pages name.
FOREIGN_OPTIONS = {
    "--require-hashes",
    "--shm-size",
    "--ipc",
    "--kill-on-bad-exit",
    "--wait",
    "--map-by",
    "--host",
    "--encoded",
}


def ids(pages: list[Path]) -> list[str]:
    return [page.name for page in pages]


def each_page(function: object) -> object:
    return pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))(function)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    broken = []
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # A patch may add one.
    plain = re.sub(r"^```diff\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    # What Python and numba make, a new checkout doesn't have yet.
    named = (name.partition("__pycache__")[0] for name in OURS.findall(plain))
    missing = [name for name in named if not (ROOT / name).exists()]
    bare = {name for name in re.findall(r"`([\w/]+\.(?:py|md|toml|c))\b", plain) if "/" not in name}
    here = (
        {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
        | {"dataset.toml", "tuned.toml"}
        | FOREIGN_FILES
    )
    here |= {path.name for path in ROOT.iterdir()}
    assert (missing, sorted(bare - here)) == ([], [])


@each_page
def test_every_test_that_is_named_is_there(page: Path) -> None:
    named = set(re.findall(r"\btest_[a-z0-9_]+", page.read_text(encoding="utf-8")))
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {path.stem for path in files}
    for path in files:
        there |= set(re.findall(r"^def (test_[a-z0-9_]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert named - there == set()


def commands_of(page: Path) -> Iterator[list[str]]:
    """The arguments of every command line of run_bench.py in a page's code blocks, and of those within a sentence.

    Those behind a `$` are tried out in full by test_troubleshooting.
    """
    text = page.read_text(encoding="utf-8")
    lines = [line for block in code_blocks(text, r"(?:\w*)") for line in block.splitlines()]
    lines += re.findall(r"`((?:python )?run_bench\.py [^`]+)`", without_code(text))
    for line in (re.sub(r"\n *", " ", line) for line in lines):
        found = re.match(r"(?:  +)?(?:[\w./]*python )?run_bench\.py (.*)", line)
        if found and "..." not in line and "<" not in line:
            yield shlex.split(re.sub(r"\s+#.*", "", found[1]))


@each_page
def test_every_command_line_can_be_parsed(page: Path) -> None:
    for arguments in commands_of(page):
        if arguments[0] in COMMANDS:
            parser = Parser(arguments[0], "")
            COMMANDS[arguments[0]].declare(parser)
            if "--help" not in arguments and len(arguments) > 1:
                parser.parse_args(arguments[1:])
        elif arguments != ["--help"]:
            given, _ = parse(arguments)
            RunConfig(**given)


def test_the_pages_have_many_command_lines() -> None:
    """Else the test above would hold of pages that it can't read."""
    assert sum(len(list(commands_of(page))) for page in PAGES) > 40


def every_option() -> set[str]:
    known = {"--config", "--dry-run", "--quiet", "--json", "--help", "--version", "--no-"}
    known |= set(map(flag, run_options()))
    known |= {flag(f"no_{name}") for name, declared in run_options().items() if declared.kind is bool}
    for command in COMMANDS.values():
        parser = Parser("", "")
        command.declare(parser)
        known |= {name for action in parser._actions for name in action.option_strings}
    return known


@each_page
def test_every_option_that_is_named_exists(page: Path) -> None:
    text = re.sub(r"^```diff\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    quoted = " ".join(re.findall(r"`([^`\n]+)`", without_code(text)))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", quoted))
    # Of a script under benchmarks/, which has its own options, the script's text says which.
    scripts = [ROOT / name for name in re.findall(r"benchmarks/\w+\.py", text)]
    of_scripts = {
        name for path in scripts for name in re.findall(r"\"(--[a-z0-9-]+)\"", path.read_text(encoding="utf-8"))
    }
    assert named - every_option() - of_scripts - FOREIGN_OPTIONS - ALLOWED.get(page.name, set()) == set()


# Options that a page makes up to show how one is added, and a misspelt one.
ALLOWED = {"extending.md": {"--max-gradient"}, "troubleshooting.md": {"--modle"}}


@each_page
def test_every_target_of_make_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )*([a-z]+)", text, re.MULTILINE))
    assert named <= targets
