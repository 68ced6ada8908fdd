"""When --auto-batch tries a smaller batch, and when it doesn't. The ranks are stood in for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import harness.commands.one_run
from harness.artifacts.checkpoint import Checkpoint, write_checkpoint
from harness.artifacts.record import RunFiles, read_record
from harness.artifacts.schema import STEPS
from harness.artifacts.tables import TableWriter, read_table
from harness.commands.run import measure
from harness.errors import OutOfMemoryError, TrainingError
from harness.plan.options import RunConfig
from harness.plan.plan import RunPlan
from harness.report.console import Console


class Ranks:
    """Run out of memory on batches of more than `fits` images after a step, and after a checkpoint if it is to save."""

    def __init__(self, fits: int, saves: bool) -> None:
        self.fits, self.saves = fits, saves
        self.batches: list[int] = []

    def __call__(self, files: RunFiles, _: object, plan: RunPlan, *__: Any, **___: Any) -> None:
        self.batches.append(plan.pipeline.batch_size)
        assert read_record(files.record).plan == plan
        steps = TableWriter(files.table(STEPS.name), STEPS)
        assert steps.rows == 0
        steps.write({"images": plan.pipeline.batch_size})
        steps.close()
        if self.saves:
            write_checkpoint(files.checkpoints, Checkpoint({"weight": np.zeros(1)}, {"optimizer_steps": 1}))
        if plan.pipeline.batch_size > self.fits:
            raise OutOfMemoryError(
                f"{plan.pipeline.batch_size} images per device do not fit into the memory of rank 0: full"
            )
        raise TrainingError("far enough")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        for number in range(24):
            image = Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8))
            image.save(tmp_path / part / "a" / f"{number}.jpg")
    results = str(tmp_path / "results")
    return RunConfig(device="cpu", gpus=1, data=str(tmp_path), batch_size=24, results=results, run_name="it",
                     auto_batch=True, warmup=0)  # fmt: skip


@pytest.mark.parametrize(
    ("fits", "saves", "auto", "batches"),
    [
        (24, False, True, [24]),
        (5, False, True, [24, 12, 6, 3]),
        (0, False, True, [24, 12, 6, 3, 1]),
        (5, True, True, [24]),
        (5, False, False, [24]),
    ],
)
def test_the_batch_is_halved_before_any_checkpoint(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, fits: int, saves: bool, auto: bool, batches: list[int]
) -> None:
    ranks = Ranks(fits, saves)
    monkeypatch.setattr(harness.commands.one_run, "run_workers", ranks)
    asked = replace(config, auto_batch=auto)
    with pytest.raises(TrainingError) as caught:
        measure(asked, Console(), {})
    assert ranks.batches == batches
    files = RunFiles(Path(asked.results), "it")
    record = read_record(files.record)
    assert record.plan.pipeline.batch_size == batches[-1]
    assert record.plan.training.learning_rate == pytest.approx(0.1 / 256 * batches[-1])
    assert len([text for text in record.warnings if text.startswith("--auto-batch")]) == len(batches) - 1
    # What the last one recorded, and nothing of those before it.
    assert read_table(files.table(STEPS.name), STEPS)["images"].tolist() == batches[-1:]
    assert ("Start another with a smaller --batch-size" in caught.value.cure) == saves
