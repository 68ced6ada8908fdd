"""The page in a real browser: drawn without a complaint, nothing cut or overlapping, for mouse and keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.record import RunFiles
from harness.artifacts.schema import STEPS
from harness.artifacts.tables import read_table
from harness.commands.stored.report import report
from tests.support.browser import Seen, browser, see
from tests.support.finished_runs import add_bad_images, epochs_run, gpu_throughput, interrupted

pytestmark = pytest.mark.slow
PAGES = ("gpus", "epochs", "three", "stopped", "bad")
# What a person would see as wrong; each answer is a list, empty if all is well.
LOOK = """
const wide = [...document.querySelectorAll("main *")].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !one.closest(".scroll") && !one.closest("pre")
    && !one.closest(".plot") && !one.closest(".hidden");
}).map((one) => one.outerHTML.slice(0, 80));
const apart = [...document.querySelectorAll(".box, .chart, header, .plot, .chart h3, .chart > p, details")];
const over = [];
for (const one of apart) for (const other of apart) {
  if (one === other || one.contains(other) || other.contains(one)) continue;
  const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
  const meet = a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  if (a.width && b.width && meet)
    over.push([one.outerHTML.slice(0, 60), other.outerHTML.slice(0, 60)]);
}
const cut = [...document.querySelectorAll(".box p, .box h2, h1, h2, h3, th, td, summary")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth)
  .filter((one) => getComputedStyle(one).overflow !== "visible")
  .map((one) => one.textContent.slice(0, 60));
const plots = [...document.querySelectorAll(".plot")];
const empty = plots.filter((one) => !one.querySelector(".main-svg") || one.clientHeight < 200)
  .map((one) => one.dataset.chart);
const legends = plots.filter((one) => {
  const legend = one.querySelector(".legend"), title = one.querySelector(".xtitle");
  if (!legend || !title) return false;
  const a = legend.getBoundingClientRect(), b = title.getBoundingClientRect();
  return a.top < b.bottom - 1 && b.top < a.bottom - 1 && a.left < b.right - 1 && b.left < a.right - 1;
}).map((one) => one.dataset.chart);
const named = (one) => one.textContent.trim() || one.getAttribute("aria-label") || one.getAttribute("aria-labelledby");
const unnamed = [...document.querySelectorAll("button, a, summary, [tabindex]")]
  .filter((one) => !named(one) || one.tabIndex > 0)
  .map((one) => one.outerHTML.slice(0, 80));
return {
  wide, over, cut, empty, legends, unnamed, plots: plots.length, scroll: document.documentElement.scrollWidth,
  page: getComputedStyle(document.body).backgroundColor,
  top: document.querySelector(".boxes, .wide").getBoundingClientRect().bottom,
};
"""
FAULTS = ("wide", "over", "cut", "empty", "legends", "unnamed")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of each kind."""
    browser()
    folder = tmp_path_factory.mktemp("pages")
    gpu_throughput(folder)
    epochs_run(folder)
    interrupted(folder)
    epochs_run(folder, "bad")
    names = [
        f"train/n{number:08}/a_name_without_a_space_that_is_longer_than_a_phone_{number}.JPEG" for number in range(250)
    ]
    add_bad_images(folder, "bad", names)
    for name in ("gpus", "epochs", "stopped", "bad"):
        report([name], str(folder))
    report(["gpus", "epochs", "bad"], str(folder), output=str(folder / "three.html"))
    return folder


@pytest.mark.parametrize(("width", "height", "dark"), [(390, 844, True), (1280, 800, False), (1920, 1080, True)])
@pytest.mark.parametrize("name", PAGES)
def test_everything_can_be_seen(pages: Path, name: str, width: int, height: int, dark: bool) -> None:
    seen = see(pages / f"{name}.html", LOOK, width, height, dark)
    assert seen.console == []
    found: dict[str, Any] = seen.answer
    assert {fault: found[fault] for fault in FAULTS} == {fault: [] for fault in FAULTS}
    assert found["plots"] > 2
    assert found["scroll"] <= width
    assert found["page"] == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    if width == 1280:
        assert found["top"] <= height, "the figures that matter need scrolling"


def asked(pages: Path, code: str) -> Seen:
    seen = see(pages / "gpus.html", code)
    assert seen.console == []
    return seen


def test_charts_over_time_move_together_also_by_keyboard(pages: Path) -> None:
    answer = asked(pages, """
      const places = [...document.querySelectorAll(".plot")];
      const [first, second] = places;
      first.focus();
      const before = [...first.layout.xaxis.range];
      first.dispatchEvent(new KeyboardEvent("keydown", { key: "+", bubbles: true }));
      await later(500);
      const zoomed = [...first.layout.xaxis.range], followed = [...second.layout.xaxis.range];
      const said = document.getElementById("announcement").textContent;
      first.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
      await later(500);
      const moved = [...first.layout.xaxis.range];
      first.dispatchEvent(new KeyboardEvent("keydown", { key: "0", bubbles: true }));
      await later(500);
      return { focused: document.activeElement === first, before, zoomed, followed, moved, said,
               after: [...first.layout.xaxis.range] };
    """).answer  # fmt: skip
    before, zoomed = answer["before"], answer["zoomed"]
    assert answer["focused"]
    assert zoomed[1] - zoomed[0] == pytest.approx(0.6 * (before[1] - before[0]))
    assert answer["followed"] == pytest.approx(zoomed)
    assert answer["moved"][0] > zoomed[0]
    assert answer["after"] == pytest.approx(before)
    assert answer["said"].startswith("From ")


def test_dark_and_light_can_be_chosen_and_charts_follow(pages: Path) -> None:
    answer = asked(pages, """
      const colours = () => [getComputedStyle(document.body).backgroundColor,
        document.querySelector(".plot").layout.paper_bgcolor];
      const before = colours();
      document.getElementById("theme").click();
      await later(800);
      return { before, after: colours() };
    """).answer  # fmt: skip
    assert answer["before"] == ["rgb(255, 255, 255)", "#ffffff"]
    assert answer["after"] == ["rgb(20, 23, 26)", "#14171a"]


def test_the_points_are_those_of_the_table(pages: Path) -> None:
    """What was packed comes out as it went in: the first chart's first line, against the steps table."""
    answer = asked(pages, """
      const trace = document.querySelector(".plot").data.find((one) => one.name === "end to end");
      return [...trace.y].filter((one) => !Number.isNaN(one));
    """).answer  # fmt: skip
    steps = read_table(RunFiles(pages, "gpus").table(STEPS.name), STEPS)
    assert answer == pytest.approx(steps.loc[steps["phase"] == "train", "fps"].tolist(), rel=1e-6)


def test_without_a_script_the_figures_and_tables_are_there(pages: Path, tmp_path: Path) -> None:
    text = re.sub(r"<script>.*?</script>", "", (pages / "gpus.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    silent = tmp_path / "silent.html"
    silent.write_text(text, encoding="utf-8")
    code = """
      const shown = (one) => one.getClientRects().length > 0;
      return { boxes: document.querySelector(".boxes").innerText,
               plots: [...document.querySelectorAll(".plot")].filter(shown).length,
               tables: document.querySelectorAll("details table").length };
    """
    answer = see(silent, code).answer
    assert "images/s" in answer["boxes"]
    assert "if data cost nothing" in answer["boxes"]
    assert answer["plots"] == 0
    assert answer["tables"] > 5
