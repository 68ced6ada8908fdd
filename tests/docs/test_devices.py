"""docs/devices.md and the first day on a GPU agree."""

from __future__ import annotations

from harness import ROOT
from harness.doctor.gpu_day import ROWS


def test_every_line_that_only_a_gpu_can_show_names_its_row() -> None:
    page = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    table = page.partition("| gpu-day row | result |\n")[2].partition("\n\n")[0].splitlines()[1:]
    named = [line.split(" | ")[-2] for line in table]
    numbers = {number for text in named if not text.startswith("none") for number in text.split(", ")}
    assert len(table) >= 40
    assert numbers == {str(row.id) for row in ROWS}
