"""docs/troubleshooting.md shows the tool's own messages: every command after a `$` prints what the page says."""

from __future__ import annotations

import re
import shlex

import pytest

from harness.cli import main
from tests.support.pages import code_blocks, read, sections

PAGE = read("troubleshooting.md")
TRIED = {
    command: (int(re.match(r"\d+", heading)[0]), output)  # type: ignore[index]
    for heading, text in sections(PAGE).items()
    for block in code_blocks(text)
    for command, output in re.findall(r"\A\$ python run_bench\.py (.*)\n((?:.*\n)*)", block)
}


@pytest.mark.parametrize("command", TRIED)
def test_a_command_prints_what_the_page_says(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, output = TRIED[command]
    assert main(shlex.split(command)) == code
    assert capfd.readouterr().err == output


def test_every_exit_code_has_a_section_and_three_have_an_example() -> None:
    codes = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert [re.match(r"\d*", heading)[0] for heading in sections(PAGE) if heading[:1].isdigit()] == codes[1:]  # type: ignore[index]
    assert sorted({code for code, _ in TRIED.values()}) == [2, 3, 4]
