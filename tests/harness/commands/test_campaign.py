"""A campaign: what is run, what is not run again, and what is reported of cells that failed or can't be run here."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import harness.commands.campaign
from harness.analysis.campaigns.stored import CampaignFiles
from harness.artifacts.record import RunRecord, write_record
from harness.artifacts.run_claim import claimed
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter
from harness.commands.campaign import campaign
from harness.errors import InterruptedRunError, MachineError, TrainingError, UsageError
from harness.plan.options import RunConfig
from harness.report.console import Console
from pipelines.errors import DataError
from tests.support.finished_runs import ATTEMPT
from tests.support.plans import a_plan, a_throughput_record

SIX = """
[options]
throughput_only = true
max_seconds = 5.0
[matrix]
model = ["x0_25", "x0_5", "x1_0"]
batch_size = [8, 16]
"""
# Images per second of each size.
RATES = {"x0_25": 400.0, "x0_5": 200.0, "x1_0": 25.0}


class Machine:
    """Measures in no time. made are the names of the runs that ended, begun those of all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.begun: list[str] = []
        self.errors: dict[str, BaseException] = {}
        self.before: dict[str, BaseException] = {}
        monkeypatch.setattr(harness.commands.campaign, "measure", self.measure)

    def measure(
        self, config: RunConfig, console: Console, environment: Mapping[str, str], *, begun: float
    ) -> RunRecord:
        name, folder = str(config.run_name), Path(config.results)
        self.begun.append(name)
        if name in self.before:
            raise self.before[name]
        plan = a_plan(model=config.model, batch_size=config.batch_size)
        with claimed(folder, name, name, lock=False) as files:
            record = a_throughput_record(
                run=name, config=config, plan=plan, attempts=({**ATTEMPT, "begun_unix_seconds": begun},)
            )
            fps = RATES[config.model] * (1 + 0.01 * self.begun.count(name))
            summary = {**record.summary, "run": name, "model": config.model, "batch_size": config.batch_size,
                       "fps": fps, "fps_low": 0.99 * fps, "fps_high": 1.01 * fps,
                       "fps_per_device": fps / 2}  # fmt: skip
            for table in (STEPS, DEVICES, EPOCHS, BAD_IMAGES):
                TableWriter(files.table(table.name), table).close()
            write_record(files.record, replace(record, status="running"))
            if name in self.errors:
                error = self.errors.pop(name)
                status = "interrupted" if isinstance(error, InterruptedRunError) else "failed"
                write_record(files.record, replace(record, status=status, warnings=(f"failed: {error}",)))
                raise error
            record = replace(record, status="finished", summary=summary)
            write_record(files.record, record)
        self.made.append(name)
        return record


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def file(folder: Path, text: str = SIX) -> str:
    path = folder / "six.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def cells(folder: Path) -> dict[str, dict[str, str]]:
    with CampaignFiles(folder, "six").cells.open(newline="", encoding="utf-8") as stream:
        return {row["cell"]: row for row in csv.DictReader(stream)}


def test_every_cell_is_run_and_they_stand_side_by_side(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign(file(tmp_path, "repeats = 2\n" + SIX), str(tmp_path))
    assert len(machine.made) == len(set(machine.made)) == 12
    assert machine.made[6].endswith(".r2")
    found = cells(tmp_path)
    assert next(iter(found)) == "reference: DeepSparkHub, BI-V100"
    assert float(found["reference: DeepSparkHub, BI-V100"]["fps"]) == 2537
    assert {row["state"] for name, row in found.items() if "reference" not in name} == {"done"}
    assert float(found["model=x0_5, batch-size=16"]["fps"]) == pytest.approx(202.0)
    assert found["model=x0_5, batch-size=16"]["runs"] == "2"
    page = CampaignFiles(tmp_path, "six").page.read_text(encoding="utf-8")
    assert "model=x0_5, batch-size=16" in page
    out = capsys.readouterr().out
    assert "[12/12] model-x1_0--batch-size-16.r2: 25.2 images/s" in out
    assert "6 done" in out


def test_a_finished_campaign_does_nothing_again(tmp_path: Path, machine: Machine) -> None:
    campaign(file(tmp_path), str(tmp_path))
    before = CampaignFiles(tmp_path, "six").cells.read_bytes()
    campaign(file(tmp_path), str(tmp_path))
    assert len(machine.begun) == 6
    assert CampaignFiles(tmp_path, "six").cells.read_bytes() == before


@pytest.mark.parametrize("seed", range(5))
def test_a_campaign_that_is_stopped_again_and_again_ends_with_the_same_table(
    tmp_path: Path, machine: Machine, seed: int
) -> None:
    names = [f"model-{model}--batch-size-{batch}.r1" for model in RATES for batch in (8, 16)]
    stopped = random.Random(seed).sample(names, 3)
    machine.errors = {name: InterruptedRunError("interrupted", "") for name in stopped}
    for _ in stopped:
        with pytest.raises(InterruptedRunError) as caught:
            campaign(file(tmp_path), str(tmp_path))
        assert "six.toml --results" in caught.value.cure
    campaign(file(tmp_path), str(tmp_path))
    assert sorted(machine.made) == sorted(names)
    assert len(machine.begun) == 9
    (tmp_path / "other").mkdir()
    undisturbed = CampaignFiles(tmp_path / "other", "six")
    campaign(file(tmp_path), str(tmp_path / "other"))
    now, then = cells(tmp_path), cells(undisturbed.results)
    figures = ("fps", "fps_low", "fps_high", "fps_per_device")
    for name, row in now.items():
        assert {key: value for key, value in row.items() if key not in figures} == {
            key: value for key, value in then[name].items() if key not in figures
        }


def test_a_run_that_failed_is_not_tried_again_unless_asked(tmp_path: Path, machine: Machine) -> None:
    name = "model-x0_5--batch-size-8.r1"
    machine.errors = {name: TrainingError("the loss is not finite", "lower it")}
    with pytest.raises(TrainingError) as caught:
        campaign(file(tmp_path), str(tmp_path))
    assert caught.value.message == "1 of 6 cells failed: model=x0_5, batch-size=8"
    assert "--retry-failed" in caught.value.cure
    row = cells(tmp_path)["model=x0_5, batch-size=8"]
    assert (row["state"], row["reason"], row["fps"], row["runs"]) == ("failed", "the loss is not finite", "", "0")
    with pytest.raises(TrainingError):
        campaign(file(tmp_path), str(tmp_path))
    assert machine.begun.count(name) == 1
    campaign(file(tmp_path), str(tmp_path), retry_failed=True)
    assert cells(tmp_path)["model=x0_5, batch-size=8"]["state"] == "done"
    assert len(machine.begun) == 7


def test_what_this_machine_can_not_do_is_skipped_and_no_failure(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "model-x1_0--batch-size-16.r1"
    machine.before = {name: MachineError("8 devices requested, 2 found", "")}
    campaign(file(tmp_path), str(tmp_path))
    row = cells(tmp_path)["model=x1_0, batch-size=16"]
    assert (row["state"], row["reason"]) == ("skipped", "8 devices requested, 2 found")
    campaign(file(tmp_path), str(tmp_path))
    assert machine.begun.count(name) == 1
    assert "5 done; 1 skipped" in capsys.readouterr().out


def test_bad_data_is_a_failure(tmp_path: Path, machine: Machine) -> None:
    machine.before = {"model-x1_0--batch-size-16.r1": DataError("no such folder", "")}
    with pytest.raises(TrainingError):
        campaign(file(tmp_path), str(tmp_path))
    assert cells(tmp_path)["model=x1_0, batch-size=16"]["state"] == "failed"


def test_options_that_have_changed_since_are_refused(tmp_path: Path, machine: Machine) -> None:
    campaign(file(tmp_path), str(tmp_path))
    with pytest.raises(UsageError) as caught:
        campaign(file(tmp_path, SIX.replace("5.0", "6.0")), str(tmp_path))
    assert "it was begun with max_seconds 5.0, not 6.0" in caught.value.message
    assert "--name" in caught.value.cure
    campaign(file(tmp_path, SIX.replace("5.0", "6.0")), str(tmp_path), name="longer")


def test_another_cell_can_be_added_later(tmp_path: Path, machine: Machine) -> None:
    campaign(file(tmp_path), str(tmp_path))
    campaign(file(tmp_path, SIX + "\n[[include]]\nmodel = 'x1_0'\nseed = 3\n"), str(tmp_path))
    assert machine.made[6:] == ["model-x1_0--seed-3.r1"]


def test_a_dry_run_prints_the_cells_and_writes_nothing(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    campaign(file(tmp_path), str(results), dry_run=True)
    out = capsys.readouterr().out
    assert "model=x0_25, batch-size=8" in out
    assert "6 runs left, about 0:03:30" in out
    assert list(results.iterdir()) == []
    assert machine.begun == []


@pytest.mark.parametrize(("text", "message"), [("a = [", "is not valid TOML"), ("\xff", "is not valid TOML")])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "it.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        campaign(str(path), str(tmp_path))
    assert message in caught.value.message
    with pytest.raises(UsageError):
        campaign(str(tmp_path / "none.toml"), str(tmp_path))


def test_a_broken_record_is_refused(tmp_path: Path, machine: Machine) -> None:
    files = CampaignFiles(tmp_path, "six")
    files.folder.mkdir()
    files.record.write_text(json.dumps({"schema_version": 99, "ends": {}}), encoding="utf-8")
    with pytest.raises(UsageError):
        campaign(file(tmp_path), str(tmp_path))
    assert machine.begun == []


def test_a_failure_with_a_record_is_told_by_the_record_alone(tmp_path: Path, machine: Machine) -> None:
    machine.errors = {"model-x0_5--batch-size-8.r1": TrainingError("the loss is not finite", "lower it")}
    with pytest.raises(TrainingError):
        campaign(file(tmp_path), str(tmp_path))
    stored = json.loads(CampaignFiles(tmp_path, "six").record.read_text(encoding="utf-8"))
    assert stored["ends"] == {}


def test_a_page_that_can_not_be_written_is_a_note(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder stands in its place."""
    CampaignFiles(tmp_path, "six").page.mkdir(parents=True)
    campaign(file(tmp_path), str(tmp_path))
    assert "note: the page was not written" in capsys.readouterr().out
    assert len(cells(tmp_path)) == 7
