"""The parts of the documentation that follow from the code: options, tables, columns and modules, as Markdown."""

from __future__ import annotations

import ast
from pathlib import Path

from harness import ROOT
from harness.analysis.latency.table import LATENCY
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS, Table
from harness.artifacts.shared_schema import BAD_FILES, CELLS, LOADERS, SCALING, SUMMARY, TRIALS, reference_table
from harness.plan.declaration import Option, flag
from harness.plan.options import run_options
from harness.report.messages import messages_markdown

BEGIN, END = "<!-- made by `make docs`: begin -->", "<!-- made by `make docs`: end -->"


def options_markdown() -> str:
    """A section with a table for every group of options, as --help has them."""
    groups: dict[str, list[str]] = {}
    for declared in run_options().values():
        groups.setdefault(declared.group, []).append(_option_row(declared))
    head = ["", "| option | meaning | default |", "| --- | --- | --- |"]
    return "\n\n".join("\n".join([f"## {group.capitalize()}", *head, *rows]) for group, rows in groups.items())


def _option_row(declared: Option) -> str:
    value = "" if declared.kind is bool else f" {declared.metavar or '|'.join(declared.choices)}"
    meaning, _, decided = declared.help.partition(" Default: ")
    plain = "" if declared.default is None or isinstance(declared.default, bool) else f"{declared.default}"
    # What is neither on nor off by default can be put either way.
    either = f", `--no-{flag(declared.name)[2:]}`" if declared.kind is bool and declared.default is None else ""
    cells = (f"`{flag(declared.name)}{value}`{either}", meaning, decided.removesuffix(".") or plain)
    return f"| {' | '.join(map(_escaped, cells))} |"


def tables_markdown() -> str:
    """A section for every table, with its columns."""
    named = [
        (f"<run>.{STEPS.name}.csv", STEPS),
        (f"<run>.{DEVICES.name}.csv", DEVICES),
        (f"<run>.{EPOCHS.name}.csv", EPOCHS),
        (f"<run>.{BAD_IMAGES.name}.csv", BAD_IMAGES),
        (f"<run>.{LOADERS.name}.csv", LOADERS),
        ("<series>.scaling.csv", SCALING),
        ("summary.csv", SUMMARY),
        ("table-<device>x<n>.csv", reference_table("<device>", 0)),
        ("<tuning>.tuning/trials.csv", TRIALS),
        ("<campaign>.campaign/cells.csv", CELLS),
        ("verify-<data set>.csv", BAD_FILES),
        (f"<name>.{LATENCY.name}.csv", LATENCY),
    ]
    return "\n\n".join(_table_markdown(name, table) for name, table in named)


def _table_markdown(name: str, table: Table) -> str:
    lines = [f"## `{name}`", "", f"A row is {table.row}.", "", "| column | unit | scope | meaning |"]
    lines.append("| --- | --- | --- | --- |")
    for column in table.columns:
        title = column.name.replace(" x 0)", " x <n>)")
        lines.append(f"| `{title}` | {column.unit} | {column.scope} | {_escaped(column.meaning)} |")
    return "\n".join(lines)


def modules_markdown() -> str:
    """A section for every folder of the product's code, with what each of its modules is, by its docstring."""
    harness = ROOT / "harness"
    rooms = sorted(path.parent for path in harness.rglob("__init__.py") if path.parent != harness)
    folders = [
        harness,
        *rooms,
        ROOT / "pipelines",
        *sorted(path.parent for path in (ROOT / "pipelines").glob("*/__init__.py")),
        ROOT / "models",
    ]
    return "\n\n".join(map(_modules_of, folders))


def _modules_of(folder: Path) -> str:
    lines = [f"### `{folder.relative_to(ROOT)}/`", "", "| module | what it is |", "| --- | --- |"]
    for path in sorted(folder.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if path.name != "__init__.py":
            first = " ".join(text.partition("\n\n")[0].split())
            lines.append(f"| [`{path.name}`](../{path.relative_to(ROOT)}) | {_escaped(first)} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """The text as a cell: GitHub ends one at each pipe, unless a backslash is in front."""
    return text.replace("|", "\\|")


def insert(text: str, made: str) -> str:
    """A page with the part between the two marks replaced. Raises ValueError for a page that lacks them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the marks around its generated part")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


PAGES = {
    "docs/architecture.md": modules_markdown,
    "docs/options.md": options_markdown,
    "docs/tables.md": tables_markdown,
    "docs/warnings.md": messages_markdown,
}


def main() -> None:
    """Write the generated part of every page."""
    for name, make in PAGES.items():
        path = ROOT / name
        path.write_text(insert(path.read_text(encoding="utf-8"), make()), encoding="utf-8")


if __name__ == "__main__":
    main()
