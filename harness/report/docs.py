"""Generates the parts of the documentation that come from declarations: options, tables and columns, as Markdown."""

from __future__ import annotations

from harness import ROOT
from harness.artifacts.schema import (
    BAD_FILES,
    BAD_IMAGES,
    DEVICES,
    EPOCHS,
    SCALING,
    STEPS,
    SUMMARY,
    Table,
    reference_table,
)
from harness.plan.config import run_options
from harness.plan.options import flag

BEGIN, END = "<!-- made by `make docs`: begin -->", "<!-- made by `make docs`: end -->"


def options_markdown() -> str:
    """Returns a table of every option of RunConfig."""
    lines = ["| option | meaning | default |", "| --- | --- | --- |"]
    for item in run_options().values():
        value = "" if item.kind is bool else f" {item.metavar or '|'.join(item.choices)}"
        meaning, _, decided = item.help.partition(" Default: ")
        plain = "" if item.default is None or isinstance(item.default, bool) else f"{item.default}"
        default = decided.removesuffix(".") or plain
        value = value.replace("|", "\\|")
        # Without a default the option can be switched on or off.
        either = f", `--no-{flag(item.name)[2:]}`" if item.kind is bool and item.default is None else ""
        lines.append(f"| `{flag(item.name)}{value}`{either} | {meaning} | {default} |")
    return "\n".join(lines)


def tables_markdown() -> str:
    """Returns a section for every table, with its columns."""
    named = [
        (f"<run>.{STEPS.name}.csv", STEPS),
        (f"<run>.{DEVICES.name}.csv", DEVICES),
        (f"<run>.{EPOCHS.name}.csv", EPOCHS),
        (f"<run>.{BAD_IMAGES.name}.csv", BAD_IMAGES),
        ("<series>.scaling.csv", SCALING),
        ("summary.csv", SUMMARY),
        ("table-<device>x<n>.csv", reference_table("<device>", 0)),
        ("verify-<data set>.csv", BAD_FILES),
    ]
    return "\n\n".join(_table_markdown(name, table) for name, table in named)


def _table_markdown(name: str, table: Table) -> str:
    lines = [f"## `{name}`", "", f"A row is {table.row}.", "", "| column | unit | scope | meaning |"]
    lines.append("| --- | --- | --- | --- |")
    for column in table.columns:
        title = column.name.replace(" x 0)", " x <n>)")
        meaning = column.meaning.replace("|", "\\|")
        lines.append(f"| `{title}` | {column.unit} | {column.scope} | {meaning} |")
    return "\n".join(lines)


def insert(text: str, made: str) -> str:
    """Returns the page with the part between the two marks replaced. Raises ValueError for a page without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the marks around its generated part")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


PAGES = {"README.md": options_markdown, "docs/tables.md": tables_markdown}


def main() -> None:
    """Write the generated parts of every page."""
    for name, make in PAGES.items():
        path = ROOT / name
        path.write_text(insert(path.read_text(encoding="utf-8"), make()), encoding="utf-8")


if __name__ == "__main__":
    main()
