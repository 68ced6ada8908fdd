"""docs/record.md names every field of a record, and no other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.analysis.comparing.compare import BetweenRuns
from harness.artifacts.bad_image import BadImage
from harness.artifacts.record import read_record, write_record
from harness.artifacts.shared_schema import SUMMARY
from harness.commands.inputs import find_inputs, inspect_inputs
from harness.plan.options import RunConfig, run_options
from harness.report.console import Console
from harness.training.startup import STAGES
from models.architecture import parameter_shapes
from models.fitting import read_file
from tests.support.pages import code_blocks, first_cells, read, sections
from tests.support.simulation import Simulation

SECTIONS = sections(read("record.md"))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a simulated throughput run on two ranks, with what a real data set and this machine add."""
    folder = tmp_path_factory.mktemp("record")
    figures, files = Simulation(ranks=2, exchange_seconds=0.01).run(folder)
    config = RunConfig(data="digits", device="cpu", gpus=2, throughput_only=True)
    found = inspect_inputs(find_inputs(config, Console(), {}), folder, {})
    values: dict[str, Any] = json.loads(files.record.read_text(encoding="utf-8"))
    values |= json.loads(json.dumps(figures.as_record()))
    values |= {"environment": found.environment, "profile": found.profile}
    files.record.write_text(json.dumps(values), encoding="utf-8")
    write_record(files.record, read_record(files.record))  # which refuses what is no record
    written: dict[str, Any] = json.loads(files.record.read_text(encoding="utf-8"))
    return written


def part(record: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The object at a path of keys."""
    for name in path.split("."):
        record = record[name]
    return record


def test_the_top_level(record: dict[str, Any]) -> None:
    assert first_cells(SECTIONS["Top level"]) == list(record)


@pytest.mark.parametrize(
    "path",
    [
        "plan", "plan.data", "plan.data.augmentation", "plan.pipeline", "plan.training", "plan.window",
        "plan.operation", "plan.placement", "environment", "profile", "profile.page_cache", "effective_settings",
        "steady", "ledger", "outliers", "interference", "verdict",
    ],
)  # fmt: skip
def test_every_field_of_an_object_has_its_place(record: dict[str, Any], path: str) -> None:
    assert sorted(first_cells(SECTIONS[path])) == sorted(part(record, path))


@pytest.mark.parametrize("phase", ["train", "pipeline", "compute", "compute_no_sync"])
def test_every_figure_of_a_phase_is_named(record: dict[str, Any], phase: str) -> None:
    assert f"`{phase}`" in SECTIONS["phases"]
    assert sorted(first_cells(SECTIONS["phases"])) == sorted(record["phases"][phase])


def test_config_and_summary_have_pages_of_their_own(record: dict[str, Any]) -> None:
    assert list(record["config"]) == list(run_options())
    assert sorted(record["summary"]) == sorted(SUMMARY.header)


def test_the_small_objects(tmp_path: Path) -> None:
    assert sorted(first_cells(SECTIONS["bad_images"])) == sorted(field.name for field in fields(BadImage))
    assert set(first_cells(SECTIONS["A series"])) > {field.name for field in fields(BetweenRuns)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(0.25, 10).items()}
    save_file(arrays, tmp_path / "weights.safetensors")
    _, described = read_file(tmp_path / "weights.safetensors").fit("x0_25", 10)
    assert first_cells(SECTIONS["pretrained"]) == list(asdict(described))


def test_the_example_is_a_record_of_this_version(record: dict[str, Any]) -> None:
    """It is shortened: whole objects are left out, and of those that are there no field."""
    (example,) = map(json.loads, code_blocks(SECTIONS["An example"], "json"))
    assert example["schema_version"] == record["schema_version"]
    assert set(example) <= set(record)
    (attempt,) = example["attempts"]
    assert first_cells(SECTIONS["attempts"]) == list(attempt)
    assert first_cells(SECTIONS["attempts.startup"]) == list(attempt["startup"]) == list(STAGES)
    for path in ("steady", "ledger", "outliers", "interference", "profile", "phases.train"):
        assert sorted(part(example, path)) == sorted(part(record, path)), path
