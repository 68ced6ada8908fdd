"""The site's table of contents in docs/site/index.md has every page once; `make site` itself needs Sphinx."""

from __future__ import annotations

import re
from pathlib import Path

from harness import ROOT
from tests.support.pages import PAGES, code_blocks

CONTENTS = ROOT / "docs" / "site" / "index.md"


def listed() -> list[Path]:
    """The pages in the table of contents; an entry is a path, or `title <path>`."""
    lines = "".join(code_blocks(CONTENTS.read_text(encoding="utf-8"), r"\{toctree\}")).splitlines()
    entries = [line for line in lines if line and not line.startswith(":")]
    return [(CONTENTS.parent / re.sub(r".+<(.+)>", r"\1", entry)).resolve() for entry in entries]


def test_every_page_is_in_the_table_of_contents_once() -> None:
    pages = [*PAGES, ROOT / "CHANGELOG.md"]
    found = listed()
    assert [page.name for page in pages if found.count(page.resolve()) != 1] == []


def test_every_page_in_the_table_of_contents_is_there() -> None:
    assert [str(page) for page in listed() if not page.is_file()] == []
