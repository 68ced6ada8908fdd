"""The snippets of docs/reading-results.md run as they stand, on recorded runs, and say what is true of these."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.summarize import summarize
from harness.artifacts.record import read_record, write_record
from harness.artifacts.shared_schema import SUMMARY
from harness.artifacts.shared_tables import append_row
from tests.support.long_runs import BATCH, RANKS, SLOW_STEPS, STEP_SECONDS, WATTS, LongRun
from tests.support.pages import code_blocks, read

EPOCHS, STEPS_PER_EPOCH = 3, 100


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs of three epochs on four GPUs, and a series."""
    folder = tmp_path_factory.mktemp("work") / "results"
    for name, steps in (("before", STEPS_PER_EPOCH), ("after", 2 * STEPS_PER_EPOCH)):
        folder.mkdir(exist_ok=True)
        files, record = LongRun(epochs=EPOCHS, steps_per_epoch=steps).write(folder)
        figures = summarize(files, record).as_record()
        figures["summary"] |= {"run": name}
        record = replace(read_record(files.record), run=name, status="finished", **figures)
        write_record(files.record, record)
        append_row(folder / "summary.csv", SUMMARY, record.summary)
        for path in folder.glob(f"{files.run}.*"):
            path.rename(folder / path.name.replace(files.run, name, 1))
    (folder / "three.json").write_text(json.dumps({"kind": "repeats", "run": "three", "runs": []}), encoding="utf-8")
    return folder


def test_every_snippet_says_what_is_true(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    names: dict[str, Any] = {}
    said = []
    for snippet in code_blocks(read("reading-results.md"), "python"):
        exec(compile(snippet, "reading-results.md", "exec"), names)
        said.append(capsys.readouterr().out)
    throughput, top1, last, waiting, comparison, devices, machines = said
    assert names["fps"] == pytest.approx(RANKS * BATCH / STEP_SECONDS, rel=0.01)
    assert len(names["window"]) == EPOCHS * STEPS_PER_EPOCH - SLOW_STEPS
    assert throughput.endswith("images/s on 4 devices\n")
    assert "best top-1 0.7000 after epoch 3" in top1
    assert last == "top-1 0.7000 of 50000 images, 0 left out\n"
    assert waiting.splitlines() == ["epoch", "1    10.0%", "2    10.0%", "3    10.0%"]
    assert comparison.endswith(f"{names['pair'].loc['after', 'fps'] / names['fps'] - 1:+.1%}\n")
    assert {"before", "after"} == {line.split()[0] for line in comparison.splitlines()[2:4]}
    assert devices.splitlines() == ["device", *(f"gpu{rank}    {WATTS:.0f} W" for rank in range(RANKS))]
    assert sorted(line.split()[0] for line in machines.splitlines()[1:]) == ["after", "before"]
