"""Builds HTML in which every text is escaped, whatever is in a name."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from harness.artifacts.schema import Column
from harness.artifacts.tables import format_cell
from harness.report.text import printable


class Html(str):
    """Markup; any other text is escaped when it is put into an element."""

    __slots__ = ()


def joined(*contents: str | Html | Iterable[str | Html]) -> Html:
    """Returns contents one after another, each escaped unless it is markup."""
    parts: list[str] = []
    for content in contents:
        if isinstance(content, Html):
            parts.append(content)
        elif isinstance(content, str):
            parts.append(html.escape(printable(content)))
        else:
            parts.extend(joined(one) for one in content)
    return Html("".join(parts))


def element(name: str, *contents: str | Html | Iterable[str | Html], **attributes: str | int | None) -> Html:
    """Returns an element with attributes and contents; both are escaped.

    An attribute's name may end in _ (class_), and has - for other _; one whose value is None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{joined(*contents)}</{name}>")


def cell_of(value: object, column: Column, shown: str | None = None) -> Html:
    """Returns a figure as the column's table has it, in the attribute value; shown is what is read instead.

    What isn't known is a dash.
    """
    written = format_cell(value, column)
    text = (written or "-") if shown is None else shown
    return element("data", text, value=written, data_column=column.name)


def table(
    header: Sequence[str], rows: Iterable[Sequence[str | Html]], caption: str, numbers_from: int = 1, class_: str = ""
) -> Html:
    """Returns a table whose first column names its rows; columns from numbers_from on are aligned as numbers.

    It scrolls by itself where the screen is narrower.
    """
    side = [None] * numbers_from + ["number"] * max(0, len(header) - numbers_from)
    head = [element("th", title, scope="col", class_=kind) for title, kind in zip(header, side, strict=True)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            [element("td", one, class_=kind) for one, kind in zip(row[1:], side[1:], strict=True)],
        )
        for row in rows
    ]
    inner = joined(
        element("caption", caption),
        element("thead", element("tr", head)) if any(header) else "",
        element("tbody", body),
    )
    return element(
        "div",
        element("table", inner, class_=class_ or None),
        class_="scroll", tabindex=0, role="region", aria_label=caption,
    )  # fmt: skip


def facts(rows: Iterable[tuple[str, str | Html]], caption: str) -> Html:
    """Returns labels and values as a table without a header."""
    return table(("", ""), rows, caption, numbers_from=2, class_="facts")
