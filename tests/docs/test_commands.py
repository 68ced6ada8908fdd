"""Every command of the documentation works: shell blocks are run, page by page; the others say why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documented_commands import blocks_of, fenced, prepare, run
from tests.support.pages import PAGES

BLOCKS = {page.name: blocks_of(page) for page in PAGES}
WITH_COMMANDS = [name for name, blocks in BLOCKS.items() if any(not block.reason for block in blocks)]
COMMAND = re.compile(r"^ *(?:python|\.venv/bin/python|make|pip|docker|source)\b")
NOT_RUN = 15


@pytest.mark.whole_run
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_work(page: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    for block in BLOCKS[page]:
        if not block.reason:
            done = run(tmp_path, block)
            assert done.returncode == 0, f"{block.body}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_blocks_that_are_not_run_say_why_and_are_few() -> None:
    reasons = [block.reason for blocks in BLOCKS.values() for block in blocks if block.reason]
    assert len(reasons) == NOT_RUN
    assert all(len(reason) > 10 for reason in reasons)


def test_every_block_of_commands_is_called_one() -> None:
    for page in PAGES:
        for language, block, _ in fenced(page):
            # What follows a `$` is tried by test_troubleshooting.py.
            commands = language == "" and COMMAND.match(block) and not block.startswith("$ ")
            assert not commands, f"{page.name}: {block[:100]}"
