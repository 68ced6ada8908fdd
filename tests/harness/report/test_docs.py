from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness import ROOT
from harness.analysis.latency.table import LATENCY
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.shared_schema import BAD_FILES, CELLS, LOADERS, SCALING, SUMMARY, TRIALS
from harness.plan.declaration import flag
from harness.plan.options import run_options
from harness.report.docs import BEGIN, END, PAGES, insert, modules_markdown, options_markdown, tables_markdown


def row_cells(row: str) -> list[str]:
    """The cells of a row of a Markdown table; a pipe behind a backslash is text."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def option_rows() -> list[str]:
    return [line for line in options_markdown().splitlines() if line.startswith("|")]


def test_the_made_part_replaces_the_one_before() -> None:
    page = f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nThe rest.\n"
    made = f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nThe rest.\n"
    assert insert(page, "new") == made
    assert insert(made, "new") == made
    assert insert(f"{BEGIN}{END}", "new") == f"{BEGIN}\n\nnew\n\n{END}"


@pytest.mark.parametrize("page", ["", "# Title\n", f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n"])
def test_a_page_without_both_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="lacks the marks"):
        insert(page, "new")


def test_every_option_has_a_row() -> None:
    named = [re.findall(r"`(--[a-z0-9-]+)", row) for row in options_markdown().splitlines() if row.startswith("| `")]
    assert [names[0] for names in named] == list(map(flag, run_options()))


def test_the_rows_of_the_options() -> None:
    assert options_markdown().startswith("## What to run\n\n| option | meaning | default |\n")
    rows = {row_cells(row)[0]: row_cells(row)[1:] for row in option_rows()}
    assert rows["option"] == ["meaning", "default"]
    assert rows["`--epochs N`"] == ["Passes over the training images.", "360"]
    assert rows["`--momentum M`"] == ["Momentum of SGD.", "0.9"]
    assert rows["`--batch-size N`"] == [
        "Batch size per device, in images.",
        "512 on GPUs and 16 on CPUs, smaller for a small data set in a run of epochs",
    ]
    assert rows["`--throughput-only`"] == [
        "Measure training throughput and what limits it, then stop. No evaluation, no top-1.",
        "",
    ]


@pytest.mark.parametrize("row", option_rows(), ids=lambda row: row.split()[1].strip("`"))
def test_every_row_of_the_options_has_three_cells(row: str) -> None:
    """GitHub cuts a row at each pipe, within code as well, unless a backslash is in front."""
    assert len(row_cells(row)) == 3


def test_every_table_has_a_section_with_all_its_columns() -> None:
    sections = tables_markdown().split("## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "`<run>.steps.csv`",
        "`<run>.devices.csv`",
        "`<run>.epochs.csv`",
        "`<run>.bad_images.csv`",
        "`<run>.loaders.csv`",
        "`<series>.scaling.csv`",
        "`summary.csv`",
        "`table-<device>x<n>.csv`",
        "`<tuning>.tuning/trials.csv`",
        "`<campaign>.campaign/cells.csv`",
        "`verify-<data set>.csv`",
        "`<name>.latency.csv`",
    ]
    for section, table in zip(sections, (STEPS, DEVICES, EPOCHS, BAD_IMAGES, LOADERS, SCALING, SUMMARY), strict=False):
        rows = [row_cells(line) for line in section.splitlines() if line.startswith("|")]
        assert rows[0] == ["column", "unit", "scope", "meaning"]
        assert [row[0] for row in rows[2:]] == [f"`{name}`" for name in table.header]
        assert {len(row) for row in rows} == {4}
    for section, table in zip(sections[-4:], (TRIALS, CELLS, BAD_FILES, LATENCY), strict=True):
        rows = [row_cells(line) for line in section.splitlines() if line.startswith("|")]
        assert [row[0] for row in rows[2:]] == [f"`{name}`" for name in table.header]
    assert "| `FPS (<device> x <n>)` | images/s | global | of all devices together |" in sections[7]
    assert "A row is one global step of one phase." in sections[0]


def test_every_module_has_a_row_with_its_docstring() -> None:
    rows = [row_cells(line) for line in modules_markdown().splitlines() if line.startswith("| [")]
    paths = [path for name in ("harness", "pipelines", "models") for path in (ROOT / name).rglob("*.py")]
    modules = {f"../{path.relative_to(ROOT)}" for path in paths if path.name != "__init__.py"}
    assert {re.sub(r".*\((.*)\)", r"\1", row[0]) for row in rows} == modules
    assert [
        "[`errors.py`](../harness/errors.py)",
        "Errors that a person can act on, each with its documented exit code.",
    ] in rows
    assert min(len(row[1]) for row in rows) > 20


@pytest.mark.parametrize(("name", "make"), PAGES.items())
def test_the_page_is_what_the_code_says(name: str, make: Callable[[], str]) -> None:
    """`make docs` brings a page up to date."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert insert(text, make()) == text


def test_every_promise_names_tests_that_are_there() -> None:
    promises = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btest_[a-z0-9_]+", promises))
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {path.stem for path in files}
    for path in files:
        there |= set(re.findall(r"^def (test_[a-z0-9_]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(named) > 50
    assert named - there == set()
    scripts = re.findall(r"benchmarks/[a-z_]+\.py", promises)
    assert all((ROOT / script).exists() for script in scripts)
