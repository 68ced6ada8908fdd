from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.artifacts.record import SCHEMA_VERSION, RunFiles, RunRecord, read_record, write_record
from harness.artifacts.schema import TRAIN
from harness.errors import MachineError, UsageError
from harness.plan.config import RunConfig
from tests.support.plans import a_plan, a_record, a_throughput_record

PLAN = a_plan(notes=("batch of 32 images per rank, not 512: few", "another"))
RECORD = a_record(
    plan=PLAN,
    environment={"python": "3.11.7", "cores": 2, "gpus": [{"index": 0, "uuid": "GPU-a"}], "packages": {"numpy": "2.3"}},
    profile={"images": 1347, "mean_bytes": 812.5, "bits_per_pixel": None},
    warnings=("first", "second"),
)
# What version 1 wrote of one epoch on digits; folder, platform, notes and warnings are others.
VERSION_1 = """{
  "run": "v1",
  "status": "finished",
  "config": {
    "throughput_only": false, "model": "x0_25", "gpus": 2, "device": "cpu", "epochs": 1, "warmup": null,
    "max_seconds": 45.0, "seed": 0, "data": "digits", "classes": null, "image_size": 32, "crop_area_min": null,
    "flip_probability": null, "batch_size": 16, "learning_rate": null, "lr_warmup_epochs": null, "momentum": 0.9,
    "weight_decay": null, "label_smoothing": 0.1, "compute_threads": null, "decode_threads": null, "prefetch": 2,
    "reader_prefetch": 2, "hw_decoder_load": 0.65, "width_hint": 0, "height_hint": 0, "results": "out",
    "run_name": "v1", "telemetry_interval": 0.5
  },
  "plan": {
    "model": "x0_25", "device": "cpu", "device_name": "CPU", "ranks": 2,
    "data": {
      "source": "digits", "name": "digits", "train_images": 1442, "val_images": 355, "num_classes": 10,
      "augmentation": {
        "crop_area_min": 0.35, "crop_area_max": 1.0, "aspect_min": 0.75, "aspect_max": 1.3333333333333333,
        "flip_probability": 0.0
      },
      "imagenet": false, "builtin": true
    },
    "image_size": 32, "batch_size": 16, "steps_per_epoch": 46, "epochs": 1, "total_steps": 46,
    "learning_rate": 0.0125, "lr_warmup_epochs": 1, "weight_decay": 3e-05, "warmup_steps": 3, "compute_threads": 1,
    "decode_threads": 1, "notes": ["one", "two"]
  },
  "environment": {
    "python": "3.11.7", "platform": "Linux-6.18", "cpu": "AMD EPYC", "cores": 2, "gpus": [], "nvidia_driver": null,
    "packages": {"paddlepaddle": "3.3.1", "nvidia-dali-cuda120": "2.4.0", "nvidia-ml-py": "13.615.71", "numpy": "2.3.5"}
  },
  "profile": {
    "images": 1442, "mean_bytes": 1685.0367545076283, "total_bytes": 2429823, "sampled_images": 512,
    "mean_width_pixels": 64.0, "mean_height_pixels": 64.0, "bits_per_pixel": 3.2936134338378906
  },
  "warnings": ["a warning"],
  "summary": {
    "run": "v1", "model": "x0_25", "dataset": "digits", "crop_size": 32, "device": "cpu", "device_name": "AMD EPYC",
    "devices": 2, "batch_size": 16, "fps_per_device": 282.1918500865772, "images": 1376,
    "window_seconds": 2.438057654, "window_steps": 43, "warmup_steps": 3, "fps": 564.3837001731544,
    "step_seconds_p50": 0.052627764, "step_seconds_p95": 0.0809068543, "data_wait_share": 0.0630447375794502,
    "gpu_util_percent": null, "cpu_util_percent": 99.61307910225074, "top1": 0.1183, "top5": 0.4817, "epochs": 1
  },
  "schema_version": 1
}
"""


def round_trip(folder: Path, record: RunRecord) -> RunRecord:
    write_record(folder / "run.json", record)
    return read_record(folder / "run.json")


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    assert round_trip(tmp_path, RECORD) == RECORD
    assert RECORD.schema_version == SCHEMA_VERSION == 4


def test_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    record = a_throughput_record()
    back = round_trip(tmp_path, record)
    assert back == record
    assert back.verdict is not None
    assert (back.verdict["bottleneck"], back.verdict["ceiling_low_fps"]) == ("shared", 80.0)
    assert back.phases["compute_no_sync"]["fps"] == 110.0


def test_a_record_of_defaults_comes_back_as_it_was(tmp_path: Path) -> None:
    """Options that are None, a plan without an end and everything that isn't known yet."""
    plan = a_plan(total_steps=None)
    record = RunRecord("run", "running", RunConfig(), plan, {})
    back = round_trip(tmp_path, record)
    assert back == record
    assert (back.config.gpus, back.config.learning_rate, back.plan.total_steps) == (None, None, None)
    assert (back.profile, back.summary, back.warnings, back.plan.notes) == ({}, {}, (), ())
    found = (
        back.effective_settings,
        back.phases,
        back.steady,
        back.ledger,
        back.outliers,
        back.interference,
        back.verdict,
    )
    assert found == ({}, {}, {}, {}, {}, {}, None)
    assert back.series is None
    assert (back.attempts, back.bad_images, back.checkpoint) == ((), (), None)


def test_attempts_bad_images_and_the_checkpoint_come_back(tmp_path: Path) -> None:
    bad = {"split": "train", "index": 7, "path": "a.jpg", "label": 0, "reason": "0 bytes", "rank": None, "epoch": None}
    attempts = tuple(
        {"first_segment": segment, "step": step, "started_unix_seconds": 1.75e9 + step, "ranks": 2}
        for segment, step in ((1, 0), (5, 40))
    )
    record = dataclasses.replace(RECORD, attempts=attempts, bad_images=(bad,), checkpoint="000003")
    assert round_trip(tmp_path, record) == record


def test_every_option_comes_back(tmp_path: Path) -> None:
    config = RunConfig(
        throughput_only=True,
        model="x2_5",
        gpus=3,
        device="cpu",
        epochs=7,
        warmup=0,
        target_ci=0.5,
        max_seconds=1e-3,
        repeats=5,
        stall_timeout=5.5,
        bad_images="fail",
        max_bad_images=7,
        seed=2147418111,
        data="a folder",
        classes=12,
        image_size=32,
        crop_area_min=0.1,
        flip_probability=0.0,
        batch_size=1,
        learning_rate=1 / 3,
        lr_warmup_epochs=0,
        momentum=0.0,
        weight_decay=0.0,
        label_smoothing=0.0,
        compute_threads=2,
        decode_threads=3,
        prefetch=4,
        hw_decoder_load=1.0,
        width_hint=4000,
        height_hint=3000,
        results="elsewhere",
        run_name="named",
        telemetry_interval=0.1,
        checkpoint_minutes=2.5,
        preprocessing="dali",
        auto_augment=True,
        accumulation_steps=2,
        pretrained="a.pdparams",
        bn_stats="rank0",
        amp="fp16",
        amp_level="O2",
        layout="nhwc",
        to_static=True,
    )
    # --device-counts, which decides the devices, can't be given with --gpus, nor --repeats on several nodes or with
    # --resume.
    unset = [name for name, value in dataclasses.asdict(config).items() if value is None]
    assert unset == ["device_counts", "resume", "master", "node_rank"]
    scaled = RunConfig(throughput_only=True, device_counts="1,2,4")
    resumed = RunConfig(resume="first")
    several = RunConfig(nnodes=2, master="10.0.0.1:6170", node_rank=1, rendezvous_timeout=9.5)
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=several)).config == several
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=resumed)).config == resumed
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=scaled)).config == scaled
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
        *(
            "run",
            "status",
            "config",
            "plan",
            "environment",
            "profile",
            "warnings",
            "series",
            "effective_settings",
            "phases",
        ),
        *("steady", "ledger", "outliers", "interference", "verdict", "summary", "attempts", "bad_images", "checkpoint"),
        *("pretrained", "schema_version"),
    ]
    assert (values["schema_version"], values["status"]) == (4, "finished")
    assert values["config"]["batch_size"] is None
    assert values["plan"]["data"]["augmentation"]["crop_area_min"] == 0.5
    assert values["summary"]["top1"] == 0.95333
    assert values["verdict"] is None


def read(folder: Path, text: str) -> RunRecord:
    (folder / "run.json").write_text(text, encoding="utf-8")
    return read_record(folder / "run.json")


def test_a_record_of_version_1_is_read(tmp_path: Path) -> None:
    record = read(tmp_path, VERSION_1)
    assert (record.schema_version, record.run, record.status) == (4, "v1", "finished")
    assert (record.config.epochs, record.config.batch_size, record.config.learning_rate) == (1, 16, None)
    assert (record.plan.global_batch, record.plan.total_steps, record.plan.notes) == (32, 46, ("one", "two"))
    assert record.plan.data.augmentation.crop_area_min == 0.35
    assert (record.warnings, record.environment["cores"]) == (("a warning",), 2)
    assert record.summary == json.loads(VERSION_1)["summary"]


def test_the_figures_of_version_1_are_its_summarys_and_no_others(tmp_path: Path) -> None:
    record = read(tmp_path, VERSION_1)
    assert record.phases == {
        TRAIN: {
            "fps": 564.3837001731544,
            "images": 1376,
            "window_seconds": 2.438057654,
            "window_steps": 43,
            "warmup_steps": 3,
            "step_seconds_p50": 0.052627764,
            "step_seconds_p95": 0.0809068543,
            "data_wait_share": 0.0630447375794502,
            "gpu_util_percent": None,
            "cpu_util_percent": 99.61307910225074,
        }
    }
    # Version 1 found out none of these.
    assert (record.effective_settings, record.steady, record.ledger, record.outliers, record.interference) == (
        {},
        {},
        {},
        {},
        {},
    )
    assert (record.verdict, record.series) == (None, None)
    assert (record.attempts, record.bad_images, record.checkpoint) == ((), (), None)


def test_a_run_of_version_1_that_was_cut_short_has_no_figures(tmp_path: Path) -> None:
    record = read(tmp_path, json.dumps({**json.loads(VERSION_1), "status": "interrupted", "summary": {}}))
    assert (record.status, record.phases, record.summary) == ("interrupted", {}, {})


def test_a_record_of_version_2_has_lost_an_option_and_nothing_else(tmp_path: Path) -> None:
    """DALI's reader, which read ahead by itself, is gone; a file that says version 3 may not know it any more."""
    values = json.loads(VERSION_1)
    values |= {
        "schema_version": 2, "series": "s", "effective_settings": {"ranks": 2}, "phases": {"train": {"fps": 1.5}},
        "steady": {},
        "ledger": {"wall_seconds": 2.0}, "outliers": {"count": 1}, "interference": {},
        "verdict": {"bottleneck": "compute"},
    }  # fmt: skip
    assert values["config"]["reader_prefetch"] == 2
    record = read(tmp_path, json.dumps(values))
    given = {name: value for name, value in values["config"].items() if value is not None and name != "reader_prefetch"}
    assert record.config == RunConfig(**given)
    for name in ("series", "effective_settings", "phases", "ledger", "outliers", "verdict", "summary"):
        assert getattr(record, name) == values[name], name
    assert (record.attempts, record.bad_images, record.checkpoint) == ((), (), None)
    with pytest.raises(UsageError, match=r"run\.json: unknown key 'reader_prefetch'"):
        read(tmp_path, json.dumps(values | {"schema_version": 3}))


def test_a_record_of_version_3_is_one_of_single_precision_and_whole_batches(tmp_path: Path) -> None:
    values = json.loads(VERSION_1)
    config = {name: value for name, value in values["config"].items() if name != "reader_prefetch"}
    record = read(tmp_path, json.dumps({**values, "schema_version": 3, "config": config}))
    assert (record.config.amp_mode, record.config.layout, record.plan.accumulation_steps) == ("off", "nchw", 1)
    assert record.pretrained is None


def test_a_record_of_version_1_that_is_written_again_is_one_of_version_4(tmp_path: Path) -> None:
    record = read(tmp_path, VERSION_1)
    assert round_trip(tmp_path, record) == record
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["schema_version"] == 4


@pytest.mark.parametrize("version", [5, 0, 99, "2", None, 1.5])
def test_a_record_of_a_version_that_is_not_known(tmp_path: Path, version: object) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, json.dumps({**json.loads(VERSION_1), "schema_version": version}))
    assert caught.value.message == f"run.json has schema version {version}, known are 1 to 4"
    assert "version of this project that wrote it" in caught.value.cure


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        VERSION_1[: len(VERSION_1) // 2],
        "[]",
        "null",
        "3",
        "{}",
        '{"schema_version": 3}',
        '{"schema_version": 2}',
        '{"schema_version": 1}',
        VERSION_1.replace('"window_steps": 43', '"steps": 43'),
        VERSION_1.replace('"ranks": 2', '"rank": 2'),
        VERSION_1.replace('"notes"', '"remarks"'),
        VERSION_1.replace('"status"', '"state"'),
    ],
)
def test_a_file_that_is_no_record(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/run.json is no run's record: ")
    assert "<run>.json" in caught.value.cure


def test_bytes_that_are_no_text_are_no_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(UsageError, match="is no run's record"):
        read_record(tmp_path / "run.json")


def test_a_record_with_a_configuration_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json: unknown key 'epoch'"):
        read(tmp_path, VERSION_1.replace('"epochs": 1, "warmup"', '"epoch": 1, "warmup"'))
    with pytest.raises(UsageError, match="--prefetch is 0; it must be at least 1"):
        read(tmp_path, VERSION_1.replace('"prefetch": 2,', '"prefetch": 0,'))


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
    assert files.checkpoints == Path("results/20261124-153012-x1_0-cpu2.checkpoints")
    # A name with dots keeps all of them.
    assert RunFiles(Path("r"), "v1.2").record == Path("r/v1.2.json")


def test_any_file_of_a_run_takes_its_name(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "first")
    assert files.existing() == []
    tables = [files.table(name) for name in ("steps", "devices", "epochs", "bad_images", "scaling")]
    for path in (files.record, *tables):
        path.touch()
        assert files.existing() == [path]
        path.unlink()
    files.checkpoints.mkdir()
    assert files.existing() == [files.checkpoints]
