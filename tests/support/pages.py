"""The pages of the documentation as text, their sections, code blocks and tables."""

from __future__ import annotations

import re
from pathlib import Path

from harness import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def read(page: str) -> str:
    """The text of a page of docs/."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """What stands between each heading and the next of any level; what is before the first has the name ''."""
    found, name, fenced = {"": ""}, "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"#+ (.+)\n", line)
        if heading:
            name = heading[1]
            found[name] = ""
        else:
            found[name] += line
    return found


def code_blocks(text: str, language: str = "") -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def first_cells(text: str) -> list[str]:
    """The words in backquotes of the first cell of every row of the tables in a text."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [word for cell in rows for word in re.findall(r"`([^`]+)`", cell)]


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-").lower() for heading in sections(page.read_text("utf-8"))}
