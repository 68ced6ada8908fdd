"""A campaign of real runs: one that was cut short goes on from its checkpoint, and no other is run again."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest

from harness.analysis.campaigns.stored import CampaignFiles
from harness.artifacts.checkpoint import newest_checkpoint
from harness.artifacts.record import read_record
from tests.support.runs import fork, wait_until

pytestmark = pytest.mark.whole_run

FILE = """
[options]
device = "cpu"
gpus = 1
image_size = 32
batch_size = "auto"
checkpoint_minutes = 0.001
[matrix]
model = ["x0_25"]
epochs = [1, 40]
"""


def test_a_run_of_epochs_that_was_cut_short_goes_on(tmp_path: Path, colours: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(FILE.replace("[matrix]", f'data = "{colours}"\n[matrix]'), encoding="utf-8")
    words = ("campaign", str(file), "--results", str(tmp_path))
    files = CampaignFiles(tmp_path, "two")
    short, long = (files.of(f"model-x0_25--epochs-{epochs}.r1") for epochs in (1, 40))
    started = fork(*words)
    wait_until(lambda: newest_checkpoint(long.checkpoints) is not None, started)
    started.send_signal(signal.SIGINT)
    ended = started.end()
    assert ended.code == 75, ended.err
    assert "To go on:" in ended.err
    first = read_record(short.record)
    ended = fork(*words).end()
    assert ended.code == 0, ended.err
    record = read_record(long.record)
    assert (record.status, len(record.attempts)) == ("finished", 2)
    assert record.attempts[1]["step"] > 0
    assert read_record(short.record) == first
    with files.cells.open(newline="", encoding="utf-8") as stream:
        assert [row["state"] for row in csv.DictReader(stream)] == ["published", "done", "done"]
    # Once more, there is nothing left to do, whatever the resumed run's plan had decided.
    ended = fork(*words).end()
    assert ended.code == 0, ended.err
    assert read_record(long.record) == record
