from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.config import RunConfig
from harness.errors import MachineError
from harness.plan import DataFacts, RunPlan
from harness.record import RunFiles, RunRecord, read_record, write_record
from pipelines.augmentation import Augmentation

PLAN = RunPlan(
    model="x0_25",
    device="cpu",
    device_name="CPU",
    ranks=2,
    data=DataFacts("digits", "digits", 1347, 450, 10, Augmentation(0.5, 1.0, 0.9, 1.1, 0.0), False, True),
    image_size=64,
    batch_size=32,
    steps_per_epoch=22,
    epochs=20,
    total_steps=440,
    learning_rate=0.025,
    warmup_epochs=5,
    weight_decay=3e-5,
    warmup_steps=3,
    compute_threads=1,
    decode_threads=1,
    notes=("batch of 32 images per rank, not 512: few", "another"),
)
RECORD = RunRecord(
    run="20261124-153012-x0_25-cpu2",
    status="finished",
    config=RunConfig(model="x0_25", epochs=20, image_size=64, data="digits", learning_rate=0.025, gpus=2),
    plan=PLAN,
    environment={"python": "3.11.7", "cores": 2, "gpus": [{"index": 0, "uuid": "GPU-a"}], "packages": {"numpy": "2.3"}},
    profile={"images": 1347, "mean_bytes": 812.5, "bits_per_pixel": None},
    warnings=("first", "second"),
    summary={"fps": 85.25, "top1": 0.9533, "step_seconds_p95": None, "run": "20261124-153012-x0_25-cpu2"},
)


def round_trip(folder: Path, record: RunRecord) -> RunRecord:
    write_record(folder / "run.json", record)
    return read_record(folder / "run.json")


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    assert round_trip(tmp_path, RECORD) == RECORD


def test_a_record_of_defaults_comes_back_as_it_was(tmp_path: Path) -> None:
    """Options that are None, a plan without an end and everything that isn't known yet."""
    plan = dataclasses.replace(PLAN, total_steps=None, notes=())
    record = RunRecord("run", "running", RunConfig(), plan, {})
    back = round_trip(tmp_path, record)
    assert back == record
    assert (back.config.gpus, back.config.learning_rate, back.plan.total_steps) == (None, None, None)
    assert (back.profile, back.summary, back.warnings, back.plan.notes) == ({}, {}, (), ())


def test_every_option_comes_back(tmp_path: Path) -> None:
    config = RunConfig(
        throughput_only=True,
        model="x2_5",
        gpus=3,
        device="cpu",
        epochs=7,
        warmup=0,
        max_seconds=1e-3,
        seed=2147418111,
        data="a folder",
        classes=12,
        image_size=32,
        crop_area_min=0.1,
        flip_probability=0.0,
        batch_size=1,
        learning_rate=1 / 3,
        warmup_epochs=0,
        momentum=0.0,
        weight_decay=0.0,
        label_smoothing=0.0,
        compute_threads=2,
        decode_threads=3,
        prefetch=4,
        reader_prefetch=5,
        hw_decoder_load=1.0,
        results="elsewhere",
        run_name="named",
        telemetry_interval=0.1,
    )
    assert all(value is not None for value in dataclasses.asdict(config).values())
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=config)).config == config


@pytest.mark.parametrize("name", ['"quoted"', "a\nb\tc", "データ", "\\", "'", "caf\udce9", "\x00\x1b[31m"])
def test_any_name_of_a_data_set_comes_back(tmp_path: Path, name: str) -> None:
    """The last but one is a file name that isn't UTF-8, as Python reads it."""
    data = dataclasses.replace(PLAN.data, name=name, source=name)
    record = dataclasses.replace(
        RECORD, plan=dataclasses.replace(PLAN, data=data), config=RunConfig(data=name, results=name), warnings=(name,)
    )
    assert round_trip(tmp_path, record) == record


def test_a_record_is_plain_json(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    values = json.loads(text)
    assert text.endswith("}\n")
    assert list(values) == [
        *("run", "status", "config", "plan", "environment", "profile", "warnings", "summary", "schema_version"),
    ]
    assert (values["schema_version"], values["status"]) == (1, "finished")
    assert values["config"]["batch_size"] is None
    assert values["plan"]["data"]["augmentation"]["crop_area_min"] == 0.5
    assert values["summary"]["top1"] == 0.9533


def test_one_more_warning(tmp_path: Path) -> None:
    warned = RECORD.warned("third")
    assert warned.warnings == ("first", "second", "third")
    assert RECORD.warnings == ("first", "second")
    assert dataclasses.replace(warned, warnings=RECORD.warnings) == RECORD
    assert round_trip(tmp_path, warned) == warned


def test_a_record_that_is_written_again_replaces_the_first(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    assert round_trip(tmp_path, dataclasses.replace(RECORD, status="failed")).status == "failed"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="can't write"):
        write_record(tmp_path / "missing" / "run.json", RECORD)


def test_a_run_s_files() -> None:
    files = RunFiles(Path("results"), "20261124-153012-x1_0-cpu2")
    assert files.record == Path("results/20261124-153012-x1_0-cpu2.json")
    assert files.table("steps") == Path("results/20261124-153012-x1_0-cpu2.steps.csv")
    # A name with dots keeps all of them.
    assert RunFiles(Path("r"), "v1.2").record == Path("r/v1.2.json")
