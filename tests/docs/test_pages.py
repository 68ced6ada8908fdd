"""What a newcomer meets first: the README fits on a screen, and docs/architecture.md shows the rooms as they are."""

from __future__ import annotations

import re

import pytest

from harness import ROOT
from tests.support.pages import code_blocks, read, sections
from tests.support.rooms import LEVELS

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAX_README_LINES = 70  # of a tall terminal, or a page of GitHub


def test_the_readme_says_what_is_essential_on_one_screen() -> None:
    screen = README.partition("\n## More\n")[0]
    assert screen.count("\n") < MAX_README_LINES
    assert "Without ImageNet, the main command trains on digits." in screen
    assert "It has not trained on a GPU yet." in screen
    for name in ("usage", "options", "troubleshooting", "tables", "glossary", "architecture", "extending"):
        assert f"(docs/{name}.md)" in screen


def test_every_page_is_linked_from_the_readme_or_from_another() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", README))
    for page in sorted(linked):
        linked |= set(re.findall(r"\]\(([\w-]+\.md)", read(page)))
    assert pages - linked == set()


def test_the_rooms_stand_on_their_levels() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)(?:/|\.py)` \|", sections(read("architecture.md"))["The rooms"], re.MULTILINE)
    shown: dict[int, set[str]] = {}
    for level, room in rows:
        shown.setdefault(int(level), set()).add(f"harness.{room}")
    held = [{room for room in rooms if room.startswith("harness.")} for rooms in LEVELS]
    assert [shown[level] for level in sorted(shown)] == [rooms for rooms in held if rooms]


@pytest.mark.parametrize("picture", code_blocks(read("architecture.md"), "mermaid"))
def test_a_picture_is_whole(picture: str) -> None:
    """GitHub shows an error in place of a picture with an open bracket or quotation mark."""
    assert re.match(r"(flowchart (TD|LR)|sequenceDiagram)\n", picture)
    assert picture.count('"') % 2 == 0
    outside = re.sub(r'"[^"]*"', "", picture)
    assert all(outside.count(pair[0]) == outside.count(pair[1]) for pair in ("[]", "()"))
    assert len(re.findall(r"^ +loop ", picture, re.MULTILINE)) == len(re.findall(r"^ +end$", picture, re.MULTILINE))


def test_there_are_three_pictures() -> None:
    assert len(code_blocks(read("architecture.md"), "mermaid")) == 3
