"""The page of a run: its figures are those of the tables, its text is text, and it needs nothing else."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.artifacts.record import RunFiles, write_record
from harness.artifacts.schema import EPOCHS
from harness.commands.stored.report import report
from harness.report.page.document import page
from harness.report.run_data import read_run
from tests.support.finished_runs import add_bad_images, epochs_run, gpu_throughput, interrupted

VOID = {"meta"}
HOSTILE = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"quoted\' & <b>bold</b>', "=1+1", "a\nb\tc",
    "]]><!--", "{{x}} ${x} %{x}", "\ud800 no UTF-8",
]  # fmt: skip


@dataclass
class Parsed(HTMLParser):
    """A page's elements in their order, the figures in it, and its text by the kind of element around it."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    figures: list[tuple[str, str, str]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    stack: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1][0] == tag, (tag, self.stack[-3:])
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if not self.stack:
            return
        tag, attributes = self.stack[-1]
        self.texts.append((tag, data))
        if tag == "data":
            self.figures.append((str(attributes["data-column"]), str(attributes["value"]), data))

    @property
    def text(self) -> str:
        """What a person reads."""
        return "".join(data for tag, data in self.texts if tag not in ("script", "style"))


def parsed(content: bytes) -> Parsed:
    """A page that was parsed to its end."""
    found = Parsed()
    found.feed(content.decode())
    found.close()
    assert found.stack == []
    return found


def page_of(folder: Path, *names: str) -> Parsed:
    return parsed(page([read_run(RunFiles(folder, name).record) for name in names]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a throughput run and a run of epochs, both on four GPUs, and one that was interrupted."""
    made = tmp_path_factory.mktemp("results")
    gpu_throughput(made)
    epochs_run(made)
    interrupted(made)
    return made


@pytest.mark.parametrize("names", [("gpus",), ("epochs",), ("gpus", "epochs")])
def test_every_figure_is_the_tables(folder: Path, names: tuple[str, ...]) -> None:
    found = page_of(folder, *names)
    summary = {row["run"]: row for row in rows_of(folder / "summary.csv")}
    epochs = [row for name in names for row in rows_of(RunFiles(folder, name).table(EPOCHS.name))]
    known: dict[str, set[str]] = {}
    for row in (*(summary[name] for name in names), *epochs):
        for column, cell in row.items():
            known.setdefault(column, set()).add(cell)
    assert len(found.figures) > (50 if len(names) == 1 else 10)
    for column, value, shown in found.figures:
        assert value in known[column], column
        if shown != value:
            digits = len(shown.partition(".")[2])
            assert shown == (f"{float(value):,.{digits}f}" if value else "-"), column


@pytest.mark.parametrize("name", ["gpus", "epochs"])
def test_every_figure_of_the_summary_is_on_the_page(folder: Path, name: str) -> None:
    (row,) = [row for row in rows_of(folder / "summary.csv") if row["run"] == name]
    figures = {(column, value) for column, value, _ in page_of(folder, name).figures}
    assert set(row.items()) <= figures


def test_what_comes_first_is_throughput_accuracy_verdict_and_reference(folder: Path) -> None:
    (row,) = [row for row in rows_of(folder / "summary.csv") if row["run"] == "gpus"]
    found = page_of(folder, "gpus")
    boxes = [data for tag, data in found.texts if tag == "h2"][:4]
    assert boxes == ["Throughput", "Top-1", "What holds it back", "The reference"]
    first = found.text.partition("Why, and what to try")[0]
    for text in (
        f"{float(row['fps']):.1f}",
        "95 % interval",
        row["bottleneck"],
        "if data cost nothing",
        "2537",
        "0.7062",
    ):
        assert text in first, text
    assert "not measured" in first  # it has no top-1
    epochs = page_of(folder, "epochs").text
    assert "of 50000 images, after 6 epochs" in epochs
    assert "May top-1 0.7000 stand beside the reference's 0.7062? NO:" in epochs


def test_runs_side_by_side_have_a_column_each(folder: Path) -> None:
    found = page_of(folder, "gpus", "epochs")
    titles = [data for tag, data in found.texts if tag == "th"]
    assert titles[:3] == ["gpus", "epochs", "status"]
    assert "gpus: end to end" in found.text
    differing = found.text.partition("What differs")[2]
    assert "settings model" in differing
    assert "x0_25" in differing


def test_a_run_that_has_not_ended_says_so(folder: Path) -> None:
    text = page_of(folder, "stopped").text
    assert "The run is interrupted: its figures are known once it has ended as planned." in text
    assert "Step time over time" in text


def test_equal_tables_give_equal_bytes(folder: Path) -> None:
    runs = [read_run(RunFiles(folder, name).record) for name in ("gpus", "epochs")]
    assert page(runs) == page([read_run(RunFiles(folder, name).record) for name in ("gpus", "epochs")])


def test_nothing_is_fetched(folder: Path) -> None:
    found = page_of(folder, "gpus")
    (policy,) = [
        attributes["content"] for tag, attributes in found.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    for tag, attributes in found.elements:
        assert not {"src", "action", "srcset", "ping"} & set(attributes), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text(tmp_path: Path, name: str) -> None:
    """Of a data set, a class, a host, an image and a warning: it changes nothing but itself."""

    def shown(text: str, folder: Path) -> Parsed:
        folder.mkdir()
        record = epochs_run(folder)
        data = replace(record.plan.data, name=text, source=text, classes=text)
        record = replace(
            record,
            plan=replace(record.plan, data=data),
            warnings=(text,),
            environment={**record.environment, "host": text, "cpu": text},
            config=replace(record.config, data=f"./{text}"),
        )
        write_record(RunFiles(folder, record.run).record, record)
        add_bad_images(folder, record.run, [f"train/{text}.jpg"])
        return page_of(folder, record.run)

    hostile, harmless = shown(name, tmp_path / "a"), shown("harmless", tmp_path / "b")
    assert [(tag, sorted(attributes)) for tag, attributes in hostile.elements] == [
        (tag, sorted(attributes)) for tag, attributes in harmless.elements
    ]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert hostile.text.count(escaped) >= 4


def test_a_run_may_be_called_anything(tmp_path: Path) -> None:
    name = "=cmd|' \"<b>&amp;"
    epochs_run(tmp_path, name=name)
    found = page_of(tmp_path, name)
    assert name in found.text
    assert ("b", {}) not in found.elements


def test_the_bad_images_are_listed(tmp_path: Path) -> None:
    epochs_run(tmp_path)
    add_bad_images(tmp_path, "epochs", [f"n{number:04}.jpg" for number in range(300)])
    text = page_of(tmp_path, "epochs").text
    assert "300 images left out. The first 200 are here, all in epochs.bad_images.csv." in text
    assert "n0199.jpg" in text
    assert "n0200.jpg" not in text
    assert "undecodable: <b>broken</b>" in text


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def themes(text: str) -> Iterator[dict[str, str]]:
    for block in re.findall(r"\{([^{}]*--page:[^{}]*)\}", text):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def test_everything_has_contrast(folder: Path) -> None:
    """At least 4.5:1, as WCAG 2.2 asks of text."""
    style = next(data for tag, data in page_of(folder, "gpus").texts if tag == "style")
    found = [theme for theme in themes(style) if len(theme) > 6]
    assert len(found) == 3
    for theme in found:
        for below in ("page", "box"):
            for above in ("text", "soft", "focus", *(f"c{number}" for number in range(8))):
                bright, dark = sorted((luminance(theme[above]), luminance(theme[below])), reverse=True)
                assert (bright + 0.05) / (dark + 0.05) >= 4.5, (above, below, theme)


def test_everything_has_a_name_for_a_screen_reader(folder: Path) -> None:
    found = page_of(folder, "gpus", "epochs")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert next(attributes for tag, attributes in found.elements if tag == "html")["lang"] == "en"
    plots = [attributes for _, attributes in found.elements if attributes.get("class") == "plot"]
    assert len(plots) > 5
    for plot in plots:
        assert plot["tabindex"] == "0"
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(str(plot[name]).split()) <= set(ids), plot
    tables = sum(tag == "table" for tag, _ in found.elements)
    assert tables == sum(tag == "caption" for tag, _ in found.elements) > len(plots)
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_command_writes_the_page_beside_the_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(["gpus"], str(folder))
    assert (folder / "gpus.html").read_bytes() == page([read_run(folder / "gpus.json")])
    assert capsys.readouterr().out == f"{folder / 'gpus.html'}: open it in a browser\n"
    # The page of several runs doesn't replace that of one of them.
    report(["gpus", "epochs"], str(folder))
    assert "2 runs side by side" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "gpus.html").read_bytes() == page([read_run(folder / "gpus.json")])
    report([], str(folder), output=str(folder / "both.html"), last=3)
    assert "3 runs side by side" in (folder / "both.html").read_text(encoding="utf-8")
